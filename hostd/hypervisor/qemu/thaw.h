/* Has a guest execute, whatever a migration of its state has left of it.
 *
 *   migrate_cancel -> query-migrate, until QEMU is out of it -> query-status -> cont -> announce-self
 *
 * Each step may find that there is nothing to do, or nothing to be done. On the loop. */
#ifndef HOSTD_HYPERVISOR_QEMU_THAW_H
#define HOSTD_HYPERVISOR_QEMU_THAW_H

#include "hostd/hypervisor/hypervisor.h"

struct thaw;

/* Both are lent. Take: thaw_free(), once the guest's monitor is closed. */
struct thaw *thaw_new(const struct hypervisor *hv, struct guest *guest);
/* NULL is fine. */
void thaw_free(struct thaw *thaw);
/* As guest_resume(); one at a time. */
void thaw_begin(struct thaw *thaw, guest_done_fn fn, void *user);
/* Nobody is told any more. */
void thaw_stop(struct thaw *thaw);

#endif
