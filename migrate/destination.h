/* destination: the side that will run the guest.
 *
 *   LISTENING -> RECEIVING -> READY -> OWNER -> [POSTCOPY ->] DONE
 *       |           |           |        `-> RETURNING
 *       `-----------`-----------`---------------`-----> FAILED     it has not run here and never will
 *
 * READY: QEMU has loaded the device state. OWNER is recorded before QEMU is told to run the guest. RETURNING: QEMU has
 * refused to, so that not one instruction was executed here, and the source, whose guest is whole, may have it back; it
 * is told once that is on record for good. POSTCOPY: it runs, and the pages that are not here yet are fetched; that
 * goes on for as long as it takes, whatever becomes of the connection.
 */
#ifndef MIGRATE_DESTINATION_H
#define MIGRATE_DESTINATION_H

#include "migrate/options.h"

/* Serves one migration to its end; returns the exit status: 0 moved, 1 failed. */
int destination_run(const struct options *options);

#endif
