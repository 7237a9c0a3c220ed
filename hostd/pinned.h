/* pinned: which cores belong to guests alone. A virtual CPU that may not run everywhere was put where it is on purpose,
 * and who works beside it there takes from the guest. */
#ifndef HOSTD_PINNED_H
#define HOSTD_PINNED_H

#include <sched.h>
#include <stdbool.h>
#include <sys/types.h>

/* Adds to `pinned` where the virtual CPUs of this QEMU may run that may not run on all of `all`. A process that is
 * gone has none. */
void pinned_add(pid_t qemu, const cpu_set_t *all, cpu_set_t *pinned);
/* What of `all` is left for others. False: nothing, and `rest` is `all`. Pure. */
bool pinned_rest(const cpu_set_t *all, const cpu_set_t *pinned, cpu_set_t *rest);

#endif
