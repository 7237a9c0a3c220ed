/* The effects of reconciling (fleet/reconcile.h decides): commands into the log and orders to hosts. What fails here is
 * simply tried again at a later heartbeat. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "controller/controller.h"
#include "controller/fleet/reconcile.h"
#include "controller/pb.h"
#include "controller/state/effect.h"
#include "controller/state/ends.h"
#include "proto/api.pb-c.h"

#define ACT_AGAIN_MS 3000u
#define CALL_MS      10000u

static void change_done(void *user, const struct err *err, const Drover__CommandResult *result)
{
    (void)user;
    bool for_good = err && !err_retryable(err->code) && err->code != ERR_CANCELLED; /* not by closing */
    if (err || result->error)
        log_event(for_good ? LOG_WARN : LOG_DEBUG, "keeper.refused", "cause=%s",
            LOG_QUOTE(err ? err->message : result->error->message));
}

static Drover__Command *change_command(void)
{
    Drover__Command *command = proposer_command();
    command->body_case = DROVER__COMMAND__BODY_CHANGE;
    command->change = pb_new(&drover__change__descriptor);
    return command;
}

static void change(struct controller *c, Drover__Effect *effect)
{
    Drover__Command *command = change_command();
    PB_ADD(command->change, effects, effect);
    proposer_submit(c->replica, command, change_done, NULL);
}

/* The VM is stopped because its partition ended by itself: that, and how. */
static void release(struct controller *c, const struct fleet_host *host, const struct state_vm *vm, const char *why)
{
    struct end *ends, end = {.at_ms = clock_wall_ms()};
    size_t count = ends_all(c->state, &ends);
    uint64_t latest = count ? ends[count - 1].number : 0;
    free(ends);
    c->last_end = (latest > c->last_end ? latest : c->last_end) + 1;
    end.number = c->last_end;
    snprintf(end.vm_id, sizeof end.vm_id, "%s", vm->id);
    snprintf(end.host, sizeof end.host, "%s", host->name);
    snprintf(end.why, sizeof end.why, "%s", why);
    Drover__Command *command = change_command();
    PB_ADD(command->change, effects, effect_vm_release(vm->id, host->name, vm->generation, ""));
    PB_ADD(command->change, effects, ends_effect(&end));
    proposer_submit(c->replica, command, change_done, NULL);
}

static void order_done(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    (void)user, (void)body, (void)len;
    if (err)
        log_event(LOG_DEBUG, "keeper.order-failed", "cause=%s", LOG_QUOTE(err->message));
}

/* Job ids never get there, so these keys are nobody else's. */
static Drover__ActionKey *own_key(struct controller *c)
{
    uint64_t now = clock_now_ns();
    c->last_key = now > c->last_key ? now : c->last_key + 1;
    Drover__ActionKey *key = pb_new(&drover__action_key__descriptor);
    key->job_id = c->last_key | (1ull << 63);
    return key;
}

static void order_end(struct controller *c, const struct fleet_host *host, const struct fleet_partition *p)
{
    cleanup_pb Drover__PartitionStopRequest *request = pb_new(&drover__partition_stop_request__descriptor);
    request->key = own_key(c);
    pb_string(&request->vm_id, p->vm_id);
    request->generation = p->generation;
    request->force = true;
    fleet_call(
        c->loop, c->fleet, host->name, DROVER__METHOD__PARTITION_STOP, &request->base, CALL_MS, order_done, NULL);
}

static void order_resume(
    struct controller *c, const struct fleet_host *host, const struct fleet_partition *p, uint64_t generation)
{
    cleanup_pb Drover__MigrateResolveRequest *request = pb_new(&drover__migrate_resolve_request__descriptor);
    pb_string(&request->migration_id, p->migration_id);
    pb_string(&request->vm_id, p->vm_id);
    request->generation = generation;
    request->resume = true;
    fleet_call(
        c->loop, c->fleet, host->name, DROVER__METHOD__MIGRATE_RESOLVE, &request->base, CALL_MS, order_done, NULL);
}

static void order_forsake(struct controller *c, const struct fleet_host *host, const struct fleet_partition *p)
{
    cleanup_pb Drover__MigrateCancelRequest *request = pb_new(&drover__migrate_cancel_request__descriptor);
    pb_string(&request->migration_id, p->migration_id);
    request->destination_gone = true;
    fleet_call(
        c->loop, c->fleet, host->name, DROVER__METHOD__MIGRATE_CANCEL, &request->base, CALL_MS, order_done, NULL);
}

static void act(struct controller *c, const struct fleet_host *host, const struct fleet_partition *p,
    const struct state_vm *vm, struct reconcile_decision decision)
{
    static const char *const names[] = {"nothing", "end", "release", "renew", "resume", "forsake", "warn"};
    const char *id = p ? p->vm_id : vm->id;
    log_event(decision.act == RECONCILE_WARN ? LOG_WARN : LOG_INFO, "partition.reconciled",
        "host=%s vm=%s name=%s act=%s why=%s reported_generation=%" PRIu64 " reported_state=%d generation=%" PRIu64
        " detail=%s",
        host->name, id, vm ? vm->name : "-", names[decision.act], LOG_QUOTE(decision.why), p ? p->generation : 0,
        p ? (int)p->state : 0, vm ? vm->generation : 0, LOG_QUOTE(p ? p->detail : ""));
    switch (decision.act) {
    case RECONCILE_NOTHING:
    case RECONCILE_WARN:
        break;
    case RECONCILE_END:
        ENSURE(p);
        order_end(c, host, p);
        break;
    case RECONCILE_RELEASE:
        ENSURE(vm);
        release(c, host, vm, p ? p->detail : decision.why);
        break;
    case RECONCILE_RENEW:
        ENSURE(vm);
        change(c, effect_vm_renew(vm->id, host->name, vm->generation + 1, ""));
        break;
    case RECONCILE_RESUME:
        ENSURE(p && vm);
        order_resume(c, host, p, vm->generation);
        break;
    case RECONCILE_FORSAKE:
        ENSURE(p);
        order_forsake(c, host, p);
        break;
    }
}

/* Counts reports in a row that lack a VM the host owns. The list is made anew with every report. */
static void check_missing(struct controller *c, struct fleet_host *host)
{
    struct state_vm *owned;
    size_t count = state_vms_owned(c->state, host->name, &owned);
    struct fleet_missing *list = NULL;
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (fleet_partition(host, owned[i].id))
            continue;
        uint32_t reports = 1;
        for (size_t k = 0; k < host->missing_count; k++)
            if (strcmp(host->missing[k].vm_id, owned[i].id) == 0)
                reports = host->missing[k].reports + 1;
        if (owned[i].job_id)
            reports = 0; /* counting begins when the job is over */
        list = mem_realloc(list, (n + 1) * sizeof *list);
        list[n].reports = reports;
        snprintf(list[n++].vm_id, STATE_ID_MAX, "%s", owned[i].id);
        struct reconcile_decision decision = reconcile_missing(&owned[i], reports);
        if (decision.act != RECONCILE_NOTHING)
            act(c, host, NULL, &owned[i], decision);
    }
    free(owned);
    free(host->missing);
    host->missing = list;
    host->missing_count = n;
}

void keeper_check(struct controller *c, struct fleet_host *host)
{
    uint64_t now_ms = clock_now_ms();
    for (size_t i = 0; i < host->partition_count; i++) {
        struct fleet_partition *p = &host->partitions[i];
        struct state_vm vm;
        bool known = state_vm(c->state, p->vm_id, &vm);
        struct reconcile_decision decision = reconcile_partition(host->name, p, known ? &vm : NULL, now_ms);
        bool warn = decision.act == RECONCILE_WARN; /* of what stays as it is until somebody sees to it: said once */
        if (!warn)
            p->warned = NULL;
        if (decision.act == RECONCILE_NOTHING || (warn && p->warned == decision.why) ||
            (p->acted_ms && now_ms - p->acted_ms < ACT_AGAIN_MS))
            continue;
        p->acted_ms = now_ms;
        p->warned = warn ? decision.why : NULL;
        act(c, host, p, known ? &vm : NULL, decision);
    }
    check_missing(c, host);
}

void keeper_note_facts(struct controller *c, const struct fleet_host *host)
{
    cleanup_buf struct buf told = {0};
    cleanup_buf struct buf kept = {0};
    cleanup_pb Drover__HostFacts *facts = state_host_facts(c->state, host->name);
    pb_pack(host->facts, &told);
    if (facts)
        pb_pack(facts, &kept);
    if (!facts || told.len != kept.len || memcmp(told.data, kept.data, told.len) != 0)
        change(c, effect_host_facts_put(host->name, host->facts));
}

void keeper_note_members(struct controller *c)
{
    if (state_has_members(c->state))
        return;
    Drover__Command *command = change_command();
    for (size_t i = 0; i < c->options.member_count; i++) {
        const struct state_member *m = &c->options.members[i];
        PB_ADD(command->change, effects, effect_member_put(m->name, m->public_key, m->raft_address, m->api_address));
    }
    proposer_submit(c->replica, command, change_done, NULL);
}
