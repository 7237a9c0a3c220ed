/* What drover-hostd and the engines promise, in a few lines: partitions, migrations with their fates, idempotent
 * answers. */
#include "sim_hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/api.pb-c.h"

#define MIGRATION_MS 1500u
#define POSTCOPY_MS  60000u

size_t sim_host_index(const struct sim *sim, const char *name)
{
    for (size_t i = 0; i < SIM_HOSTS; i++)
        if (strcmp(sim->hosts[i].name, name) == 0)
            return i;
    fail_msg("no host %s", name);
    return 0;
}

struct sim_partition *sim_partition_find(struct sim *sim, size_t host, const char *vm_id)
{
    for (size_t i = 0; i < SIM_PARTITIONS; i++)
        if (sim->hosts[host].partitions[i].used && strcmp(sim->hosts[host].partitions[i].vm_id, vm_id) == 0)
            return &sim->hosts[host].partitions[i];
    return NULL;
}

struct sim_partition *sim_partition_make(struct sim *sim, size_t host, const char *vm_id)
{
    struct sim_partition *p = sim_partition_find(sim, host, vm_id);
    for (size_t i = 0; !p && i < SIM_PARTITIONS; i++)
        if (!sim->hosts[host].partitions[i].used)
            p = &sim->hosts[host].partitions[i];
    assert_non_null(p);
    *p = (struct sim_partition){.used = true};
    snprintf(p->vm_id, sizeof p->vm_id, "%s", vm_id);
    return p;
}

unsigned sim_running_on(const struct sim *sim, const char *vm_id)
{
    unsigned hosts = 0;
    for (size_t h = 0; h < SIM_HOSTS; h++)
        for (size_t i = 0; i < SIM_PARTITIONS; i++) {
            const struct sim_partition *p = &sim->hosts[h].partitions[i];
            if (p->used && strcmp(p->vm_id, vm_id) == 0 &&
                (p->state == DROVER__PARTITION_STATE__PARTITION_RUNNING ||
                    (p->state == DROVER__PARTITION_STATE__PARTITION_OUTGOING && !p->stands)))
                hosts |= 1u << h;
        }
    return hosts;
}

unsigned sim_partitions_of(const struct sim *sim, const char *vm_id)
{
    unsigned count = 0;
    for (size_t h = 0; h < SIM_HOSTS; h++)
        for (size_t i = 0; i < SIM_PARTITIONS; i++)
            count += sim->hosts[h].partitions[i].used && strcmp(sim->hosts[h].partitions[i].vm_id, vm_id) == 0;
    return count;
}

/* --- the engines --- */

static void source_becomes(struct sim *sim, Drover__PartitionState state)
{
    struct sim_partition *p = sim_partition_find(sim, sim->migration.source, sim->migration.vm_id);
    if (p && state == DROVER__PARTITION_STATE__PARTITION_NONE)
        p->used = false;
    else if (p)
        p->state = state;
}

static void destination_becomes(struct sim *sim, Drover__PartitionState state)
{
    struct sim_partition *p = sim_partition_find(sim, sim->migration.destination, sim->migration.vm_id);
    if (p && state == DROVER__PARTITION_STATE__PARTITION_NONE)
        p->used = false;
    else if (p)
        p->state = state;
}

static bool arrives(enum sim_fate fate)
{
    return fate == FATE_POSTCOPY || fate == FATE_CUT_TAKEN;
}

/* The hand-over of a migration with post-copy, and what follows from it without the controllers. */
static void postcopy_run(struct sim *sim)
{
    struct sim_migration *m = &sim->migration;
    if (!m->handed_over) {
        m->handed_over = true;
        m->handed_over_ms = sim->now_ms;
        sim_partition_find(sim, m->source, m->vm_id)->stands = true;
        destination_becomes(sim, arrives(sim->fate)      ? DROVER__PARTITION_STATE__PARTITION_RUNNING
                                 : sim->fate == FATE_CUT ? DROVER__PARTITION_STATE__PARTITION_INCOMING
                                                         : DROVER__PARTITION_STATE__PARTITION_NONE);
    }
    if (m->forsaken) {
        m->ended = true;
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_IN_DOUBT);
    } else if (arrives(sim->fate) && sim->now_ms - m->start_ms >= POSTCOPY_MS) {
        m->ended = true;
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_STOPPED);
    }
}

static bool has_postcopy(enum sim_fate fate)
{
    return fate == FATE_POSTCOPY || fate == FATE_DESTINATION_DIES || fate == FATE_DESTINATION_DOUBT ||
           fate == FATE_DESTINATION_RESET || fate == FATE_CUT || fate == FATE_CUT_TAKEN;
}

void sim_engines_run(struct sim *sim)
{
    struct sim_migration *m = &sim->migration;
    if (!m->started || m->ended)
        return;
    if (m->handed_over) {
        postcopy_run(sim);
        return;
    }
    if (m->fenced) {
        m->ended = true;
        sim->fate = FATE_ABORT;
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_RUNNING);
        return;
    }
    if (sim->now_ms - m->start_ms < MIGRATION_MS || sim->fate == FATE_SLOW)
        return;
    if (has_postcopy(sim->fate)) {
        postcopy_run(sim);
        return;
    }
    m->ended = true;
    switch (sim->fate) {
    case FATE_SUCCESS:
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_STOPPED);
        destination_becomes(sim, DROVER__PARTITION_STATE__PARTITION_RUNNING);
        break;
    case FATE_ABORT:
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_RUNNING);
        break;
    case FATE_DOUBT_TAKEN:
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_IN_DOUBT);
        destination_becomes(sim, DROVER__PARTITION_STATE__PARTITION_RUNNING);
        break;
    case FATE_DOUBT_NOT_TAKEN:
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_IN_DOUBT);
        break;
    case FATE_DOUBT_FORGOTTEN:
    case FATE_DOUBT_RESET:
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_IN_DOUBT);
        destination_becomes(sim, DROVER__PARTITION_STATE__PARTITION_NONE);
        break;
    case FATE_SOURCE_FORGETS:
        source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_NONE);
        destination_becomes(sim, DROVER__PARTITION_STATE__PARTITION_RUNNING);
        break;
    default:
        break;
    }
}

/* After the hand-over of a migration with post-copy. */
static Drover__MigrationOutcome postcopy_outcome(const struct sim *sim, bool source)
{
    const struct sim_migration *m = &sim->migration;
    bool cut = sim->fate == FATE_CUT || sim->fate == FATE_CUT_TAKEN;
    if (m->ended && arrives(sim->fate))
        return DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    if (m->ended && source)
        return DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT;
    if (source)
        return cut ? DROVER__MIGRATION_OUTCOME__MIGRATION_UNANSWERED : DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
    return cut || sim->fate == FATE_POSTCOPY     ? DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY
           : sim->fate == FATE_DESTINATION_DIES  ? DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED
           : sim->fate == FATE_DESTINATION_DOUBT ? DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT
                                                 : DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
}

Drover__MigrationOutcome sim_outcome_of(const struct sim *sim, size_t host)
{
    const struct sim_migration *m = &sim->migration;
    bool source = host == m->source;
    if (source && !m->started)
        return DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
    if (!source && !m->prepared)
        return DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
    if (!source && m->fenced)
        return DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    if (m->handed_over)
        return postcopy_outcome(sim, source);
    if (!m->ended)
        return DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
    switch (sim->fate) {
    case FATE_SUCCESS:
        return DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    case FATE_ABORT:
        return source ? DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED : DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
    case FATE_DOUBT_TAKEN:
        return source ? DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT : DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    case FATE_DOUBT_NOT_TAKEN:
        return source ? DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT : DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
    case FATE_DOUBT_FORGOTTEN:
        return source ? DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT : DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
    case FATE_DOUBT_RESET:
        return DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT;
    case FATE_SOURCE_FORGETS:
        return source ? DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN : DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    default:
        break;
    }
    return DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
}

/* --- what hosts answer --- */

bool sim_outcome_final(Drover__MigrationOutcome outcome)
{
    return outcome != DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY &&
           outcome != DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
}

Drover__ErrorInfo *sim_error(const struct sim *sim, size_t host)
{
    return sim->says[host].code == ERR_NONE ? NULL : pb_error(&sim->says[host]);
}

static void *answer_query(struct sim *sim, size_t host)
{
    Drover__MigrateQueryReply *reply = pb_new(&drover__migrate_query_reply__descriptor);
    reply->outcome = sim_outcome_of(sim, host);
    if (sim_outcome_final(reply->outcome)) {
        reply->error = sim_error(sim, host);
        reply->unresumed = sim->unresumed[host];
    }
    if (reply->outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN && host == sim->migration.source) {
        reply->record = pb_new(&drover__migration_record__descriptor);
        reply->record->blackout_us = 4200;
    }
    return reply;
}

static int host_start(struct sim *sim, size_t host, const Drover__PartitionStartRequest *r, struct err *err)
{
    if (!sim->hosts[host].starts)
        return err_set(err, ERR_INTERNAL, "QEMU did not start");
    struct sim_partition *p = sim_partition_make(sim, host, r->vm_id);
    p->generation = r->generation;
    p->state = DROVER__PARTITION_STATE__PARTITION_RUNNING;
    return 0;
}

void sim_host_stop(struct sim *sim, size_t host, const char *vm_id, uint64_t generation)
{
    struct sim_partition *p = sim_partition_find(sim, host, vm_id);
    if (p && p->generation <= generation)
        p->used = false;
}

static void host_prepare(struct sim *sim, size_t host, const Drover__MigratePrepareRequest *r)
{
    struct sim_migration *m = &sim->migration;
    if (m->prepared)
        return;
    m->prepared = true;
    m->destination = host;
    snprintf(m->id, sizeof m->id, "%s", r->migration_id);
    snprintf(m->vm_id, sizeof m->vm_id, "%s", r->vm_id);
    struct sim_partition *p = sim_partition_make(sim, host, r->vm_id);
    p->generation = r->generation;
    p->state = DROVER__PARTITION_STATE__PARTITION_INCOMING;
}

/* The log must hold the leave by now. */
static int host_migrate(struct sim *sim, size_t host, const Drover__MigrateStartRequest *r, struct err *err)
{
    struct sim_migration *m = &sim->migration;
    struct state_vm vm = sim_vm(sim, r->vm_id);
    struct sim_partition *p = sim_partition_find(sim, host, r->vm_id);
    if (m->started)
        return 0;
    if (!p || p->state != DROVER__PARTITION_STATE__PARTITION_RUNNING)
        return err_set(err, ERR_WRONG_STATE, "it does not run here");
    assert_string_equal(vm.hand_over_id, r->migration_id);
    m->started = true;
    m->source = host;
    m->generation = r->generation;
    m->start_ms = sim->now_ms;
    p->state = DROVER__PARTITION_STATE__PARTITION_OUTGOING;
    return 0;
}

static void host_fence(struct sim *sim, size_t host)
{
    struct sim_migration *m = &sim->migration;
    bool taken = sim_outcome_of(sim, host) == DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    bool forgotten = m->ended && (sim->fate == FATE_DOUBT_FORGOTTEN || sim->fate == FATE_DOUBT_RESET);
    bool fetches = m->handed_over && sim->fate != FATE_CUT; /* and is left alone */
    if (host != m->destination || taken || forgotten || !m->prepared || fetches)
        return;
    m->fenced = true;
    destination_becomes(sim, DROVER__PARTITION_STATE__PARTITION_NONE);
}

static void host_cancel(struct sim *sim, size_t host, const Drover__MigrateCancelRequest *r)
{
    struct sim_migration *m = &sim->migration;
    if (host != m->source || !m->started || m->ended)
        return;
    if (r->destination_gone) /* nobody may say so of a destination that runs it, or may come to */
        assert_null(sim_partition_find(sim, m->destination, m->vm_id));
    if (m->handed_over) {
        m->forsaken = r->destination_gone;
        sim_engines_run(sim);
        return;
    }
    m->ended = true;
    sim->fate = FATE_ABORT;
    source_becomes(sim, DROVER__PARTITION_STATE__PARTITION_RUNNING);
}

static void host_resolve(struct sim *sim, size_t host, const Drover__MigrateResolveRequest *r)
{
    struct sim_partition *p = sim_partition_find(sim, host, r->vm_id);
    if (!p || p->state != DROVER__PARTITION_STATE__PARTITION_IN_DOUBT)
        return;
    p->used = r->resume;
    p->state = DROVER__PARTITION_STATE__PARTITION_RUNNING;
    p->generation = r->resume ? r->generation : p->generation;
}

int sim_host_call(struct sim *sim, size_t host, uint32_t method, const void *request, struct err *err, void **reply)
{
    *reply = NULL;
    switch (method) {
    case DROVER__METHOD__PARTITION_START:
        *reply = pb_new(&drover__partition_start_reply__descriptor);
        return host_start(sim, host, request, err);
    case DROVER__METHOD__PARTITION_STOP: {
        const Drover__PartitionStopRequest *stop = request;
        sim_host_stop(sim, host, stop->vm_id, stop->generation);
        *reply = pb_new(&drover__partition_stop_reply__descriptor);
        return 0;
    }
    case DROVER__METHOD__MIGRATE_CHECK: {
        Drover__MigrateCheckReply *check = pb_new(&drover__migrate_check_reply__descriptor);
        check->memory_free_bytes = UINT64_MAX;
        *reply = check;
        return 0;
    }
    case DROVER__METHOD__MIGRATE_PREPARE: {
        host_prepare(sim, host, request);
        Drover__MigratePrepareReply *prepared = pb_new(&drover__migrate_prepare_reply__descriptor);
        pb_string(&prepared->address, "tcp://127.0.0.1:1");
        *reply = prepared;
        return 0;
    }
    case DROVER__METHOD__MIGRATE_START:
        *reply = pb_new(&drover__migrate_start_reply__descriptor);
        return host_migrate(sim, host, request, err);
    case DROVER__METHOD__MIGRATE_CANCEL:
        host_cancel(sim, host, request);
        *reply = answer_query(sim, host);
        return 0;
    case DROVER__METHOD__MIGRATE_QUERY:
        if (((const Drover__MigrateQueryRequest *)request)->fence)
            host_fence(sim, host);
        *reply = answer_query(sim, host);
        return 0;
    case DROVER__METHOD__MIGRATE_RESOLVE:
        host_resolve(sim, host, request);
        *reply = pb_new(&drover__migrate_resolve_reply__descriptor);
        return 0;
    default:
        return sim_storage_call(sim, method, request, err, reply);
    }
}
