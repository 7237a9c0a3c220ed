/* Foreign text made fit for records, logs and messages. Pure. */
#ifndef HOSTD_TEXT_H
#define HOSTD_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Copies `text` into `out`, cut to fit; what is not printable ASCII becomes '?'. Returns `out`. */
const char *text_print(char *out, size_t size, const char *text);
/* A stable 64-bit hash (FNV-1a) of the parts given, ended by NULL, e.g. for names of limited length. */
uint64_t text_hash(const char *part, ...);

#endif
