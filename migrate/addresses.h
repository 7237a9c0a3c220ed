/* addresses: the guest's IP addresses, as they travel with it: read from a file at the source, told in the hello,
 * checked, announced and written to a file at the destination, for the move after this one. */
#ifndef MIGRATE_ADDRESSES_H
#define MIGRATE_ADDRESSES_H

#include "base/neighbour.h"

struct addresses {
    size_t count;
    struct neighbour list[NEIGHBOURS_MAX];
    char text[NEIGHBOURS_MAX][NEIGHBOUR_TEXT_MAX];
    char *lines[NEIGHBOURS_MAX]; /* of `text`, as a message wants them */
};

/* What cannot be read, and lines that make no sense, are left out: a guest moves without its addresses, too. `file` may
 * be empty. */
void addresses_load(const char *file, struct addresses *out);
/* Takes over what a peer told, as far as it makes sense and is of one of `macs` (one a line): nobody announces what is
 * not the guest's. */
void addresses_take(char *const *lines, size_t count, const char *macs, struct addresses *out);
MUST_CHECK int addresses_save(const struct addresses *addresses, const char *file, struct err *err);

#endif
