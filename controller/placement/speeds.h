/* speeds: how fast guests' memory has travelled between hosts lately, from the records of migrations that succeeded. A
 * copy of what the log says: made anew when a migration has ended. */
#ifndef CONTROLLER_PLACEMENT_SPEEDS_H
#define CONTROLLER_PLACEMENT_SPEEDS_H

#include "controller/state/state.h"

struct speeds;

/* Of the latest migrations. Take: speeds_free(). */
struct speeds *speeds_read(struct state *state);
void speeds_free(struct speeds *speeds);
struct speed {
    const char *from, *to; /* lent */
    double bytes_per_s;    /* of guest memory, of a migration alone; what others took of its way is counted in */
};
/* The `i`th, the newest first: several may be of the same two hosts. False: there are no more. */
bool speeds_at(const struct speeds *speeds, size_t i, struct speed *out);

#endif
