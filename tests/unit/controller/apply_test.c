/* The moves of an optimizer's plan: all at once, but for those that need the room another makes. The parent begins anew
 * at every single step, as if each time another leader had just begun. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#define ACTIONS_MAX 400u
#define VMS         3
#define RUNNING     DROVER__JOB_STATE__JOB_RUNNING
#define OK          DROVER__JOB_STATE__JOB_SUCCEEDED
#define FAILED      DROVER__JOB_STATE__JOB_FAILED
#define CANCELLED   DROVER__JOB_STATE__JOB_CANCELLED

/* h1 gives two away, and gets one of h3's once they have left. */
static const struct {
    const char *vm, *from, *to, *migration;
} moves[VMS] = {
    {"vm-1", "h1", "h2", "m-1"},
    {"vm-2", "h1", "h3", "m-2"},
    {"vm-3", "h3", "h1", "m-3"},
};

static Drover__JobCreate *plan_new(void)
{
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->actor, "anna");
    return create;
}

static void plan_move(Drover__JobCreate *plan, size_t i)
{
    Drover__PlannedMove *move = pb_new(&drover__planned_move__descriptor);
    pb_string(&move->vm_id, moves[i].vm);
    pb_string(&move->vm, moves[i].vm);
    pb_string(&move->to_host, moves[i].to);
    pb_string(&move->migration_id, moves[i].migration);
    PB_ADD(plan->data, moves, move);
    PB_ADD(plan, steps, mem_strdup(moves[i].vm));
}

static uint64_t begin(struct sim *sim)
{
    sim_open(sim);
    Drover__JobCreate *plan = plan_new();
    for (size_t i = 0; i < VMS; i++) {
        sim_stopped_vm(sim, moves[i].vm, moves[i].vm);
        sim_change(sim, effect_vm_grant(moves[i].vm, moves[i].from, 1));
        plan_move(plan, i);
    }
    return sim_job(sim, plan);
}

static void commit(struct sim *sim, Drover__JobUpdate *update)
{
    const char *why = sim_propose(sim, update);
    if (why)
        fail_msg("%s", why);
}

static Drover__JobState state_of(struct sim *sim, uint64_t id)
{
    struct state_job log;
    assert_true(state_job(sim->state, id, &log));
    Drover__JobState state = log.job->state;
    state_job_clear(&log);
    return state;
}

static bool over(Drover__JobState state)
{
    return state == OK || state == FAILED || state == CANCELLED;
}

/* Until the parent waits or has ended. */
static void run(struct sim *sim, uint64_t id)
{
    for (unsigned n = 0; n < 50 && !over(state_of(sim, id)); n++) {
        enum job_act act = sim_step(sim, id);
        assert_true(act == ACT_COMMIT || (act == ACT_WAIT && sim->job.queued));
        if (act == ACT_WAIT)
            return;
    }
    assert_true(over(state_of(sim, id)));
}

/* The move's job; 0: not made. */
static uint64_t child_of(struct sim *sim, uint64_t id, size_t move)
{
    struct state_job_ref child;
    return state_job_child(sim->state, id, moves[move].migration, &child) ? child.id : 0;
}

static Drover__JobUpdate *update_of(struct sim *sim, uint64_t id, Drover__JobState state)
{
    struct state_job log;
    assert_true(state_job(sim->state, id, &log));
    Drover__JobUpdate *update = pb_new(&drover__job_update__descriptor);
    update->job_id = id;
    update->revision = log.revision;
    update->step = log.step;
    update->state = state;
    state_job_clear(&log);
    return update;
}

static void end(struct sim *sim, uint64_t child, size_t move, Drover__JobState how)
{
    Drover__JobUpdate *update = update_of(sim, child, how);
    if (how == OK) {
        PB_ADD(update, effects,
            effect_hand_over_allow(moves[move].vm, moves[move].from, 1, moves[move].migration, moves[move].to));
        PB_ADD(update, effects, effect_hand_over_taken(moves[move].vm, moves[move].migration));
    }
    commit(sim, update);
}

/* Somebody else's job on the move's VM. */
static uint64_t hold(struct sim *sim, size_t move)
{
    return sim_job(sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_SET, moves[move].vm, "", false));
}

static void vm_delete(struct sim *sim, size_t move)
{
    sim_change(sim, effect_vm_release(moves[move].vm, moves[move].from, 1, ""));
    sim_change(sim, effect_vm_delete(moves[move].vm));
}

/* The parent is under way as `job`, and proposes something. */
static Drover__JobUpdate *proposal(struct sim *sim, uint64_t id, struct job *job)
{
    struct job_action action;
    struct job_env env = sim_env(sim);
    struct job_event enter = {.type = JOB_ENTER, .now_ms = sim->now_ms};
    *job = (struct job){0};
    assert_true(state_job(sim->state, id, &job->log));
    job_step(job, &env, &enter, &action);
    assert_int_equal(action.act, ACT_COMMIT);
    return action.update;
}

/* The log refuses that, which makes the parent wait. */
static void refused(struct sim *sim, struct job *job, Drover__JobUpdate *update)
{
    struct err why = {0};
    struct job_action action;
    struct job_env env = sim_env(sim);
    const char *message = sim_propose(sim, update);
    assert_non_null(message);
    err_set(&why, ERR_WRONG_STATE, "%.200s", message);
    struct job_event event = {.type = JOB_REFUSED, .now_ms = sim->now_ms, .err = &why};
    job_step(job, &env, &event, &action);
    assert_int_equal(action.act, ACT_WAIT);
    job_action_clear(&action);
}

/* Its timer has fired; what it then does is accepted. */
static void timer(struct sim *sim, struct job *job)
{
    struct job_action action;
    struct job_env env = sim_env(sim);
    struct job_event event = {.type = JOB_TIMER, .now_ms = sim->now_ms};
    job_step(job, &env, &event, &action);
    if (action.act == ACT_COMMIT)
        commit(sim, action.update);
    action.update = action.act == ACT_COMMIT ? NULL : action.update;
    job_action_clear(&action);
}

/* The moves are jobs of their own: the parent's waits are the child's time. */
static void a_move_is_a_migration(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, moves[0].vm, "web-1");
    Drover__JobCreate *plan = plan_new();
    plan_move(plan, 0);
    uint64_t id = sim_job(&sim, plan);
    assert_int_equal(sim_step(&sim, id), ACT_COMMIT);
    uint64_t child = child_of(&sim, id, 0);
    assert_true(child);
    assert_int_equal(sim_run(&sim, child, ACTIONS_MAX), OK);
    assert_int_equal(sim.job.log.job->kind, DROVER__JOB_KIND__JOB_VM_MIGRATE);
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_string_equal(sim_vm(&sim, moves[0].vm).owner, moves[0].to);
    sim_close(&sim);
}

static void a_plan_without_moves_succeeds(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    Drover__JobCreate *plan = plan_new();
    PB_ADD(plan, steps, mem_strdup("nothing to do"));
    assert_int_equal(sim_run(&sim, sim_job(&sim, plan), ACTIONS_MAX), OK);
    sim_close(&sim);
}

static void moves_are_under_way_together(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    run(&sim, id);
    assert_true(child_of(&sim, id, 0) && child_of(&sim, id, 1));
    assert_int_equal(child_of(&sim, id, 2), 0); /* h1 is still full */
    end(&sim, child_of(&sim, id, 1), 1, OK);    /* the second before the first */
    run(&sim, id);
    assert_int_equal(child_of(&sim, id, 2), 0);
    end(&sim, child_of(&sim, id, 0), 0, OK);
    run(&sim, id);
    assert_true(child_of(&sim, id, 2));
    assert_int_equal(state_of(&sim, id), RUNNING);
    end(&sim, child_of(&sim, id, 2), 2, OK);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), OK);
    assert_string_equal(sim_vm(&sim, "vm-3").owner, "h1");
    sim_close(&sim);
}

static void one_that_fails_lets_the_others_end(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    run(&sim, id);
    end(&sim, child_of(&sim, id, 0), 0, FAILED);
    run(&sim, id);
    assert_false(over(state_of(&sim, id)));
    assert_int_equal(state_of(&sim, child_of(&sim, id, 1)), RUNNING);
    end(&sim, child_of(&sim, id, 1), 1, OK);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), FAILED);
    assert_string_equal(sim_vm(&sim, "vm-2").owner, "h3");
    sim_close(&sim);
}

static void cancelling_it_cancels_its_moves(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    run(&sim, id);
    sim_change(&sim, effect_job_cancel(id, "anna"));
    run(&sim, id);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(state_of(&sim, child_of(&sim, id, i)), DROVER__JOB_STATE__JOB_CANCELLING);
    assert_false(over(state_of(&sim, id)));
    end(&sim, child_of(&sim, id, 0), 0, CANCELLED);
    end(&sim, child_of(&sim, id, 1), 1, CANCELLED);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), CANCELLED);
    assert_int_equal(child_of(&sim, id, 2), 0);
    sim_close(&sim);
}

/* As the API does it: until nothing is left that this could cancel. */
static void cancel_as_asked(struct sim *sim, uint64_t id)
{
    for (unsigned turn = 0; turn < VMS; turn++) {
        Drover__Command *command = pb_new(&drover__command__descriptor);
        bool again = job_cancel_command(sim->state, id, "anna", command);
        const char *why = sim_apply(sim, command, NULL);
        if (why)
            fail_msg("%s", why);
        if (!again)
            return;
    }
}

/* It waits for the moves that are under way; who cancels it then does not want them. */
static void cancelling_a_failed_one_cancels_its_moves(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    uint64_t id = begin(&sim);
    run(&sim, id);
    end(&sim, child_of(&sim, id, 0), 0, FAILED);
    run(&sim, id);
    cancel_as_asked(&sim, id);
    assert_int_equal(state_of(&sim, child_of(&sim, id, 1)), DROVER__JOB_STATE__JOB_CANCELLING);
    run(&sim, id);
    assert_false(over(state_of(&sim, id)));
    end(&sim, child_of(&sim, id, 1), 1, CANCELLED);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), FAILED); /* which it had before */
    assert_true(state_job(sim.state, id, &log));
    assert_string_equal(log.job->error->code, err_name(ERR_JOB_FAILED));
    state_job_clear(&log);
    assert_int_equal(child_of(&sim, id, 2), 0);
    sim_close(&sim);
}

/* What cannot be cancelled any more keeps no cancel from ending, and one that has ended refuses it as ever. */
static void cancelling_a_failed_one_spares_what_is_done(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    run(&sim, id);
    end(&sim, child_of(&sim, id, 0), 0, FAILED);
    run(&sim, id);
    Drover__JobUpdate *finish = update_of(&sim, child_of(&sim, id, 1), RUNNING);
    finish->step = 5;
    commit(&sim, finish);
    cancel_as_asked(&sim, id);
    assert_int_equal(state_of(&sim, child_of(&sim, id, 1)), RUNNING);
    end(&sim, child_of(&sim, id, 1), 1, OK);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), FAILED);
    Drover__Command *command = pb_new(&drover__command__descriptor);
    assert_false(job_cancel_command(sim.state, id, "anna", command));
    assert_non_null(sim_apply(&sim, command, NULL));
    sim_close(&sim);
}

static void a_busy_vm_is_waited_for(void **unused)
{
    (void)unused;
    for (size_t busy = 0; busy < 2; busy++) { /* that of the present step, and that of a later one */
        struct sim sim;
        uint64_t id = begin(&sim), other = hold(&sim, busy);
        run(&sim, id);
        assert_int_equal(child_of(&sim, id, busy), 0);
        assert_true(child_of(&sim, id, 1 - busy));
        assert_int_equal(state_of(&sim, id), RUNNING);
        end(&sim, child_of(&sim, id, 1 - busy), 1 - busy, OK);
        run(&sim, id);
        assert_int_equal(child_of(&sim, id, 2), 0); /* its room is still to be made */
        commit(&sim, update_of(&sim, other, OK));
        run(&sim, id);
        end(&sim, child_of(&sim, id, busy), busy, OK);
        run(&sim, id);
        end(&sim, child_of(&sim, id, 2), 2, OK);
        run(&sim, id);
        assert_int_equal(state_of(&sim, id), OK);
        sim_close(&sim);
    }
}

/* A plan that waits for a busy VM may outlive the records of its own moves: none is made a second time. */
static void a_forgotten_move_is_not_made_again(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim), other = hold(&sim, 0);
    run(&sim, id);
    end(&sim, child_of(&sim, id, 1), 1, OK);
    for (unsigned i = 0; i <= STATE_JOBS_KEPT; i++) {
        uint64_t another = sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_HOST_SET, "", "", false));
        commit(&sim, update_of(&sim, another, OK));
    }
    assert_int_equal(child_of(&sim, id, 1), 0);
    run(&sim, id);
    assert_int_equal(child_of(&sim, id, 1), 0);
    commit(&sim, update_of(&sim, other, OK));
    run(&sim, id);
    end(&sim, child_of(&sim, id, 0), 0, OK);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), RUNNING);
    assert_int_equal(child_of(&sim, id, 1), 0);
    assert_true(child_of(&sim, id, 2)); /* it counts as done */
    sim_close(&sim);
}

/* Between the proposal of a move and its commit. */
static void a_vm_taken_at_that_moment_is_waited_for(void **unused)
{
    (void)unused;
    struct sim sim;
    struct job job;
    uint64_t id = begin(&sim);
    Drover__JobUpdate *update = proposal(&sim, id, &job);
    uint64_t other = hold(&sim, 0);
    refused(&sim, &job, update);
    assert_true(job.queued);
    assert_non_null(strstr(job.waiting, "busy"));
    timer(&sim, &job);
    assert_true(child_of(&sim, id, 1));
    assert_int_equal(state_of(&sim, id), RUNNING);
    job_clear(&job);
    commit(&sim, update_of(&sim, other, OK));
    run(&sim, id);
    assert_true(child_of(&sim, id, 0));
    sim_close(&sim);
}

static void a_deleted_vm_lets_the_others_begin(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job log;
    uint64_t id = begin(&sim);
    vm_delete(&sim, 0);
    run(&sim, id);
    assert_true(child_of(&sim, id, 1));
    assert_false(over(state_of(&sim, id)));
    end(&sim, child_of(&sim, id, 1), 1, OK);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), FAILED);
    assert_int_equal(child_of(&sim, id, 2), 0);
    assert_true(state_job(sim.state, id, &log));
    assert_string_equal(log.job->error->code, err_name(ERR_NOT_FOUND));
    assert_non_null(strstr(log.job->error->message, "vm-1"));
    state_job_clear(&log);
    sim_close(&sim);
}

/* It has the commit refused that cancels all, and the others are cancelled nonetheless. */
static void a_move_that_ends_while_it_is_cancelled(void **unused)
{
    (void)unused;
    struct sim sim;
    struct job job;
    uint64_t id = begin(&sim);
    run(&sim, id);
    sim_change(&sim, effect_job_cancel(id, "anna"));
    Drover__JobUpdate *update = proposal(&sim, id, &job);
    end(&sim, child_of(&sim, id, 0), 0, OK);
    refused(&sim, &job, update);
    timer(&sim, &job);
    job_clear(&job);
    assert_int_equal(state_of(&sim, child_of(&sim, id, 1)), DROVER__JOB_STATE__JOB_CANCELLING);
    end(&sim, child_of(&sim, id, 1), 1, CANCELLED);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), CANCELLED);
    sim_close(&sim);
}

/* One that has the VM at its destination finishes there: too late to cancel it, again and again. */
static void a_move_in_its_last_step_is_let_finish(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    run(&sim, id);
    Drover__JobUpdate *finish = update_of(&sim, child_of(&sim, id, 0), RUNNING);
    finish->step = 5;
    commit(&sim, finish);
    sim_change(&sim, effect_job_cancel(id, "anna"));
    run(&sim, id);
    assert_int_equal(state_of(&sim, child_of(&sim, id, 0)), RUNNING);
    assert_int_equal(state_of(&sim, child_of(&sim, id, 1)), DROVER__JOB_STATE__JOB_CANCELLING);
    end(&sim, child_of(&sim, id, 0), 0, OK);
    end(&sim, child_of(&sim, id, 1), 1, CANCELLED);
    run(&sim, id);
    assert_int_equal(state_of(&sim, id), CANCELLED);
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_move_is_a_migration),
        cmocka_unit_test(a_plan_without_moves_succeeds),
        cmocka_unit_test(moves_are_under_way_together),
        cmocka_unit_test(one_that_fails_lets_the_others_end),
        cmocka_unit_test(cancelling_it_cancels_its_moves),
        cmocka_unit_test(cancelling_a_failed_one_cancels_its_moves),
        cmocka_unit_test(cancelling_a_failed_one_spares_what_is_done),
        cmocka_unit_test(a_busy_vm_is_waited_for),
        cmocka_unit_test(a_forgotten_move_is_not_made_again),
        cmocka_unit_test(a_vm_taken_at_that_moment_is_waited_for),
        cmocka_unit_test(a_deleted_vm_lets_the_others_begin),
        cmocka_unit_test(a_move_that_ends_while_it_is_cancelled),
        cmocka_unit_test(a_move_in_its_last_step_is_let_finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
