/* The controllers' requests about migrations. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/address.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/log.h"
#include "hostd/partition/private.h"
#include "proto/trackers.h"
#include "hostd/text.h"
#include "proto/api.pb-c.h"
#include "proto/bounded.h"
#include "proto/limits.h"

#define ROUNDS_MAX 1000

static int check_ids(const char *migration_id, const char *vm_id, uint64_t generation, struct err *err)
{
    if (!paths_migration_id_ok(migration_id) || !paths_vm_id_ok(vm_id) || generation == 0 || generation > INT64_MAX)
        return err_set(err, ERR_INVALID, "migration_id, vm_id or generation is missing or malformed");
    return 0;
}

int migration_check_options(const Drover__MigrationOptions *o, struct err *err)
{
    if (o && (o->max_downtime_ms > LIMITS_DOWNTIME_MS || o->max_rounds > ROUNDS_MAX))
        return err_set(
            err, ERR_INVALID, "at most %d ms of downtime and %d rounds are possible", LIMITS_DOWNTIME_MS, ROUNDS_MAX);
    if (o && (o->mode > DROVER__MIGRATION_MODE__MIGRATION_MODE_POSTCOPY ||
                 o->on_no_convergence > DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE))
        return err_set(err, ERR_UNSUPPORTED, "this host knows no such way of migrating");
    if (o && !trackers_known(o->tracker))
        return err_set(err, ERR_UNSUPPORTED, "this host knows no tracker '%.32s'", o->tracker);
    return 0;
}

static int check_key(const char *key, struct err *err)
{
    uint8_t bytes[KEY_BYTES];
    return key_parse(key, err, bytes) < 0 ? err_wrap(err, "the other host's key") : 0;
}

/* Starts the engine of a partition whose record names the migration. */
static int engine_launch(struct partition *p, const char *peer_key, const char *address,
    const Drover__MigrationOptions *options, const Drover__LinkHistory *way, struct err *err)
{
    struct partitions_env *env = &p->all->env;
    char ram[PATH_MAX], image[PATH_MAX], image_key[PATH_MAX];
    bool visited = p->record.migration.incoming && visits_find(env->visits, p->record.vm_id, image, image_key);
    quotas_divide(p->all, p);
    cleanup_free char *cores = quotas_cores(p->all);
    struct engine_config config = {
        .program = env->options->engine,
        .quota = p->quota,
        .cores = cores,
        .image = visited ? image : NULL,
        .image_key = image_key,
        .role = p->record.migration.incoming ? ENGINE_DESTINATION : ENGINE_SOURCE,
        .migration_id = p->record.migration.id,
        .key_file = env->options->key,
        .peer_key = peer_key,
        .directory = p->directory,
        .ram_path = paths_ram(env->options->memory_directory, p->record.vm_id, ram),
        .spec = p->record.spec,
        .guest = p->record.guest,
        .address = address,
        .options = options,
        .disks = p->record.migration.disks,
        .log_level = env->options->log_level,
        .way = way,
        .taps = (const char(*)[IF_NAMESIZE])p->taps,
        .announce_interface = env->options->uplink[0] ? env->options->uplink : env->options->bridge,
    };
    struct engine_events events = migration_engine_events;
    events.user = p;
    p->migrating_from_ms = clock_now_ms();
    p->engine_resumes = 0;
    p->forsaken = false;
    int rc = engine_start(env->loop, &config, &events, err, &p->engine);
    if (rc < 0)
        quotas_divide(p->all, NULL);
    return rc;
}

void migration_guest_ready(struct partition *p)
{
    struct err err;
    char listen[WIRE_ADDRESS_MAX];
    const char *ip = p->all->env.options->migration_address;
    snprintf(listen, sizeof listen, strchr(ip, ':') ? "tcp://[%s]:0" : "tcp://%s:0", ip);
    int rc = engine_launch(p, p->peer_key, listen, &p->options, NULL, &err);
    p->peer_key[0] = '\0';
    if (rc < 0)
        migration_prepare_failed(p, &err);
}

/* 1: make it; 0: answered or waits with an earlier request; -1: refused. */
static int prepare_check(
    struct partitions *ps, const Drover__MigratePrepareRequest *m, struct action *action, struct err *err)
{
    if (check_ids(m->migration_id, m->vm_id, m->generation, err) < 0 || migration_check_options(m->options, err) < 0 ||
        check_key(m->source_key, err) < 0)
        return -1;
    if (!m->spec)
        return err_set(err, ERR_INVALID, "spec is missing");
    if (spec_check(m->spec, err) < 0 || arrivals_check(m->disks, m->spec, err) < 0)
        return -1;
    const Drover__MigrateOutcomeRequest *over = outcomes_find(ps->env.outcomes, m->migration_id);
    if (over)
        return outcome_refusal(over, err);
    uint64_t ended = ledger_ended(ps->env.ledger, m->vm_id);
    if (m->generation <= ended)
        return err_set(err, ERR_WRONG_STATE,
            "generation %" PRIu64 " is over on this host (up to %" PRIu64 " ended here)", m->generation, ended);
    struct partition *p = partition_find(ps, m->vm_id);
    if (!p)
        return 1;
    if (p->record.state == STATE_STOPPED || p->record.state == STATE_FAILED) {
        partition_remove(p);
        return 1;
    }
    if (p->record.state != STATE_INCOMING || strcmp(p->record.migration.id, m->migration_id) != 0)
        return err_set(err, ERR_WRONG_STATE, "a partition of this VM is here already: generation %" PRIu64 ", %s",
            p->record.generation, state_name(p->record.state));
    if (p->record.migration.address[0])
        action_done(action, p->record.migration.address);
    else if (!p->starting)
        p->starting = action; /* hostd was restarted in between */
    else
        return err_set(err, ERR_BUSY, "it is being prepared already");
    return 0;
}

void migrate_prepare(struct partitions *ps, const Drover__MigratePrepareRequest *m, struct wire_request *request)
{
    struct err err;
    struct partition *p;
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__MIGRATE_PREPARE, m->key, request);
    if (!action)
        return;
    crashpoint("hostd", "prepare-received");
    int go = prepare_check(ps, m, action, &err);
    if (go > 0 && partition_room(ps, m->spec, &err) < 0)
        go = -1;
    if (go > 0) {
        struct record_migration migration = {.incoming = true,
            .disks = m->disks != NULL,
            .generation = m->generation,
            .bandwidth_bytes_per_s = m->options ? m->options->bandwidth_bytes_per_s : 0};
        strcpy(migration.id, m->migration_id);
        snprintf(migration.to_host, sizeof migration.to_host, "%s", ps->host_name);
        go = partition_make(ps, m->vm_id, m->generation, m->spec, STATE_INCOMING, &migration, &err, &p) < 0 ? -1 : 1;
    }
    if (go < 0)
        action_fail(action, &err);
    if (go <= 0)
        return;
    crashpoint("hostd", "prepare-recorded");
    p->starting = action;
    p->record.uptime_base_ms = m->uptime_ms;
    snprintf(p->peer_key, sizeof p->peer_key, "%s", m->source_key);
    p->options = m->options ? *m->options : (Drover__MigrationOptions)DROVER__MIGRATION_OPTIONS__INIT;
    snprintf(p->tracker, sizeof p->tracker, "%s", p->options.tracker);
    p->options.tracker = p->tracker;
    if (m->disks)
        arrivals_make(p, m->disks);
    else if (partition_spawn(p, true, &err) < 0)
        migration_prepare_failed(p, &err);
    else
        crashpoint("hostd", "prepare-spawned");
}

static int start_check(struct partitions *ps, const Drover__MigrateStartRequest *m, struct err *err)
{
    const struct hypervisor_facts *facts = hypervisor_facts(ps->env.hypervisor);
    struct address address;
    if (check_ids(m->migration_id, m->vm_id, m->generation, err) < 0 || migration_check_options(m->options, err) < 0 ||
        check_key(m->destination_key, err) < 0)
        return -1;
    if (!m->hand_over || m->hand_over->generation <= m->generation || m->hand_over->generation > INT64_MAX ||
        strcmp(m->hand_over->migration_id, m->migration_id) != 0)
        return err_set(err, ERR_INVALID, "the leave to hand over is missing or of another migration");
    if (address_parse(m->address, err, &address) < 0 || address.port == 0)
        return err_set(err, ERR_INVALID, "'%.64s' is not where an engine listens", m->address);
    if (strcmp(facts->tracker, "none") == 0)
        return err_set(err, ERR_UNSUPPORTED, "this host cannot track a guest's writes: %s", facts->tracker_reason);
    return 0;
}

/* 1: start it; 0: started before; -1: refused. */
static int start_state(struct partitions *ps, const Drover__MigrateStartRequest *m, struct err *err)
{
    if (outcomes_find(ps->env.outcomes, m->migration_id))
        return 0;
    struct partition *p = partition_find(ps, m->vm_id);
    if (!p)
        return err_set(err, ERR_NOT_FOUND, "no partition of VM %s is on this host", m->vm_id);
    if (strcmp(p->record.migration.id, m->migration_id) == 0)
        return 0;
    if (p->record.generation != m->generation)
        return err_set(err, ERR_WRONG_STATE, "generation %" PRIu64 " runs here, not %" PRIu64, p->record.generation,
            m->generation);
    if (p->record.storage.id[0])
        return err_set(err, ERR_BUSY, "a disk of it is being moved");
    if (p->record.state != STATE_RUNNING || !p->guest)
        return err_set(err, ERR_WRONG_STATE, "the partition is %s, not running", state_name(p->record.state));
    if (standstill_check(p, err) < 0)
        return -1;
    if (p->forecaster || p->aftermath != AFTERMATH_NONE)
        return err_set(err, ERR_BUSY, "a forecast for it is being made; try again in some seconds");
    return 1;
}

void migration_launch(struct partition *p, const Drover__MigrateStartRequest *m, struct action *action)
{
    struct err err;
    struct record_migration *migration = &p->record.migration;
    int go = start_state(p->all, m, &err); /* it may have waited, and the guest may have ended meanwhile */
    if (go <= 0) {
        if (go == 0)
            action_done(action, "");
        else
            action_fail(action, &err);
        return;
    }
    engine_remove_files(p->directory);
    *migration = (struct record_migration){.disks = m->options && m->options->with_storage,
        .generation = m->hand_over->generation,
        .bandwidth_bytes_per_s = m->options ? m->options->bandwidth_bytes_per_s : 0};
    strcpy(migration->id, m->migration_id);
    text_print(migration->to_host, sizeof migration->to_host, m->hand_over->to_host);
    snprintf(migration->address, sizeof migration->address, "%s", m->address);
    if (partition_move(p, STATE_OUTGOING, "", &err) < 0) {
        *migration = (struct record_migration){0};
        action_fail(action, &err);
        return;
    }
    crashpoint("hostd", "start-recorded");
    if (engine_launch(p, m->destination_key, m->address, m->options, m->way, &err) < 0) {
        *migration = (struct record_migration){0};
        partition_note(p, STATE_RUNNING, err.message);
        action_fail(action, &err);
        return;
    }
    crashpoint("hostd", "start-launched");
    action_done(action, "");
}

/* The engine that brought the guest here may still linger and hold QEMU's second monitor: its time is over now. */
static void start_when_free(struct partition *p, const Drover__MigrateStartRequest *m, struct action *action)
{
    struct err err;
    if (!p->lingering) {
        migration_launch(p, m, action);
        return;
    }
    if (p->moving) {
        err_set(&err, ERR_BUSY, "another migration of it is about to start");
        action_fail(action, &err);
        return;
    }
    p->move = bounded_copy(m);
    p->moving = action;
    engine_kill(p->lingering);
}

void migrate_start(struct partitions *ps, const Drover__MigrateStartRequest *m, struct wire_request *request)
{
    struct err err;
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__MIGRATE_START, m->key, request);
    if (!action)
        return;
    crashpoint("hostd", "start-received");
    int go = start_check(ps, m, &err);
    if (go == 0)
        go = start_state(ps, m, &err);
    if (go > 0)
        start_when_free(partition_find(ps, m->vm_id), m, action);
    else if (go < 0)
        action_fail(action, &err);
    else
        action_done(action, "");
}

static int resolve_check(struct partition *p, const Drover__MigrateResolveRequest *m, struct err *err)
{
    if (p->record.state != STATE_IN_DOUBT || strcmp(p->record.migration.id, m->migration_id) != 0)
        return err_set(err, p->record.state == STATE_OUTGOING ? ERR_BUSY : ERR_WRONG_STATE,
            "the partition is %s under generation %" PRIu64 ", not in doubt over migration %s",
            state_name(p->record.state), p->record.generation, m->migration_id);
    if (p->resolving && !m->resume)
        return err_set(err, ERR_BUSY, "it is being resumed already");
    if (m->resume && m->generation < p->record.generation)
        return err_set(err, ERR_INVALID, "generation %" PRIu64 " is older than %" PRIu64 ", which was handed over",
            m->generation, p->record.generation);
    return 0;
}

/* It runs here again, as an earlier MIGRATE_RESOLVE had it, and the controllers have given it a later generation in the
 * meantime. Nobody else may have run it since. */
static bool resumed_before(struct partitions *ps, const struct partition *p, const Drover__MigrateResolveRequest *m)
{
    const Drover__MigrateOutcomeRequest *over = outcomes_find(ps->env.outcomes, m->migration_id);
    return m->resume && p->record.state == STATE_RUNNING && m->generation > p->record.generation && over &&
           over->outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED && strcmp(over->vm_id, m->vm_id) == 0;
}

static int renew(struct partition *p, uint64_t generation, struct err *err)
{
    uint64_t before = p->record.generation;
    p->record.generation = generation;
    if (partition_save(p, err) == 0)
        return 0;
    p->record.generation = before;
    return -1;
}

void migrate_resolve(struct partitions *ps, const Drover__MigrateResolveRequest *m, struct wire_request *request)
{
    struct err err;
    Drover__MigrateResolveReply reply = DROVER__MIGRATE_RESOLVE_REPLY__INIT;
    struct partition *p = partition_find(ps, m->vm_id);
    bool done = p ? m->resume && p->record.state == STATE_RUNNING && p->record.generation == m->generation : !m->resume;
    if (done) {
        wire_reply(request, &reply.base);
        return;
    }
    if (!p)
        err_set(&err, ERR_NOT_FOUND, "no partition of VM %s is on this host", m->vm_id);
    bool ok = p && check_ids(m->migration_id, m->vm_id, m->generation ? m->generation : 1, &err) == 0;
    bool runs = ok && resumed_before(ps, p, m);
    if (!ok || (runs ? renew(p, m->generation, &err) : resolve_check(p, m, &err)) < 0)
        wire_reply_error(request, &err);
    else if (runs)
        wire_reply(request, &reply.base);
    else
        migration_resolve(p, m->resume, m->generation, request);
}
