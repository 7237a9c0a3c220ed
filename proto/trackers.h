/* trackers: the ways to learn what a guest writes while it is moved (migrate/tracker.h), by name, as configurations and
 * requests give them. Hosts, controllers and engines go by this one table. Pure. */
#ifndef PROTO_TRACKERS_H
#define PROTO_TRACKERS_H

#include <stdbool.h>

#define TRACKERS_NAMES "auto, wp-async, wp-sync or qemu" /* for messages */

/* "" or "auto": the best that the host has. */
bool trackers_any(const char *name);
/* One of the names above, or "". */
bool trackers_known(const char *name);
/* Whether a host whose best is `best` has `name`, too: one that has a tracker has those that ask less of the kernel.
 * `best` is not "none" or empty. A name that is not known here is had by the host alone that says it. */
bool trackers_had(const char *best, const char *name);

#endif
