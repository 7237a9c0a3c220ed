/* `drover-hostd --shutdown-guests`: has the drover-hostd that runs here ask its guests to shut down, and waits until
 * none is left. For drover-guests.service, when the system goes down: what runs after that loses its power. */
#ifndef HOSTD_LAST_CALL_H
#define HOSTD_LAST_CALL_H

#include <signal.h>

#include "hostd/options.h"

#define LAST_CALL_SIGNAL SIGUSR1 /* asks a drover-hostd to have its guests shut down */

/* Synchronous; takes up to host.shutdown_seconds. ERR_TIMEOUT: that was not enough, and `err` names the guests that
 * still run. */
MUST_CHECK int last_call(const struct options *options, struct err *err);

#endif
