#include "sim_hosts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "controller/fleet/reconcile.h"
#include "controller/proposer.h"
#include "proto/api.pb-c.h"

static void invariant(const struct sim *sim)
{
    const char *vm_id = sim->job.log.data ? sim->job.log.data->vm_id : "";
    assert_true(__builtin_popcount(sim_running_on(sim, vm_id)) <= 1);
}

/* --- the environment of jobs --- */

static bool away(const struct sim *sim, size_t host)
{
    return !sim->hosts[host].up || sim->now_ms < sim->away_until_ms;
}

static bool env_host(void *user, const char *name, struct job_host *out)
{
    struct sim *sim = user;
    struct state_host known;
    if (!state_host(sim->state, name, &known))
        return false;
    size_t host = sim_host_index(sim, name);
    *out = (struct job_host){.up = !away(sim, host),
        .missed = away(sim, host) && !sim->new_leader,
        .facts = sim->hosts[host].facts,
        .shutting_down = sim->hosts[host].shutting_down};
    return true;
}

static bool env_partition(void *user, const char *host, const char *vm_id, struct job_partition *out)
{
    struct sim *sim = user;
    struct sim_partition *p = sim_partition_find(sim, sim_host_index(sim, host), vm_id);
    if (!p)
        return false;
    *out = (struct job_partition){p->state, p->generation, 1000};
    return true;
}

static int env_place(void *user, const char *vm_id, const char *exclude, const Drover__MigrationOptions *options,
    struct err *err, char host[STATE_NAME_MAX], char reason[256])
{
    struct sim *sim = user;
    (void)vm_id;
    sim->placed_with_storage = options && options->with_storage;
    if (sim->full)
        return err_set(err, ERR_CAPACITY, "no host has room");
    for (size_t i = 0; i < SIM_HOSTS; i++)
        if (!away(sim, i) && strcmp(sim->hosts[i].name, exclude) != 0) {
            snprintf(host, STATE_NAME_MAX, "%s", sim->hosts[i].name);
            snprintf(reason, 256, "first that is up");
            return 0;
        }
    return err_set(err, ERR_UNAVAILABLE, "no host is up");
}

/* One migration out of a host at once: with one job at a time there is always room. */
static bool env_admit(void *user, uint64_t job_id, char reason[256])
{
    struct sim *sim = user;
    (void)job_id;
    snprintf(reason, 256, "the test holds it up");
    return sim->now_ms >= sim->admit_from_ms;
}

static void env_evacuate(void *user, const char *host, size_t max, struct job_plan *out)
{
    struct sim *sim = user;
    struct state_vm *vms;
    size_t count = state_vms_owned(sim->state, host, &vms);
    out->at_once = 2;
    snprintf(out->stuck, sizeof out->stuck, "%s", sim->stuck ? sim->stuck : "");
    for (size_t i = 0; i < count && !sim->stuck; i++) {
        bool stays = false;
        for (size_t g = 0; g < out->given_up_count; g++)
            stays = stays || strcmp(out->given_up[g], vms[i].name) == 0;
        if (stays || vms[i].job_id || out->count == max || (sim->plan_max && out->count == sim->plan_max))
            continue;
        struct job_move *move = &out->moves[out->count];
        snprintf(move->vm_id, sizeof move->vm_id, "%s", vms[i].id);
        snprintf(move->vm, sizeof move->vm, "%s", vms[i].name);
        snprintf(move->reason, sizeof move->reason, "host %s is being emptied", host);
        snprintf(move->to_host, sizeof move->to_host, "h%d", strcmp(host, "h2") == 0 ? 3 : 2);
        out->count++;
    }
    free(vms);
}

/* --- driving --- */

const char *sim_apply(struct sim *sim, Drover__Command *command, uint64_t *job_id)
{
    static char why[600];
    struct buf packed = {0}, result = {0};
    command->now_ms = 1700000000000 + (int64_t)sim->now_ms;
    proposer_pack(command, &packed);
    state_apply(sim->state, packed.data, packed.len, &result);
    Drover__CommandResult *r = pb_unpack(&drover__command_result__descriptor, result.data, result.len);
    assert_non_null(r);
    bool refused = r->error != NULL;
    if (refused)
        snprintf(why, sizeof why, "%s: %s", r->error->code, r->error->message);
    if (job_id)
        *job_id = r->job_id;
    pb_free(r);
    buf_free(&packed);
    buf_free(&result);
    return refused ? why : NULL;
}

Drover__Command *command_of_change(Drover__Effect *effect)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_CHANGE;
    command->change = pb_new(&drover__change__descriptor);
    PB_ADD(command->change, effects, effect);
    return command;
}

void sim_change(struct sim *sim, Drover__Effect *effect)
{
    const char *why = sim_apply(sim, command_of_change(effect), NULL);
    if (why)
        fail_msg("%s", why);
}

uint64_t sim_job(struct sim *sim, Drover__JobCreate *create)
{
    uint64_t id = 0;
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_CREATE;
    command->job_create = create;
    const char *why = sim_apply(sim, command, &id);
    if (why)
        fail_msg("%s", why);
    return id;
}

const char *sim_propose(struct sim *sim, Drover__JobUpdate *update)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    command->job_update = update;
    return sim_apply(sim, command, NULL);
}

struct state_vm sim_vm(struct sim *sim, const char *vm_id)
{
    struct state_vm vm;
    assert_true(state_vm(sim->state, vm_id, &vm));
    return vm;
}

static void cancel(struct sim *sim, uint64_t job_id)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_CANCEL;
    command->job_cancel = pb_new(&drover__job_cancel__descriptor);
    command->job_cancel->job_id = job_id;
    pb_string(&command->job_cancel->actor, "anna");
    sim_apply(sim, command, NULL);
}

/* Outcomes that hosts tell unasked, once each until they are told again by a query; what a host that is away tells is
 * lost. */
static bool outcome_told(struct sim *sim, struct job_event *event, Drover__MigrateOutcomeRequest *request)
{
    struct sim_migration *m = &sim->migration;
    const size_t hosts[] = {m->source, m->destination};
    bool *told[] = {&m->told_source, &m->told_destination};
    if (!sim->outcomes || !m->started)
        return false;
    for (size_t i = 0; i < 2; i++) {
        Drover__MigrationOutcome outcome = sim_outcome_of(sim, hosts[i]);
        if (*told[i] || !sim_outcome_final(outcome))
            continue;
        *told[i] = true;
        if (away(sim, hosts[i]))
            return false;
        request->migration_id = m->id;
        request->vm_id = m->vm_id;
        request->outcome = outcome;
        request->heard_us = hosts[i] == m->destination && !sim->silent ? SIM_HEARD_US : 0;
        request->listens = hosts[i] == m->destination && sim->silent;
        request->error = sim_error(sim, hosts[i]);
        request->unresumed = sim->unresumed[hosts[i]];
        *event = (struct job_event){.type = JOB_OUTCOME, .host = sim->hosts[hosts[i]].name, .outcome = request};
        return true;
    }
    return false;
}

/* Does one action; the event that comes back. The bytes behind it live until the next call. */
static struct job_event act(struct sim *sim, struct job_action *action, enum sim_blow blow)
{
    static struct buf body;
    static struct err err;
    struct job_event event = {.type = JOB_TIMER};
    buf_clear(&body);
    if (action->act == ACT_WAIT || action->act == ACT_KEEP) {
        sim->now_ms += action->act == ACT_WAIT ? action->timer_ms : 100;
    } else if (action->act == ACT_COMMIT) {
        uint64_t id = sim->job.log.job->id, revision = sim->job.log.revision;
        const char *why = sim_propose(sim, action->update);
        action->update = NULL;
        struct state_job now;
        assert_true(state_job(sim->state, id, &now));
        bool moved_on = now.revision != revision;
        state_job_clear(&now);
        event.type = JOB_ENTER;
        if (why && !moved_on) {
            err_set(&err, ERR_WRONG_STATE, "%s", why);
            event = (struct job_event){.type = JOB_REFUSED, .err = &err};
        }
    } else if (action->act == ACT_CALL) {
        void *reply = NULL;
        size_t host = sim_host_index(sim, action->host);
        int rc = 0;
        event.type = JOB_REPLY;
        if (away(sim, host) || blow == BLOW_LOST_REQUEST)
            rc = err_set(&err, ERR_UNAVAILABLE, "host %s is not connected", action->host);
        else
            rc = sim_host_call(sim, host, action->method, action->request, &err, &reply);
        if (rc == 0 && blow == BLOW_LOST_REPLY)
            rc = err_set(&err, ERR_TIMEOUT, "no answer");
        if (rc == 0)
            pb_pack(reply, &body);
        pb_free(reply);
        event.err = rc < 0 ? &err : NULL;
        event.body = body.data;
        event.len = body.len;
        sim->now_ms += 5;
    } else {
        event.type = JOB_REPLY;
        event.err = action->act != ACT_MEMBER_WITHDRAW && sim->member_says.code != ERR_NONE ? &sim->member_says : NULL;
        sim->last_member_act = action->act;
        sim->members++;
    }
    return event;
}

static enum sim_blow blow_now(struct sim *sim)
{
    if (sim->struck || sim->blow == BLOW_NONE || sim->actions != sim->blow_at)
        return BLOW_NONE;
    sim->struck = true;
    return sim->blow;
}

static void load(struct sim *sim, uint64_t job_id)
{
    state_job_clear(&sim->job.log);
    assert_true(state_job(sim->state, job_id, &sim->job.log));
}

struct job_env sim_env(struct sim *sim)
{
    return (struct job_env){sim->state, sim, env_host, env_partition, env_place, env_admit, env_evacuate};
}

enum job_act sim_step(struct sim *sim, uint64_t job_id)
{
    struct job_env env = sim_env(sim);
    struct job_event enter = {.type = JOB_ENTER, .now_ms = sim->now_ms};
    struct job_action action;
    job_clear(&sim->job);
    load(sim, job_id);
    job_step(&sim->job, &env, &enter, &action);
    enum job_act act = action.act;
    const char *why = act == ACT_COMMIT ? sim_propose(sim, action.update) : NULL;
    if (why)
        fail_msg("%s", why);
    action.update = act == ACT_COMMIT ? NULL : action.update;
    job_action_clear(&action);
    return act;
}

Drover__JobState sim_run(struct sim *sim, uint64_t job_id, unsigned max)
{
    struct job_env env = sim_env(sim);
    struct job_event event = {.type = JOB_ENTER};
    job_clear(&sim->job);
    for (sim->actions = 0; sim->actions < max; sim->actions++) {
        Drover__MigrateOutcomeRequest told = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
        struct job_event outcome;
        struct job_action action;
        if (event.type == JOB_ENTER)
            load(sim, job_id);
        if (sim->job.log.job->finished_ms)
            return sim->job.log.job->state;
        event.now_ms = sim->now_ms;
        if (event.type != JOB_ENTER && outcome_told(sim, &outcome, &told)) {
            outcome.now_ms = sim->now_ms;
            job_step(&sim->job, &env, &outcome, &action);
            pb_free(told.error);
            if (action.act == ACT_KEEP)
                job_step(&sim->job, &env, &event, &action);
        } else {
            job_step(&sim->job, &env, &event, &action);
        }
        if (sim->until && action.act == ACT_WAIT && strstr(sim->job.waiting, sim->until)) {
            job_action_clear(&action);
            return sim->job.log.job->state;
        }
        enum sim_blow blow = blow_now(sim);
        if (blow == BLOW_AWAY || blow == BLOW_CANCEL_AWAY)
            sim->away_until_ms = sim->now_ms + sim->away_ms;
        if (blow == BLOW_CANCEL ||
            blow == BLOW_CANCEL_AWAY) { /* the cancel is in the log first; a commit on its way finds that out */
            cancel(sim, job_id);
            if (action.act != ACT_COMMIT) {
                job_action_clear(&action);
                event = (struct job_event){.type = JOB_ENTER};
                continue;
            }
        }
        if (blow == BLOW_GONE)
            sim->hosts[1].up = false;
        if (blow != BLOW_LEADER_BEFORE)
            event = act(sim, &action, blow);
        job_action_clear(&action);
        sim_engines_run(sim);
        invariant(sim);
        if (blow == BLOW_LEADER_BEFORE || blow == BLOW_LEADER_AFTER) {
            job_clear(&sim->job);
            event = (struct job_event){.type = JOB_ENTER};
        }
    }
    fail_msg("job %u has not ended after %u actions: %s", (unsigned)job_id, max, sim->job.waiting);
    return DROVER__JOB_STATE__JOB_QUEUED;
}

static void settle_partition(struct sim *sim, size_t host, struct sim_partition *p)
{
    struct state_vm vm;
    bool known = state_vm(sim->state, p->vm_id, &vm);
    struct fleet_partition report = {.generation = p->generation, .state = p->state};
    snprintf(report.vm_id, sizeof report.vm_id, "%s", p->vm_id);
    struct reconcile_decision d = reconcile_partition(sim->hosts[host].name, &report, known ? &vm : NULL, 1000000);
    assert_int_not_equal(d.act, RECONCILE_WARN);
    if (d.act == RECONCILE_END)
        sim_host_stop(sim, host, p->vm_id, p->generation);
    else if (d.act == RECONCILE_RELEASE)
        sim_change(sim, effect_vm_release(vm.id, sim->hosts[host].name, vm.generation, ""));
    else if (d.act == RECONCILE_RENEW)
        sim_change(sim, effect_vm_renew(vm.id, sim->hosts[host].name, vm.generation + 1, ""));
    else if (d.act == RECONCILE_FORSAKE) {
        struct err err;
        void *reply = NULL;
        Drover__MigrateCancelRequest request = DROVER__MIGRATE_CANCEL_REQUEST__INIT;
        request.migration_id = (char *)(uintptr_t)sim->migration.id;
        request.destination_gone = true;
        assert_int_equal(sim_host_call(sim, host, DROVER__METHOD__MIGRATE_CANCEL, &request, &err, &reply), 0);
        pb_free(reply);
    } else if (d.act == RECONCILE_RESUME) {
        p->state = DROVER__PARTITION_STATE__PARTITION_RUNNING;
        p->generation = vm.generation;
    }
}

void sim_settle(struct sim *sim)
{
    for (int round = 0; round < 5; round++) {
        sim->now_ms += 10000;
        sim_engines_run(sim);
        for (size_t h = 0; h < SIM_HOSTS; h++) {
            for (size_t i = 0; i < SIM_PARTITIONS; i++)
                if (sim->hosts[h].partitions[i].used)
                    settle_partition(sim, h, &sim->hosts[h].partitions[i]);
            struct state_vm *owned;
            size_t count = state_vms_owned(sim->state, sim->hosts[h].name, &owned);
            for (size_t i = 0; i < count; i++)
                if (!sim_partition_find(sim, h, owned[i].id) &&
                    reconcile_missing(&owned[i], RECONCILE_MISSING).act == RECONCILE_RELEASE)
                    sim_change(sim, effect_vm_release(owned[i].id, sim->hosts[h].name, owned[i].generation, ""));
            free(owned);
        }
        invariant(sim);
    }
}

void sim_check_order(struct sim *sim, const char *vm_id, const char *name)
{
    struct state_vm vm;
    bool known = state_vm(sim->state, vm_id, &vm);
    if (sim_running_on(sim, vm_id) & ~(known && vm.owner[0] ? 1u << (vm.owner[1] - '1') : 0u))
        fail_msg("%s: the log lets go of a VM that still runs", name);
    sim->away_until_ms = 0;
    sim_settle(sim);
    unsigned running = sim_running_on(sim, vm_id);
    if (!state_vm(sim->state, vm_id, &vm)) {
        assert_int_equal(sim_partitions_of(sim, vm_id), 0);
        return;
    }
    if (vm.job_id || vm.hand_over_id[0] || sim_partitions_of(sim, vm_id) != (unsigned)__builtin_popcount(running))
        fail_msg("%s: job %u holds it, hand-over '%s', %u partitions", name, (unsigned)vm.job_id, vm.hand_over_id,
            sim_partitions_of(sim, vm_id));
    unsigned owner = vm.owner[0] ? 1u << (vm.owner[1] - '1') : 0;
    if (running != owner)
        fail_msg("%s: owner %s, but it runs on hosts %x", name, vm.owner[0] ? vm.owner : "nobody", running);
}

Drover__JobCreate *sim_vm_job(Drover__JobKind kind, const char *vm_id, const char *host, bool start)
{
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = kind;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->target, "web-1");
    pb_string(&create->actor, "anna");
    pb_string(&create->vm_id, vm_id);
    pb_string(&create->data->vm_id, vm_id);
    pb_string(&create->data->host, host);
    if (kind == DROVER__JOB_KIND__JOB_VM_MIGRATE || kind == DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE)
        pb_string(&create->data->migration_id, "m-1");
    if (kind == DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE) {
        pb_string(&create->data->from_host, host);
        create->data->storage = pb_new(&drover__storage_move__descriptor);
        pb_string(&create->data->storage->disk, SIM_DISK);
        pb_string(&create->data->storage->target, "/fast/");
    }
    job_add_steps(create, start);
    return create;
}

void sim_stopped_vm(struct sim *sim, const char *vm_id, const char *name)
{
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    spec.name = (char *)name;
    spec.vcpus = 1;
    spec.memory_bytes = 256u << 20;
    Drover__Disk disk = DROVER__DISK__INIT, *disks[] = {&disk};
    disk.path = (char *)SIM_DISK;
    disk.format = (char *)"raw";
    spec.disks = disks;
    spec.n_disks = 1;
    sim_change(sim, effect_vm_insert(vm_id, &spec, ""));
}

void sim_running_vm(struct sim *sim, const char *vm_id, const char *name)
{
    sim_stopped_vm(sim, vm_id, name);
    sim_change(sim, effect_vm_grant(vm_id, "h1", 1));
    struct sim_partition *p = sim_partition_make(sim, 0, vm_id);
    p->generation = 1;
    p->state = DROVER__PARTITION_STATE__PARTITION_RUNNING;
}

void sim_open(struct sim *sim)
{
    *sim = (struct sim){.state = state_new(), .now_ms = 1000, .outcomes = true, .away_ms = 120000};
    for (size_t i = 0; i < SIM_HOSTS; i++) {
        struct sim_host *host = &sim->hosts[i];
        uint8_t key[KEY_BYTES] = {(uint8_t)(i + 1)};
        snprintf(host->name, sizeof host->name, "h%zu", i + 1);
        host->up = host->starts = true;
        host->facts = pb_new(&drover__host_facts__descriptor);
        host->facts->capacity = pb_new(&drover__capacity__descriptor);
        host->facts->capacity->memory_bytes = 1ull << 30;
        pb_string(&host->facts->accelerator, "tcg");
        pb_string(&host->facts->tracker, "wp-async");
        sim_change(sim, effect_host_insert(host->name, key));
    }
}

void sim_close(struct sim *sim)
{
    job_clear(&sim->job);
    for (size_t i = 0; i < SIM_HOSTS; i++)
        pb_free(sim->hosts[i].facts);
    state_free(sim->state);
}
