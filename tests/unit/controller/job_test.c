/* Every kind of job of a VM: undisturbed, and struck at every single action by a new leader, a cancel, lost messages
 * and silent hosts. */
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
        sim_check_order(&sim, VM, s->name);
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
    if (s->kind == CREATE && !exists)
        assert_non_null(strstr(sim->job.log.job->steps[0]->detail, "not kept"));
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
            sim_check_order(&sim, VM, name);
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
        sim_check_order(&sim, VM, s.name);
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
    sim_check_order(&sim, VM, s.name);
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
        sim_check_order(&sim, VM, s.name);
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
            sim_check_order(&sim, VM, s.name);
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
    sim_check_order(&sim, VM, s.name);
    sim_close(&sim);
}

/* A guest may take an hour to shut down; who cancels that wants to do something about it. */
static void a_cancelled_stop_frees_the_vm(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    struct scenario s = {"stop", STOP, RUNNING, "", false, false, FATE_SUCCESS, OK, ""};
    uint64_t id = scenario_begin(&sim, &s);
    assert_int_equal(sim_step(&sim, id), ACT_CALL);
    sim_change(&sim, effect_job_cancel(id, "anna"));
    assert_int_equal(sim_step(&sim, id), ACT_COMMIT);
    assert_true(state_job(sim.state, id, &log));
    assert_int_equal(log.job->state, DROVER__JOB_STATE__JOB_CANCELLED);
    assert_non_null(strstr(log.job->steps[0]->detail, "vm stop --force"));
    state_job_clear(&log);
    assert_string_equal(sim_vm(&sim, VM).owner, "h1"); /* until its host says that it is gone */
    Drover__JobCreate *force = sim_vm_job(STOP, VM, "", false);
    force->data->force = true;
    id = sim_job(&sim, force);
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    sim_check_order(&sim, VM, s.name);
    sim_close(&sim);
}

/* Nobody knows whether the host has heard of it. */
static void a_cancelled_stop_on_a_host_that_is_away_says_so(void **unused)
{
    (void)unused;
    for (int force = 0; force < 2; force++) {
        struct sim sim;
        sim_open(&sim);
        sim_running_vm(&sim, VM, "web-1");
        Drover__JobCreate *stop = sim_vm_job(STOP, VM, "", false);
        stop->data->force = force;
        uint64_t id = sim_job(&sim, stop);
        assert_int_equal(sim_step(&sim, id), ACT_CALL);
        sim.hosts[0].up = false;
        sim_change(&sim, effect_job_cancel(id, "anna"));
        assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), CANCELLED);
        assert_non_null(strstr(sim.job.log.job->steps[0]->detail, "host h1 is away; if it was asked"));
        assert_string_equal(sim_vm(&sim, VM).owner, "h1");
        sim_close(&sim);
    }
}

/* A newer leader made it, and may lead again: only that one can undo it, so it must not end before. */
static void a_job_of_a_newer_leader_is_left_to_it(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < 2; kind++) {
        struct sim sim;
        struct state_job log;
        sim_open(&sim);
        sim_running_vm(&sim, VM, "web-1");
        Drover__JobCreate *create = sim_vm_job(kind ? (Drover__JobKind)4000 : MIGRATE, VM, "h2", false);
        while (create->n_steps > 0)
            free(create->steps[--create->n_steps]);
        PB_ADD(create, steps, mem_strdup("teleport"));
        uint64_t id = sim_job(&sim, create);
        assert_int_equal(sim_step(&sim, id), ACT_WAIT);
        assert_non_null(strstr(sim.job.waiting, "teleport"));
        sim_change(&sim, effect_job_cancel(id, "anna"));
        assert_int_equal(sim_step(&sim, id), ACT_WAIT);
        assert_true(state_job(sim.state, id, &log));
        assert_int_equal(log.job->state, DROVER__JOB_STATE__JOB_CANCELLING);
        state_job_clear(&log);
        sim_close(&sim);
    }
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
        cmocka_unit_test(start_on_a_host_that_is_away),
        cmocka_unit_test(a_cancelled_stop_frees_the_vm),
        cmocka_unit_test(a_cancelled_stop_on_a_host_that_is_away_says_so),
        cmocka_unit_test(a_job_of_a_newer_leader_is_left_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
