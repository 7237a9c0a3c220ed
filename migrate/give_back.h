/* give-back: `drover-migrate give-back`. For a destination's engine that was killed with pages of the guest still at
 * its source: here it is lost, but there it may be whole.
 *
 *   record `owner`, pages missing -> QEMU says that the guest is paused -> record `failed`, lasting
 *
 * What QEMU has loaded is `paused` until a `cont` is taken, and nobody stops a guest that still fetches pages, so such
 * a guest has not executed an instruction here. A `cont` of the dead engine's may still be on its way: so QEMU is asked
 * over that engine's own monitor, which takes one client at a time: what the last one asked for is done, or dropped,
 * before we are answered. */
#ifndef MIGRATE_GIVE_BACK_H
#define MIGRATE_GIVE_BACK_H

#include "migrate/options.h"

/* The engine that `options` were written for must be dead, and nobody else may tell QEMU to run the guest. Exit status:
 * 0 the record says that it has not run here and never will; 1 it may have, and the record is as it was. */
int give_back_run(const struct options *options);

#endif
