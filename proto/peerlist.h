/* peerlist: the servers a program may ask, as configuration files name them: one "KEY tcp://IP:PORT" a line. Pure. */
#ifndef PROTO_PEERLIST_H
#define PROTO_PEERLIST_H

#include <stddef.h>

#include "base/err.h"
#include "proto/keys.h"
#include "proto/wire.h"

struct peerlist_entry {
    uint8_t key[KEY_BYTES];         /* public */
    char address[WIRE_ADDRESS_MAX]; /* tcp://IP:PORT, the port is not 0 */
};

/* Reads all of `lines`, 1 to `max` of them; an error quotes the line, and names no key of the file: that is for the
 * caller. `out` may have been written to then, and is not to be used. */
MUST_CHECK int peerlist_parse(
    const char *lines, size_t max, struct err *err, struct peerlist_entry *out, size_t *count);

#endif
