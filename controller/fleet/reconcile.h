/* What to do about a difference between the log and what a host reports. Pure: one partition, one VM, one decision.
 *
 * The rule above all: a partition that could be the only instance of its VM is never ended here. Ended is only what the
 * log says nobody may run: the generation is older than the VM's and the host does not own it; or it has never run. Of
 * a VM that the log does not know only what cannot run is ended: a log that has lost it says nothing about its guest,
 * and one that arrives is at any moment the only one there is.
 * While a job holds the VM, or a hand-over is under way, everything is the job's. */
#ifndef CONTROLLER_FLEET_RECONCILE_H
#define CONTROLLER_FLEET_RECONCILE_H

#include "controller/fleet/fleet.h"

enum reconcile_act {
    RECONCILE_NOTHING,
    RECONCILE_END,     /* PARTITION_STOP: nobody may run it */
    RECONCILE_RELEASE, /* log: the owner's partition has ended, so the VM is stopped */
    RECONCILE_RENEW,   /* log: the owner is in doubt although nothing is handed over: it gets a later generation */
    RECONCILE_RESUME,  /* MIGRATE_RESOLVE: the owner in doubt runs on under the VM's generation */
    RECONCILE_FORSAKE, /* MIGRATE_CANCEL: the owner sends it to a host that will never have it */
    RECONCILE_WARN,    /* cannot be, by the protocol: for people to look at */
};

struct reconcile_decision {
    enum reconcile_act act;
    const char *why; /* a literal */
};

#define RECONCILE_UNKNOWN_MS 10000 /* how long a partition of an unknown VM is left alone */
#define RECONCILE_MISSING    3     /* reports in a row without a partition until it counts as gone */

/* `vm` NULL: the log knows no such VM. */
struct reconcile_decision reconcile_partition(
    const char *host, const struct fleet_partition *partition, const struct state_vm *vm, uint64_t now_ms);
/* The owner has not reported the VM in `reports` reports in a row. */
struct reconcile_decision reconcile_missing(const struct state_vm *vm, uint32_t reports);

#endif
