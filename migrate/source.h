/* source: the side that runs the guest.
 *
 *   CONNECTING -> PRECOPY -> SWITCHING -> HANDED_OVER -> [POSTCOPY ->] DONE
 *        `----------`-----------`--------> FAILING -> FAILED      the guest runs on here
 *                                          HANDED_OVER -> DOUBT    nobody here knows; the record says so
 *
 * SWITCHING: QEMU's own migration (device state only) is started while the guest still runs; once it has stopped the
 * guest, the last pass travels while QEMU saves the device state; when a scan after both has found nothing more, the
 * state goes out; when the destination has loaded it, the hand-over is recorded and sent. After the record the guest
 * never runs here again unless the destination itself says that it refuses.
 *
 * With post-copy the last pass does not send the pages but names them; they follow once the destination has started the
 * guest (pusher.h), and DONE means that the last one is there. Until then this host's RAM is the only place where they
 * are: nothing but the destination's word ends POSTCOPY. */
#ifndef MIGRATE_SOURCE_H
#define MIGRATE_SOURCE_H

#include "migrate/options.h"

/* Runs one migration to its end; returns the exit status: 0 moved, 1 failed (the guest runs on here), 3 in doubt. */
int source_run(const struct options *options);

#endif
