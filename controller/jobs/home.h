/* A VM's home: the host that has its disks as they are now. It is kept from the first move on that took disks along:
 * older copies of them may lie on other hosts under the same paths (`--keep-source`, a host that was away when they
 * were to be removed), and a guest that is started from one has lost what it wrote since. Such a VM is started at home
 * unless the user names another host, which then is its home. VMs whose disks never travelled have none and are
 * placed freely. Kept as a setting of the state, which members of every version apply alike; settings are not deleted,
 * so that a VM's empty one outlives it. */
#ifndef CONTROLLER_JOBS_HOME_H
#define CONTROLLER_JOBS_HOME_H

#include "controller/state/state.h"
#include "proto/state.pb-c.h"

/* What stands for a host where nobody can say which one's copy is the newest: a name that no host can have. */
#define HOME_UNKNOWN "?"

/* Copies the home of the VM; false: it has none. */
bool home_of(struct state *state, const char *vm_id, char out[static STATE_NAME_MAX]);
/* `host`, HOME_UNKNOWN, or "" for none from now on. */
Drover__Effect *home_put(const char *vm_id, const char *host);

#endif
