/* Every kind of job: undisturbed, and struck at every single action by a new leader, a cancel, lost messages and silent
 * hosts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#define ACTIONS_MAX 400u
#define VM          "vm-1"

enum before { NOTHING, STOPPED, RUNNING };

struct scenario {
    const char *name;
    Drover__JobKind kind;
    enum before before;
    const char *host;
    bool start;
    bool cannot_start; /* QEMU does not start anywhere */
    enum sim_fate fate;
    Drover__JobState end; /* undisturbed */
    const char *owner;    /* afterwards, undisturbed; "": nobody, NULL: the VM is gone */
};

#define OK        DROVER__JOB_STATE__JOB_SUCCEEDED
#define FAILED    DROVER__JOB_STATE__JOB_FAILED
#define CANCELLED DROVER__JOB_STATE__JOB_CANCELLED
#define CREATE    DROVER__JOB_KIND__JOB_VM_CREATE
#define START     DROVER__JOB_KIND__JOB_VM_START
#define STOP      DROVER__JOB_KIND__JOB_VM_STOP
#define DELETE    DROVER__JOB_KIND__JOB_VM_DELETE
#define MIGRATE   DROVER__JOB_KIND__JOB_VM_MIGRATE

static const struct scenario scenarios[] = {
    {"create", CREATE, NOTHING, "", false, false, FATE_SUCCESS, OK, ""},
    {"create and start", CREATE, NOTHING, "h2", true, false, FATE_SUCCESS, OK, "h2"},
    {"create and start in vain", CREATE, NOTHING, "h2", true, true, FATE_SUCCESS, FAILED, NULL},
    {"start", START, STOPPED, "", false, false, FATE_SUCCESS, OK, "h1"},
    {"start in vain", START, STOPPED, "h3", false, true, FATE_SUCCESS, FAILED, ""},
    {"stop", STOP, RUNNING, "", false, false, FATE_SUCCESS, OK, ""},
    {"delete", DELETE, STOPPED, "", false, false, FATE_SUCCESS, OK, NULL},
    {"delete what runs", DELETE, RUNNING, "", false, false, FATE_SUCCESS, FAILED, "h1"},
    {"migrate", MIGRATE, RUNNING, "h2", false, false, FATE_SUCCESS, OK, "h2"},
    {"migrate to where placement says", MIGRATE, RUNNING, "", false, false, FATE_SUCCESS, OK, "h2"},
    {"migrate to where it is", MIGRATE, RUNNING, "h1", false, false, FATE_SUCCESS, FAILED, "h1"},
    {"migrate what is stopped", MIGRATE, STOPPED, "h2", false, false, FATE_SUCCESS, FAILED, ""},
    {"migrate, source gives up", MIGRATE, RUNNING, "h2", false, false, FATE_ABORT, FAILED, "h1"},
    {"migrate, doubt, taken", MIGRATE, RUNNING, "h2", false, false, FATE_DOUBT_TAKEN, OK, "h2"},
    {"migrate, doubt, not taken", MIGRATE, RUNNING, "h2", false, false, FATE_DOUBT_NOT_TAKEN, FAILED, "h1"},
    {"migrate, doubt, forgotten", MIGRATE, RUNNING, "h2", false, false, FATE_DOUBT_FORGOTTEN, FAILED, ""},
    {"migrate, doubt, destination reset", MIGRATE, RUNNING, "h2", false, false, FATE_DOUBT_RESET, FAILED, ""},
    {"migrate, source forgets", MIGRATE, RUNNING, "h2", false, false, FATE_SOURCE_FORGETS, OK, "h2"},
    {"post-copy", MIGRATE, RUNNING, "h2", false, false, FATE_POSTCOPY, OK, "h2"},
    {"post-copy, destination dies", MIGRATE, RUNNING, "h2", false, false, FATE_DESTINATION_DIES, FAILED, "h1"},
    {"post-copy, destination in doubt", MIGRATE, RUNNING, "h2", false, false, FATE_DESTINATION_DOUBT, FAILED, ""},
    {"post-copy, link cut", MIGRATE, RUNNING, "h2", false, false, FATE_CUT, FAILED, "h1"},
    {"post-copy, link cut once taken", MIGRATE, RUNNING, "h2", false, false, FATE_CUT_TAKEN, OK, "h2"},
    {"post-copy, destination reset", MIGRATE, RUNNING, "h2", false, false, FATE_DESTINATION_RESET, FAILED, ""},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static uint64_t scenario_begin(struct sim *sim, const struct scenario *s)
{
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    spec.name = (char *)"web-1";
    spec.vcpus = 1;
    spec.memory_bytes = 256u << 20;
    sim_open(sim);
    sim->fate = s->fate;
    for (size_t i = 0; i < SIM_HOSTS; i++)
        sim->hosts[i].starts = !s->cannot_start;
    if (s->before == RUNNING)
        sim_running_vm(sim, VM, "web-1");
    if (s->before == STOPPED)
        sim_change(sim, effect_vm_insert(VM, &spec, ""));
    Drover__JobCreate *create = sim_vm_job(s->kind, VM, s->host, s->start);
    if (s->kind == CREATE)
        PB_ADD(create, effects, effect_vm_insert(VM, &spec, ""));
    return sim_job(sim, create);
}

/* Whatever happened: one owner that runs it or nobody, nothing left anywhere, nothing held. */
static void check_end(struct sim *sim, const char *name)
{
    struct state_vm vm;
    bool known = state_vm(sim->state, VM, &vm);
    if (sim_running_on(sim, VM) & ~(known && vm.owner[0] ? 1u << (vm.owner[1] - '1') : 0u))
        fail_msg("%s: the log lets go of a VM that still runs", name);
    sim->away_until_ms = 0;
    sim_settle(sim);
    unsigned running = sim_running_on(sim, VM);
    if (!state_vm(sim->state, VM, &vm)) {
        assert_int_equal(sim_partitions_of(sim, VM), 0);
        return;
    }
    if (vm.job_id || vm.hand_over_id[0] || sim_partitions_of(sim, VM) != (unsigned)__builtin_popcount(running))
        fail_msg("%s: job %u holds it, hand-over '%s', %u partitions", name, (unsigned)vm.job_id, vm.hand_over_id,
            sim_partitions_of(sim, VM));
    unsigned owner = vm.owner[0] ? 1u << (vm.owner[1] - '1') : 0;
    if (running != owner)
        fail_msg("%s: owner %s, but it runs on hosts %x", name, vm.owner[0] ? vm.owner : "nobody", running);
}

static void undisturbed(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < 2 * SCENARIOS; i++) {
        struct sim sim;
        const struct scenario *s = &scenarios[i / 2];
        uint64_t id = scenario_begin(&sim, s);
        sim.outcomes = i % 2; /* told, or found out by asking */
        Drover__JobState end = sim_run(&sim, id, ACTIONS_MAX);
        if (end != s->end)
            fail_msg("%s ended %d: %s", s->name, (int)end,
                sim.job.log.job->error ? sim.job.log.job->error->message : "no error");
        if (s->kind == MIGRATE && s->before == RUNNING && end == FAILED && !s->owner[0]) /* its user has to see to it */
            assert_non_null(strstr(sim.job.log.job->error->message, "start it again"));
        check_end(&sim, s->name);
        struct state_vm vm;
        bool exists = state_vm(sim.state, VM, &vm);
        assert_int_equal(exists, s->owner != NULL);
        if (exists)
            assert_string_equal(vm.owner, s->owner);
        sim_close(&sim);
    }
}

/* What a job says of itself must fit what has become of the VM. */
static void check_truth(struct sim *sim, const struct scenario *s, Drover__JobState end)
{
    struct state_vm vm;
    bool exists = state_vm(sim->state, VM, &vm);
    if (s->kind == MIGRATE && end == OK)
        assert_true(exists && strcmp(vm.owner, "h2") == 0 && vm.generation == 2);
    if (s->kind == MIGRATE && end != OK && s->before == RUNNING)
        assert_true(exists && strcmp(vm.owner, "h2") != 0);
    if (s->kind == START && end == OK)
        assert_true(exists && vm.owner[0]);
    if (s->kind == STOP && end == OK)
        assert_true(exists && !vm.owner[0]);
    if (s->kind == CREATE)
        assert_int_equal(exists, end == OK);
}

static void strike_everywhere(enum sim_blow blow)
{
    for (size_t i = 0; i < 2 * SCENARIOS; i++) {
        const struct scenario *s = &scenarios[i / 2];
        if (i % 2 && s->kind != MIGRATE)
            continue; /* only migrations have outcomes */
        for (unsigned at = 0;; at++) {
            struct sim sim;
            char name[128];
            uint64_t id = scenario_begin(&sim, s);
            sim.blow = blow;
            sim.blow_at = at;
            sim.outcomes = i % 2;
            snprintf(name, sizeof name, "%s, blow %d at action %u", s->name, (int)blow, at);
            Drover__JobState end = sim_run(&sim, id, ACTIONS_MAX);
            check_end(&sim, name);
            check_truth(&sim, s, end);
            bool struck = sim.struck;
            sim_close(&sim);
            if (!struck)
                break;
        }
    }
}

static void new_leader_before_every_action(void **unused)
{
    (void)unused;
    strike_everywhere(BLOW_LEADER_BEFORE);
}

static void new_leader_after_every_action(void **unused)
{
    (void)unused;
    strike_everywhere(BLOW_LEADER_AFTER);
}

static void cancel_at_every_action(void **unused)
{
    (void)unused;
    strike_everywhere(BLOW_CANCEL);
}

static void every_request_lost(void **unused)
{
    (void)unused;
    strike_everywhere(BLOW_LOST_REQUEST);
}

static void every_reply_lost(void **unused)
{
    (void)unused;
    strike_everywhere(BLOW_LOST_REPLY);
}

static void hosts_away_from_every_action(void **unused)
{
    (void)unused;
    strike_everywhere(BLOW_AWAY);
}

/* A new leader does what the old one would have done: the job still succeeds. */
static void new_leader_loses_no_job(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SCENARIOS; i++)
        for (unsigned at = 0; at < 12; at++) {
            struct sim sim;
            uint64_t id = scenario_begin(&sim, &scenarios[i]);
            sim.blow = BLOW_LEADER_AFTER;
            sim.blow_at = at;
            assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), scenarios[i].end);
            sim_close(&sim);
        }
}

/* A migration that would never end: cancelled, and the source goes on. */
static void cancel_a_slow_migration(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 20; at++) {
        struct sim sim;
        struct scenario s = {"slow", MIGRATE, RUNNING, "h2", false, false, FATE_SLOW, CANCELLED, "h1"};
        uint64_t id = scenario_begin(&sim, &s);
        sim.blow = BLOW_CANCEL;
        sim.blow_at = at;
        assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), CANCELLED);
        check_end(&sim, s.name);
        assert_string_equal(sim_vm(&sim, VM).owner, "h1");
        assert_string_equal(sim.job.log.job->error->message, "cancelled by anna");
        sim_close(&sim);
    }
}

/* The destination is away when the migration has to be undone: the leave stays in the log until it has answered. */
static void leave_stays_until_the_destination_is_fenced(void **unused)
{
    (void)unused;
    struct sim sim;
    struct scenario s = {"fence", MIGRATE, RUNNING, "h2", false, false, FATE_SLOW, CANCELLED, "h1"};
    uint64_t id = scenario_begin(&sim, &s);
    sim.blow = BLOW_AWAY;
    sim.blow_at = 8;
    sim.away_ms = 300000;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), FAILED);
    assert_true(sim.now_ms >= sim.away_until_ms);
    assert_true(sim.migration.fenced);
    check_end(&sim, s.name);
    sim_close(&sim);
}

/* A host that never comes back holds no VM that nobody can have handed over to it: the job ends, and what may be left
 * on it is ended should it come back after all. */
static void a_destination_gone_for_good_holds_no_vm(void **unused)
{
    (void)unused;
    for (unsigned at = 0;; at++) {
        struct sim sim;
        const struct scenario s = {"gone", MIGRATE, RUNNING, "h2", false, false, FATE_ABORT, FAILED, "h1"};
        uint64_t id = scenario_begin(&sim, &s);
        sim.blow = BLOW_GONE;
        sim.blow_at = at;
        assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), FAILED);
        struct state_vm vm = sim_vm(&sim, VM);
        assert_string_equal(vm.owner, "h1");
        assert_string_equal(vm.hand_over_id, "");
        assert_int_equal(vm.job_id, 0);
        bool struck = sim.struck;
        sim.hosts[1].up = true;
        check_end(&sim, s.name);
        sim_close(&sim);
        if (!struck)
            break;
    }
}

/* One that may have it, though, is waited for, however long it is silent, also by who has cancelled the move. */
static void a_destination_that_may_have_it_is_waited_for(void **unused)
{
    (void)unused;
    const enum sim_fate fates[] = {FATE_SUCCESS, FATE_CUT_TAKEN, FATE_CUT};
    for (unsigned i = 0; i < 3; i++)
        for (unsigned at = 0;; at++) {
            struct sim sim;
            const struct scenario s = {"silent", MIGRATE, RUNNING, "h2", false, false, fates[i], OK, "h2"};
            uint64_t id = scenario_begin(&sim, &s);
            sim.blow = BLOW_CANCEL_AWAY;
            sim.blow_at = at;
            sim.away_ms = 3600000;
            sim_run(&sim, id, 5 * ACTIONS_MAX);
            bool struck = sim.struck;
            check_end(&sim, s.name);
            sim_close(&sim);
            if (!struck)
                break;
        }
}

/* A guest that was handed over to nobody stands still until the source is told: that waits for no timer longer than a
 * poll, whoever leads, and whether the destination's word has come through or not. */
static void guest_handed_to_nobody_is_soon_back(void **unused)
{
    (void)unused;
    const enum sim_fate fates[] = {FATE_DESTINATION_DIES, FATE_CUT};
    for (unsigned i = 0; i < 8; i++)
        for (unsigned at = 0;; at++) {
            struct sim sim;
            const struct scenario s = {"nobody", MIGRATE, RUNNING, "h2", false, false, fates[i / 4], FAILED, "h1"};
            uint64_t id = scenario_begin(&sim, &s);
            sim.outcomes = i % 2;
            sim.blow = i / 2 % 2 ? BLOW_LEADER_BEFORE : BLOW_LEADER_AFTER;
            sim.blow_at = at;
            assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), FAILED);
            assert_in_range(sim.now_ms - sim.migration.handed_over_ms, 0, 3000);
            assert_string_equal(sim_vm(&sim, VM).owner, "h1");
            bool struck = sim.struck;
            sim_close(&sim);
            if (!struck)
                break;
        }
}

static void preflight_refuses(Drover__HostFacts *facts, char **field, const char *value, const char *code,
    struct sim *sim, uint64_t id, size_t findings)
{
    (void)facts;
    pb_string(field, value);
    assert_int_equal(sim_run(sim, id, ACTIONS_MAX), FAILED);
    assert_string_equal(sim->job.log.job->error->code, code);
    assert_int_equal(sim->actions, 3); /* both hosts look, then all is told at once */
    assert_int_equal(sim->job.log.data->n_findings, findings);
    check_end(sim, "preflight");
    sim_close(sim);
}

static void preflight(void **unused)
{
    (void)unused;
    struct sim sim;
    struct scenario s = {"preflight", MIGRATE, RUNNING, "h2", false, false, FATE_SUCCESS, FAILED, "h1"};
    uint64_t id = scenario_begin(&sim, &s);
    preflight_refuses(sim.hosts[1].facts, &sim.hosts[1].facts->accelerator, "kvm", "unsupported", &sim, id, 1);
    id = scenario_begin(&sim, &s);
    preflight_refuses(sim.hosts[0].facts, &sim.hosts[0].facts->tracker, "none", "unsupported", &sim, id, 1);
    id = scenario_begin(&sim, &s);
    PB_ADD(sim.hosts[0].facts, machine_types, mem_strdup("pc-q35-10.0"));
    PB_ADD(sim.hosts[1].facts, machine_types, mem_strdup("pc-q35-7.2"));
    preflight_refuses(sim.hosts[0].facts, &sim.hosts[0].facts->kernel, "x", "unsupported", &sim, id, 1);
    id = scenario_begin(&sim, &s);
    sim.hosts[1].facts->capacity->memory_bytes = 128u << 20;
    preflight_refuses(sim.hosts[0].facts, &sim.hosts[0].facts->kernel, "x", "no-capacity", &sim, id, 1);
    id = scenario_begin(&sim, &s);
    sim.hosts[1].facts->capacity->memory_bytes = 128u << 20;
    sim.hosts[1].facts->page_bytes = 16384;
    sim.hosts[0].facts->page_bytes = 4096;
    sim_change(&sim, effect_host_maintenance("h2", true));
    preflight_refuses(sim.hosts[0].facts, &sim.hosts[0].facts->tracker, "none", "wrong-state", &sim, id, 4);
}

static void set_policy(struct sim *sim, Drover__MigrationMode mode, Drover__MigrationStuck stuck, uint32_t downtime_ms)
{
    Drover__VmSpec policy = DROVER__VM_SPEC__INIT;
    policy.max_downtime_ms = downtime_ms;
    policy.migration_mode = mode;
    policy.on_no_convergence = stuck;
    Drover__JobCreate *create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_SET, VM, "", false);
    PB_ADD(create->data, effects, effect_vm_policy_put(VM, &policy));
    assert_int_equal(sim_run(sim, sim_job(sim, create), ACTIONS_MAX), OK);
    job_clear(&sim->job);
}

/* The options with which a VM of that policy is moved that the move itself says `asked` of (taken; NULL: nothing, as
 * evacuations and the optimizer do). Take. */
static Drover__MigrationOptions *options_of_move(bool policy, Drover__MigrationOptions *asked)
{
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, VM, "web-1");
    if (policy)
        set_policy(
            &sim, DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE, 12);
    Drover__JobCreate *create = sim_vm_job(MIGRATE, VM, "h2", false);
    create->data->options = asked;
    assert_int_equal(sim_run(&sim, sim_job(&sim, create), ACTIONS_MAX), OK);
    Drover__MigrationOptions *options = pb_copy(sim.job.log.data->options);
    sim_close(&sim);
    return options;
}

/* What a move does not say, the VM's policy says; what neither says, the cluster does. The options that the hosts get
 * are those in the job. */
static void moves_follow_the_policy(void **unused)
{
    (void)unused;
    cleanup_pb Drover__MigrationOptions *plain = options_of_move(false, NULL);
    assert_int_equal(plain->max_downtime_ms, 30);
    assert_int_equal(plain->mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_DEFAULT);
    cleanup_pb Drover__MigrationOptions *set = options_of_move(true, NULL);
    assert_int_equal(set->max_downtime_ms, 12);
    assert_int_equal(set->mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO);
    assert_int_equal(set->on_no_convergence, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE);
    Drover__MigrationOptions *asked = pb_new(&drover__migration_options__descriptor);
    asked->mode = DROVER__MIGRATION_MODE__MIGRATION_MODE_PRECOPY;
    cleanup_pb Drover__MigrationOptions *once = options_of_move(true, asked);
    assert_int_equal(once->max_downtime_ms, 12);
    assert_int_equal(once->mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_PRECOPY);
    assert_int_equal(once->on_no_convergence, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE);
}

/* Where no target is asked for, the candidates are those of this move. */
static void place_is_told_the_options(void **unused)
{
    (void)unused;
    for (int with = 0; with < 2; with++) {
        struct sim sim;
        struct job job = {0};
        struct job_action action;
        sim_open(&sim);
        sim_running_vm(&sim, "vm-1", "web-1");
        Drover__JobCreate *create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm-1", "", false);
        create->data->options = pb_new(&drover__migration_options__descriptor);
        create->data->options->with_storage = with;
        struct job_env env = sim_env(&sim);
        struct job_event enter = {.type = JOB_ENTER, .now_ms = sim.now_ms};
        assert_true(state_job(sim.state, sim_job(&sim, create), &job.log));
        job_step(&job, &env, &enter, &action);
        assert_int_equal(action.act, ACT_CALL);
        assert_int_equal(sim.placed_with_storage, with);
        job_action_clear(&action);
        job_clear(&job);
        sim_close(&sim);
    }
}

/* The VM is stopped, and where its disks went along, nobody but the user can tell which are the newer ones. */
static void copies_that_may_be_newer_are_named(void **unused)
{
    (void)unused;
    for (int with = 0; with < 2; with++) {
        struct sim sim;
        sim_open(&sim);
        sim.fate = FATE_DOUBT_FORGOTTEN;
        sim_running_vm(&sim, "vm-1", "web-1");
        Drover__JobCreate *create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm-1", "h2", false);
        if (with) {
            create->data->disks = pb_new(&drover__disk_moves__descriptor);
            Drover__DiskMove *disk = pb_new(&drover__disk_move__descriptor);
            pb_string(&disk->path, "/disks/web.raw");
            pb_string(&disk->target, "/fast/web.raw");
            PB_ADD(create->data->disks, disks, disk);
        }
        assert_int_equal(sim_run(&sim, sim_job(&sim, create), ACTIONS_MAX), FAILED);
        const char *why = sim.job.log.job->error->message;
        assert_non_null(strstr(why, "start it again"));
        assert_int_equal(strstr(why, "/disks/web.raw, or its copy /fast/web.raw on host h2") != NULL, with);
        sim_close(&sim);
    }
}

/* A host that stays away costs its own job some time and then an error that names it. */
static void start_on_a_host_that_is_away(void **unused)
{
    (void)unused;
    struct sim sim;
    struct scenario s = {"away", START, STOPPED, "h3", false, false, FATE_SUCCESS, FAILED, ""};
    uint64_t id = scenario_begin(&sim, &s);
    sim.hosts[2].up = false;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), FAILED);
    assert_string_equal(sim.job.log.job->error->code, "unavailable");
    assert_non_null(strstr(sim.job.log.job->error->message, "h3"));
    check_end(&sim, s.name);
    sim_close(&sim);
}

/* One event of a job whose host takes its time; what it does. A commit is applied. */
static enum job_act step_once(struct sim *sim, uint64_t id)
{
    struct job job = {0};
    struct job_action action;
    struct job_env env = sim_env(sim);
    struct job_event enter = {.type = JOB_ENTER, .now_ms = sim->now_ms};
    assert_true(state_job(sim->state, id, &job.log));
    job_step(&job, &env, &enter, &action);
    enum job_act act = action.act;
    if (act == ACT_COMMIT) {
        Drover__Command *command = pb_new(&drover__command__descriptor);
        command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
        command->job_update = action.update;
        action.update = NULL;
        assert_null(sim_apply(sim, command, NULL));
    }
    job_action_clear(&action);
    job_clear(&job);
    return act;
}

/* A guest may take an hour to shut down; who cancels that wants to do something about it. */
static void a_cancelled_stop_frees_the_vm(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    struct scenario s = {"stop", STOP, RUNNING, "", false, false, FATE_SUCCESS, OK, ""};
    uint64_t id = scenario_begin(&sim, &s);
    assert_int_equal(step_once(&sim, id), ACT_CALL);
    sim_change(&sim, effect_job_cancel(id, "anna"));
    assert_int_equal(step_once(&sim, id), ACT_COMMIT);
    assert_true(state_job(sim.state, id, &log));
    assert_int_equal(log.job->state, DROVER__JOB_STATE__JOB_CANCELLED);
    assert_non_null(strstr(log.job->steps[0]->detail, "vm stop --force"));
    state_job_clear(&log);
    assert_string_equal(sim_vm(&sim, VM).owner, "h1"); /* until its host says that it is gone */
    Drover__JobCreate *force = sim_vm_job(STOP, VM, "", false);
    force->data->force = true;
    id = sim_job(&sim, force);
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    check_end(&sim, s.name);
    sim_close(&sim);
}

static void migration_keeps_its_record(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = scenario_begin(&sim, &scenarios[8]);
    sim.outcomes = false;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_non_null(sim.job.log.job->migration);
    assert_int_equal(sim.job.log.job->migration->blackout_us, 4200);
    assert_int_equal(sim.job.log.job->migration->network_blackout_us, 0); /* nobody has told when it was heard */
    assert_string_equal(sim.job.log.job->migration->from_host, "h1");
    assert_string_equal(sim.job.log.job->migration->to_host, "h2");
    for (size_t i = 0; i < sim.job.log.job->n_steps; i++)
        assert_int_equal(sim.job.log.job->steps[i]->state, DROVER__STEP_STATE__STEP_DONE);
    sim_close(&sim);
}

static void migration_knows_when_the_guest_was_heard(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = scenario_begin(&sim, &scenarios[8]);
    sim.outcomes = true;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_int_equal(sim.job.log.job->migration->blackout_us, 4200);
    assert_int_equal(sim.job.log.job->migration->network_blackout_us, 4200 + SIM_HEARD_US);
    uint64_t heard_ms = sim.now_ms;
    sim_close(&sim);
    id = scenario_begin(&sim, &scenarios[8]);
    sim.silent = true;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_int_equal(sim.job.log.job->migration->blackout_us, 4200);
    assert_int_equal(sim.job.log.job->migration->network_blackout_us, 0);
    assert_in_range(sim.now_ms, heard_ms, heard_ms + 150); /* it is waited for, but not for long */
    sim_close(&sim);
}

/* --- the other kinds --- */

static Drover__JobCreate *member_job(Drover__JobKind kind)
{
    uint8_t key[KEY_BYTES] = {77};
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = kind;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->target, "c4");
    create->data->member = pb_new(&drover__member_put__descriptor);
    pb_string(&create->data->member->name, "c4");
    pb_bytes(&create->data->member->public_key, key, KEY_BYTES);
    PB_ADD(create->data, effects,
        kind == DROVER__JOB_KIND__JOB_MEMBER_ADD
            ? effect_member_put("c4", key, "tcp://127.0.0.1:1", "tcp://127.0.0.1:3")
            : effect_member_delete("c4"));
    job_add_steps(create, false);
    return create;
}

static void members_come_and_go(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 6; at++) {
        struct sim sim;
        struct state_member member;
        sim_open(&sim);
        sim.blow = BLOW_LEADER_AFTER;
        sim.blow_at = at;
        assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX), OK);
        assert_true(state_member(sim.state, "c4", &member));
        job_clear(&sim.job);
        assert_int_equal(
            sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_REMOVE)), ACTIONS_MAX), OK);
        assert_false(state_member(sim.state, "c4", &member));
        assert_true(sim.members >= 2);
        sim_close(&sim);
    }
}

static void cancelled_member_is_out_again(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 3; at++) {
        struct sim sim;
        struct state_member member;
        sim_open(&sim);
        sim.blow = BLOW_CANCEL;
        sim.blow_at = at;
        Drover__JobState end = sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX);
        assert_int_equal(state_member(sim.state, "c4", &member), end == OK);
        sim_close(&sim);
    }
}

static void host_with_vms_is_not_removed(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_host host;
    sim_open(&sim);
    sim_running_vm(&sim, VM, "web-1");
    const char *names[] = {"h1", "h2"};
    for (size_t i = 0; i < 2; i++) {
        Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
        create->kind = DROVER__JOB_KIND__JOB_HOST_REMOVE;
        create->data = pb_new(&drover__job_data__descriptor);
        PB_ADD(create->data, effects, effect_host_delete(names[i]));
        job_add_steps(create, false);
        assert_int_equal(sim_run(&sim, sim_job(&sim, create), ACTIONS_MAX), i == 0 ? FAILED : OK);
        assert_int_equal(state_host(sim.state, names[i], &host), i == 0);
        job_clear(&sim.job);
    }
    sim_close(&sim);
}

static Drover__JobCreate *apply_job(size_t moves)
{
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->actor, "anna");
    for (size_t i = 0; i < moves; i++) {
        Drover__PlannedMove *move = pb_new(&drover__planned_move__descriptor);
        pb_string(&move->vm_id, VM);
        pb_string(&move->vm, "web-1");
        pb_string(&move->to_host, "h2");
        pb_string(&move->migration_id, "m-1");
        PB_ADD(create->data, moves, move);
        PB_ADD(create, steps, mem_strdup("move web-1 to h2"));
    }
    if (!moves)
        PB_ADD(create, steps, mem_strdup("nothing to do"));
    return create;
}

/* Parent and child in turns, as the runner would have them: the parent's waits are the child's time. */
static void optimizer_apply_makes_child_jobs(void **unused)
{
    (void)unused;
    struct sim parent;
    sim_open(&parent);
    sim_running_vm(&parent, VM, "web-1");
    uint64_t id = sim_job(&parent, apply_job(1));
    struct state_job_ref *active;
    struct job child = {0};
    struct job_env none = {.state = parent.state};
    struct job_event enter = {.type = JOB_ENTER, .now_ms = 1};
    struct job_action action;
    assert_true(state_job(parent.state, id, &child.log));
    job_step(&child, &none, &enter, &action);
    assert_int_equal(action.act, ACT_COMMIT);
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    command->job_update = action.update;
    assert_null(sim_apply(&parent, command, NULL));
    job_clear(&child);
    size_t count = state_jobs_active(parent.state, &active);
    assert_int_equal(count, 2);
    assert_int_equal(active[1].kind, MIGRATE);
    assert_int_equal(sim_run(&parent, active[1].id, ACTIONS_MAX), OK);
    job_clear(&parent.job);
    assert_int_equal(sim_run(&parent, id, ACTIONS_MAX), OK);
    assert_string_equal(sim_vm(&parent, VM).owner, "h2");
    free(active);
    sim_close(&parent);
}

static void optimizer_apply_with_nothing_to_do(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    assert_int_equal(sim_run(&sim, sim_job(&sim, apply_job(0)), ACTIONS_MAX), OK);
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(undisturbed),
        cmocka_unit_test(new_leader_before_every_action),
        cmocka_unit_test(new_leader_after_every_action),
        cmocka_unit_test(cancel_at_every_action),
        cmocka_unit_test(every_request_lost),
        cmocka_unit_test(every_reply_lost),
        cmocka_unit_test(hosts_away_from_every_action),
        cmocka_unit_test(new_leader_loses_no_job),
        cmocka_unit_test(cancel_a_slow_migration),
        cmocka_unit_test(leave_stays_until_the_destination_is_fenced),
        cmocka_unit_test(a_destination_gone_for_good_holds_no_vm),
        cmocka_unit_test(a_destination_that_may_have_it_is_waited_for),
        cmocka_unit_test(guest_handed_to_nobody_is_soon_back),
        cmocka_unit_test(preflight),
        cmocka_unit_test(moves_follow_the_policy),
        cmocka_unit_test(place_is_told_the_options),
        cmocka_unit_test(copies_that_may_be_newer_are_named),
        cmocka_unit_test(start_on_a_host_that_is_away),
        cmocka_unit_test(a_cancelled_stop_frees_the_vm),
        cmocka_unit_test(migration_keeps_its_record),
        cmocka_unit_test(migration_knows_when_the_guest_was_heard),
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(cancelled_member_is_out_again),
        cmocka_unit_test(host_with_vms_is_not_removed),
        cmocka_unit_test(optimizer_apply_makes_child_jobs),
        cmocka_unit_test(optimizer_apply_with_nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
