/* Emptying a host. The parent begins anew at every single step, as if each time another leader had just begun: what it
 * goes by is in the log. Its waits are its children's time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#define ACTIONS_MAX 400u
#define VMS         4
#define OK          DROVER__JOB_STATE__JOB_SUCCEEDED
#define FAILED      DROVER__JOB_STATE__JOB_FAILED
#define CANCELLED   DROVER__JOB_STATE__JOB_CANCELLED

static const char *const ids[VMS] = {"vm-1", "vm-2", "vm-3", "vm-4"};

static uint64_t empty(struct sim *sim, const char *host)
{
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = DROVER__JOB_KIND__JOB_HOST_EVACUATE;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->target, host);
    pb_string(&create->actor, "anna");
    job_add_steps(create, false);
    return sim_job(sim, create);
}

static uint64_t begin_in(struct sim *sim)
{
    for (size_t i = 0; i < VMS; i++)
        sim_running_vm(sim, ids[i], ids[i]);
    return empty(sim, "h1");
}

static uint64_t begin(struct sim *sim)
{
    sim_open(sim);
    return begin_in(sim);
}

static void cancel(struct sim *sim, uint64_t id)
{
    sim_change(sim, effect_job_cancel(id, "anna"));
}

static bool in_maintenance(struct sim *sim)
{
    struct state_host host;
    assert_true(state_host(sim->state, "h1", &host));
    return host.maintenance;
}

/* One event of the parent. True: it did something; false: it waits. */
static bool parent_step(struct sim *sim, uint64_t id)
{
    enum job_act act = sim_step(sim, id);
    assert_true(act == ACT_COMMIT || (act == ACT_WAIT && sim->job.waiting[0] && sim->job.queued));
    return act == ACT_COMMIT;
}

static Drover__JobState job_state(struct sim *sim, uint64_t id, struct state_job *out)
{
    assert_true(state_job(sim->state, id, out));
    return out->job->state;
}

static size_t active_children(struct sim *sim, uint64_t id, uint64_t *oldest)
{
    struct state_child *children;
    size_t count = state_jobs_children(sim->state, id, &children), active = 0;
    for (size_t i = 0; i < count; i++)
        if (children[i].state == DROVER__JOB_STATE__JOB_RUNNING ||
            children[i].state == DROVER__JOB_STATE__JOB_CANCELLING) {
            *oldest = active ? *oldest : children[i].id;
            active++;
        }
    free(children);
    return active;
}

/* The first so many of `ids` never get through; 0: all as the simulation's fate is. */
static size_t immobile;

static void set_fate(struct sim *sim, uint64_t child)
{
    struct state_job log;
    job_state(sim, child, &log);
    if (immobile)
        sim->fate = FATE_SUCCESS;
    for (size_t i = 0; i < immobile; i++)
        if (strcmp(log.job->target, ids[i]) == 0)
            sim->fate = FATE_ABORT;
    state_job_clear(&log);
}

/* Until the parent ends; children run to their end one by one, the oldest first. */
static Drover__JobState run(struct sim *sim, uint64_t id, size_t *most)
{
    *most = 0;
    for (unsigned turn = 0; turn < 100; turn++) {
        struct state_job log;
        uint64_t child = 0;
        Drover__JobState state = job_state(sim, id, &log);
        bool over = log.job->finished_ms != 0;
        state_job_clear(&log);
        if (over)
            return state;
        if (parent_step(sim, id))
            continue;
        size_t active = active_children(sim, id, &child);
        *most = active > *most ? active : *most;
        assert_true(active > 0);
        memset(&sim->migration, 0, sizeof sim->migration);
        set_fate(sim, child);
        sim_run(sim, child, ACTIONS_MAX);
    }
    fail_msg("the evacuation does not end");
    return FAILED;
}

static size_t owned(struct sim *sim, const char *host)
{
    struct state_vm *vms;
    size_t count = state_vms_owned(sim->state, host, &vms);
    free(vms);
    return count;
}

static void all_are_moved(void **unused)
{
    (void)unused;
    struct sim sim;
    size_t most;
    uint64_t id = begin(&sim);
    assert_int_equal(run(&sim, id, &most), OK);
    assert_int_equal(most, 3); /* two at work, one ahead */
    assert_int_equal(owned(&sim, "h1"), 0);
    assert_int_equal(owned(&sim, "h2"), VMS);
    for (size_t i = 0; i < VMS; i++)
        assert_int_equal(sim_running_on(&sim, ids[i]), 2); /* h2, and nowhere else */
    assert_true(in_maintenance(&sim));
    sim_close(&sim);
}

static void what_cannot_be_moved_is_tried_twice(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    struct state_child *children;
    size_t most;
    uint64_t id = begin(&sim);
    sim.fate = FATE_ABORT;
    assert_int_equal(run(&sim, id, &most), FAILED);
    assert_int_equal(state_jobs_children(sim.state, id, &children), 2 * VMS);
    free(children);
    assert_int_equal(owned(&sim, "h1"), VMS);
    assert_true(in_maintenance(&sim)); /* whoever asked for it has not got what he wanted yet */
    job_state(&sim, id, &log);
    assert_non_null(strstr(log.job->error->message, "stays in maintenance"));
    state_job_clear(&log);
    sim_close(&sim);
}

/* A host has more VMs than one plan holds, and the first of them cannot be moved: the others have their turn all the
 * same. */
static void what_cannot_be_moved_keeps_nobody_back(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    struct state_child *children;
    size_t most;
    uint64_t id = begin(&sim);
    sim.plan_max = immobile = 2;
    assert_int_equal(run(&sim, id, &most), FAILED);
    immobile = 0;
    assert_int_equal(state_jobs_children(sim.state, id, &children), 2 * 2 + 2);
    free(children);
    assert_int_equal(owned(&sim, "h1"), 2);
    assert_int_equal(owned(&sim, "h2"), 2);
    job_state(&sim, id, &log);
    assert_non_null(strstr(log.job->error->message, "still has 2 VMs"));
    assert_non_null(strstr(log.job->error->message, "could not be moved"));
    state_job_clear(&log);
    sim_close(&sim);
}

static void first_move(struct sim *sim, uint64_t id, char out[static STATE_ID_MAX])
{
    struct state_child *children;
    struct state_job log;
    while (parent_step(sim, id))
        ;
    assert_true(state_jobs_children(sim->state, id, &children) > 0);
    job_state(sim, children[0].id, &log);
    snprintf(out, STATE_ID_MAX, "%s", log.data->migration_id);
    state_job_clear(&log);
    free(children);
}

/* Its hosts may remember the moves of a cluster that was lost, whose jobs had the same numbers. */
static void a_cluster_founded_anew_makes_other_ids(void **unused)
{
    (void)unused;
    struct sim lost, anew;
    char first[STATE_ID_MAX], second[STATE_ID_MAX];
    uint64_t id = begin(&lost);
    first_move(&lost, id, first);
    sim_open(&anew);
    anew.now_ms += 86400000;
    assert_int_equal(begin_in(&anew), id);
    first_move(&anew, id, second);
    assert_string_not_equal(first, second);
    sim_close(&anew);
    sim_close(&lost);
}

static unsigned plans;
static struct job_env planner;

static void plan_counted(void *user, const char *host, size_t max, struct job_plan *out)
{
    plans++;
    planner.evacuate(user, host, max, out);
}

/* One leader's: the plan is not made anew at every look while nothing has changed, but a move that ends changes it. */
static void a_plan_lasts_while_nothing_changes(void **unused)
{
    (void)unused;
    struct sim sim;
    struct job job = {0};
    struct job_action action;
    uint64_t id = begin(&sim), child;
    while (parent_step(&sim, id))
        ;
    struct job_env env = planner = sim_env(&sim);
    env.evacuate = plan_counted;
    assert_true(state_job(sim.state, id, &job.log));
    plans = 0;
    for (struct job_event event = {.type = JOB_ENTER, .now_ms = sim.now_ms}; event.now_ms < sim.now_ms + 10000;
         event.type = JOB_TIMER, event.now_ms += action.timer_ms) {
        job_step(&job, &env, &event, &action);
        assert_int_equal(action.act, ACT_WAIT);
        assert_non_null(strstr(job.waiting, "3 on their way"));
    }
    assert_int_equal(plans, 2); /* in ten looks */
    assert_int_equal(active_children(&sim, id, &child), 3);
    sim_run(&sim, child, ACTIONS_MAX);
    job_step(&job, &env, &(struct job_event){.type = JOB_TIMER, .now_ms = job.evacuating.planned_ms + 1}, &action);
    assert_int_equal(plans, 3);
    assert_int_equal(action.act, ACT_COMMIT); /* the fourth */
    job_action_clear(&action);
    job_clear(&job);
    sim_close(&sim);
}

/* Hosts know a migration by its id, long after the log has forgotten it: no id comes back. */
static void ids_of_moves_are_never_used_twice(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_child *children;
    char first[STATE_ID_MAX];
    uint64_t id = begin(&sim);
    while (parent_step(&sim, id))
        ;
    assert_true(state_jobs_children(sim.state, id, &children) > 0);
    struct state_job log;
    for (size_t i = 0; i < 3; i++) {
        job_state(&sim, children[i].id, &log);
        snprintf(first, sizeof first, "%s", log.data->migration_id);
        state_job_clear(&log);
        sim.fate = FATE_ABORT;
        sim_run(&sim, children[i].id, ACTIONS_MAX);
        memset(&sim.migration, 0, sizeof sim.migration);
    }
    free(children);
    for (unsigned i = 0; i <= STATE_JOBS_KEPT; i++) { /* so much happens meanwhile that they are forgotten */
        Drover__JobCreate *other = sim_vm_job(DROVER__JOB_KIND__JOB_HOST_SET, "", "", false);
        uint64_t other_id = sim_job(&sim, other);
        assert_int_equal(sim_run(&sim, other_id, ACTIONS_MAX), OK);
    }
    assert_int_equal(state_jobs_children(sim.state, id, &children), 0);
    free(children);
    while (parent_step(&sim, id))
        ;
    size_t count = state_jobs_children(sim.state, id, &children);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        job_state(&sim, children[i].id, &log);
        assert_string_not_equal(log.data->migration_id, first);
        state_job_clear(&log);
    }
    free(children);
    sim_close(&sim);
}

/* Cancelled at every step: what had not begun does not, the host takes VMs again, and nobody is lost. */
static void cancelled_at_every_step(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 4; at++) {
        struct sim sim;
        size_t most;
        uint64_t id = begin(&sim);
        for (unsigned i = 0; i < at; i++)
            parent_step(&sim, id);
        cancel(&sim, id);
        assert_int_equal(run(&sim, id, &most), CANCELLED);
        assert_false(in_maintenance(&sim));
        assert_int_equal(owned(&sim, "h1"), VMS);
        sim_close(&sim);
    }
}

static void a_cancelled_one_leaves_maintenance_as_it_was(void **unused)
{
    (void)unused;
    struct sim sim;
    size_t most;
    uint64_t id = begin(&sim);
    sim_change(&sim, effect_host_maintenance("h1", true));
    parent_step(&sim, id);
    cancel(&sim, id);
    assert_int_equal(run(&sim, id, &most), CANCELLED);
    assert_true(in_maintenance(&sim));
    sim_close(&sim);
}

/* A hand-over to the host that was allowed before it was to be emptied ends as it ends, and the guest has to go again:
 * a host that may yet get one is not empty. */
static void what_arrives_is_waited_for(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t oldest;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "vm-1");
    sim_change(&sim, effect_hand_over_allow("vm-1", "h1", 1, "before", "h2"));
    uint64_t id = empty(&sim, "h2");
    assert_true(parent_step(&sim, id)); /* maintenance */
    assert_false(parent_step(&sim, id));
    sim_change(&sim, effect_hand_over_taken("vm-1", "before"));
    assert_true(parent_step(&sim, id));
    assert_int_equal(active_children(&sim, id, &oldest), 1);
    sim_close(&sim);
}

/* A new leader hears the hosts one after the other. */
static void room_that_was_not_heard_of_yet_is_waited_for(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    uint64_t id = begin(&sim);
    assert_true(parent_step(&sim, id));
    sim.stuck = "no host has room";
    sim.hosts[1].up = false;
    sim.new_leader = true;
    assert_false(parent_step(&sim, id));
    sim.new_leader = false;
    assert_true(parent_step(&sim, id)); /* it would have been heard of by now: it is so */
    while (job_state(&sim, id, &log) == DROVER__JOB_STATE__JOB_CANCELLING) {
        state_job_clear(&log);
        parent_step(&sim, id);
    }
    assert_int_equal(log.job->state, FAILED);
    assert_non_null(strstr(log.job->error->message, "no host has room"));
    state_job_clear(&log);
    sim_close(&sim);
}

/* Both were asked for before either was in the log: one has the host, and the end of the other takes nothing back. */
static void one_evacuation_at_a_time(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    size_t most;
    uint64_t id = begin(&sim), second = empty(&sim, "h1");
    assert_true(parent_step(&sim, id));
    assert_true(parent_step(&sim, second));
    assert_int_equal(job_state(&sim, second, &log), FAILED);
    assert_non_null(strstr(log.job->error->message, "is being emptied"));
    state_job_clear(&log);
    assert_true(in_maintenance(&sim));
    assert_int_equal(run(&sim, id, &most), OK);
    sim_close(&sim);
}

/* The log itself keeps VMs off a host in maintenance, whoever asks. */
static void maintenance_refuses_vms(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_stopped_vm(&sim, "vm-9", "web");
    sim_change(&sim, effect_host_maintenance("h3", true));
    assert_int_equal(
        sim_run(&sim, sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_START, "vm-9", "h3", false)), ACTIONS_MAX),
        FAILED);
    assert_non_null(strstr(sim.job.log.job->error->message, "maintenance"));
    sim_change(&sim, effect_host_maintenance("h3", false));
    assert_int_equal(
        sim_run(&sim, sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_START, "vm-9", "h3", false)), ACTIONS_MAX), OK);
    sim_close(&sim);
}

/* Nor is one that is being shut down asked: nothing of the VM has to be taken back. */
static void a_host_that_goes_down_is_not_asked(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_stopped_vm(&sim, "vm-9", "web");
    sim.hosts[2].shutting_down = true;
    assert_int_equal(
        sim_run(&sim, sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_START, "vm-9", "h3", false)), ACTIONS_MAX),
        FAILED);
    assert_string_equal(sim.job.log.job->error->code, "wrong-state");
    assert_non_null(strstr(sim.job.log.job->error->message, "being shut down"));
    assert_int_equal(sim.hosts[2].partitions[0].generation, 0);
    sim.hosts[2].shutting_down = false;
    assert_int_equal(
        sim_run(&sim, sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_START, "vm-9", "h3", false)), ACTIONS_MAX), OK);
    sim_close(&sim);
}

/* A migration that there is no room for waits in its step `queue`, says why, and can be cancelled there. */
static void too_many_wait(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "vm-1");
    sim.admit_from_ms = sim.now_ms + 60000;
    uint64_t id = sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm-1", "h2", false));
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_true(sim.now_ms >= sim.admit_from_ms);
    assert_string_equal(sim.job.log.job->steps[1]->name, "queue");
    assert_non_null(strstr(sim.job.log.job->steps[1]->detail, "waited for"));
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_moved),
        cmocka_unit_test(what_cannot_be_moved_is_tried_twice),
        cmocka_unit_test(what_cannot_be_moved_keeps_nobody_back),
        cmocka_unit_test(ids_of_moves_are_never_used_twice),
        cmocka_unit_test(a_cluster_founded_anew_makes_other_ids),
        cmocka_unit_test(a_plan_lasts_while_nothing_changes),
        cmocka_unit_test(cancelled_at_every_step),
        cmocka_unit_test(a_cancelled_one_leaves_maintenance_as_it_was),
        cmocka_unit_test(what_arrives_is_waited_for),
        cmocka_unit_test(room_that_was_not_heard_of_yet_is_waited_for),
        cmocka_unit_test(one_evacuation_at_a_time),
        cmocka_unit_test(maintenance_refuses_vms),
        cmocka_unit_test(a_host_that_goes_down_is_not_asked),
        cmocka_unit_test(too_many_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
