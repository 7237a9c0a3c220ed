/* dryrun: `drover-migrate forecast`. Watches the guest for some seconds, tells the forecast as an event and ends. Talks
 * to nobody but its control socket; what it leaves behind is nothing, whichever way it ends: killed, the
 * write-protection it leaves costs the guest one fault a page and holds nothing up. */
#ifndef MIGRATE_DRYRUN_H
#define MIGRATE_DRYRUN_H

#include "migrate/options.h"

/* Exit status: 0 told, 1 failed. */
int dryrun_run(const struct options *options);

#endif
