/* destination: the side that will run the guest.
 *
 *   LISTENING -> RECEIVING -> READY -> OWNER -> DONE
 *       `-----------`-----------`----> FAILED     it has not run here and never will
 *
 * READY: QEMU has loaded the device state. OWNER is recorded before QEMU is told to run the guest. */
#ifndef MIGRATE_DESTINATION_H
#define MIGRATE_DESTINATION_H

#include "migrate/options.h"

/* Serves one migration to its end; returns the exit status: 0 moved, 1 failed. */
int destination_run(const struct options *options);

#endif
