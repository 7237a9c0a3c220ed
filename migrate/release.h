/* release: `drover-migrate release`. What a guardian does (guardian.h), for an engine that was killed together with its
 * guardian: ends the watch over the guest's memory, so that nobody waits for the dead. A moment's work; it talks to
 * nobody but the log. */
#ifndef MIGRATE_RELEASE_H
#define MIGRATE_RELEASE_H

#include "migrate/options.h"

/* The engine that `options` were written for must be dead. Exit status: 0 nobody waits any more, 1 that is not certain.
 */
int release_run(const struct options *options);

#endif
