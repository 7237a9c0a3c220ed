#include "controller/fleet/reconcile.h"

#include <string.h>

static struct reconcile_decision decide(enum reconcile_act act, const char *why)
{
    return (struct reconcile_decision){act, why};
}

static bool has_ended(Drover__PartitionState state)
{
    return state == DROVER__PARTITION_STATE__PARTITION_STOPPED || state == DROVER__PARTITION_STATE__PARTITION_FAILED;
}

static struct reconcile_decision owner_reports(const struct fleet_partition *p, const struct state_vm *vm)
{
    if (p->state == DROVER__PARTITION_STATE__PARTITION_IN_DOUBT && p->generation < vm->generation)
        return decide(RECONCILE_RESUME, "its hand-over was taken back");
    if (p->generation == vm->generation) {
        if (p->state == DROVER__PARTITION_STATE__PARTITION_IN_DOUBT && p->resuming)
            return decide(RECONCILE_NOTHING, "about to run again");
        if (p->state == DROVER__PARTITION_STATE__PARTITION_IN_DOUBT)
            return decide(RECONCILE_RENEW, "its hand-over was taken back");
        if (has_ended(p->state))
            return decide(RECONCILE_RELEASE, "its partition has ended");
        if (p->state == DROVER__PARTITION_STATE__PARTITION_OUTGOING)
            return decide(RECONCILE_FORSAKE, "its migration is over, and nobody took it");
        return decide(RECONCILE_NOTHING, "as it should be");
    }
    /* The owner under another generation than the log's: maybe the only instance. */
    if (has_ended(p->state) && p->generation < vm->generation)
        return decide(RECONCILE_END, "what is left of an old generation");
    return decide(RECONCILE_WARN, "its owner runs another generation; it cannot "
                                  "be migrated before it is stopped and started");
}

static struct reconcile_decision stranger_reports(const struct fleet_partition *p, const struct state_vm *vm)
{
    if (p->generation < vm->generation)
        return decide(RECONCILE_END, "an old generation on a host that does not own it");
    if (p->state == DROVER__PARTITION_STATE__PARTITION_INCOMING || has_ended(p->state))
        return decide(RECONCILE_END, "left over from a migration that is over");
    return decide(RECONCILE_WARN, "a host that does not own it runs the present generation");
}

/* An incoming one runs as soon as its source has handed over, in post-copy long before its pages are all there. What
 * its host last said of it may be older than that; and if nothing comes any more, its engine gives up by itself. */
static bool may_run(Drover__PartitionState state)
{
    return state == DROVER__PARTITION_STATE__PARTITION_STARTING ||
           state == DROVER__PARTITION_STATE__PARTITION_RUNNING ||
           state == DROVER__PARTITION_STATE__PARTITION_OUTGOING || state == DROVER__PARTITION_STATE__PARTITION_INCOMING;
}

/* No VM is forgotten while its host may run it, but by a user who said that the host was dead; or the log never knew
 * it: of a cluster founded anew, or of another one. */
static struct reconcile_decision unknown_reports(const struct fleet_partition *p, uint64_t now_ms)
{
    if (now_ms - p->first_ms < RECONCILE_UNKNOWN_MS && !has_ended(p->state))
        return decide(RECONCILE_NOTHING, "unknown, but maybe not for long");
    if (p->state == DROVER__PARTITION_STATE__PARTITION_STOPPING)
        return decide(RECONCILE_NOTHING, "about to end");
    if (may_run(p->state))
        return decide(RECONCILE_WARN, "a guest of a VM that this cluster does not know; shut it down from "
                                      "inside, or end its QEMU on the host");
    return decide(RECONCILE_END, "no such VM");
}

struct reconcile_decision reconcile_partition(
    const char *host, const struct fleet_partition *p, const struct state_vm *vm, uint64_t now_ms)
{
    if (!vm)
        return unknown_reports(p, now_ms);
    if (vm->job_id)
        return decide(RECONCILE_NOTHING, "a job has it");
    if (vm->hand_over_id[0])
        return decide(RECONCILE_NOTHING, "it may be handed over");
    if (p->state == DROVER__PARTITION_STATE__PARTITION_NONE || p->state == DROVER__PARTITION_STATE__PARTITION_STOPPING)
        return decide(RECONCILE_NOTHING, "about to end");
    return strcmp(vm->owner, host) == 0 ? owner_reports(p, vm) : stranger_reports(p, vm);
}

struct reconcile_decision reconcile_missing(const struct state_vm *vm, uint32_t reports)
{
    if (vm->job_id || vm->hand_over_id[0] || reports < RECONCILE_MISSING)
        return decide(RECONCILE_NOTHING, "too early to say");
    return decide(RECONCILE_RELEASE, "its owner has no partition of it");
}
