/* source: the side that runs the guest.
 *
 *   CONNECTING -> [DISKS ->] PRECOPY -> SWITCHING -> HANDED_OVER -> [[UNANSWERED ->] POSTCOPY ->] DONE
 *        `-----------`----------`-----------`------------`--> FAILING -> FAILED: the guest runs on here
 *                                                        `--> DOUBT    nobody here knows; the record says so
 *
 * An engine that is started again after a hand-over goes from CONNECTING straight to HANDED_OVER. The steps within
 * SWITCHING are told in source_switch.c, all that may follow a phase is in source.c. From the record of the hand-over
 * on the guest never runs here again, unless the destination itself says that it refuses.
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
