/* QEMU's words to people: it ends with one line about an option of up to a kilobyte that nobody has typed. Pure. */
#ifndef HOSTD_HYPERVISOR_QEMU_WORDS_H
#define HOSTD_HYPERVISOR_QEMU_WORDS_H

#include <stddef.h>

/* What the line of QEMU's log says, without the program and the option it is about but for the name of its node
 * (disk0), and with what to do where that is known. Cut to fit. */
void words_explain(const char *line, size_t size, char *out);

#endif
