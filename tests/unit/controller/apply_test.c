/* The moves of an optimizer's plan: all at once, but for those that need the room another makes. The parent begins anew
 * at every single step, as if each time another leader had just begun. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#define VMS       3
#define RUNNING   DROVER__JOB_STATE__JOB_RUNNING
#define OK        DROVER__JOB_STATE__JOB_SUCCEEDED
#define FAILED    DROVER__JOB_STATE__JOB_FAILED
#define CANCELLED DROVER__JOB_STATE__JOB_CANCELLED

/* h1 gives two away, and gets one of h3's once they have left. */
static const struct {
    const char *vm, *from, *to, *migration;
} moves[VMS] = {
    {"vm-1", "h1", "h2", "m-1"},
    {"vm-2", "h1", "h3", "m-2"},
    {"vm-3", "h3", "h1", "m-3"},
};

static uint64_t begin(struct sim *sim)
{
    sim_open(sim);
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->actor, "anna");
    for (size_t i = 0; i < VMS; i++) {
        Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
        spec.name = (char *)(uintptr_t)moves[i].vm;
        spec.vcpus = 1;
        spec.memory_bytes = 128u << 20;
        sim_change(sim, effect_vm_insert(moves[i].vm, &spec, ""));
        sim_change(sim, effect_vm_grant(moves[i].vm, moves[i].from, 1));
        Drover__PlannedMove *move = pb_new(&drover__planned_move__descriptor);
        pb_string(&move->vm_id, moves[i].vm);
        pb_string(&move->vm, moves[i].vm);
        pb_string(&move->to_host, moves[i].to);
        pb_string(&move->migration_id, moves[i].migration);
        PB_ADD(create->data, moves, move);
        PB_ADD(create, steps, mem_strdup(moves[i].vm));
    }
    return sim_job(sim, create);
}

static void commit(struct sim *sim, Drover__JobUpdate *update)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    command->job_update = update;
    const char *why = sim_apply(sim, command, NULL);
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
        struct job job = {0};
        struct job_action action;
        struct job_env env = sim_env(sim);
        struct job_event enter = {.type = JOB_ENTER, .now_ms = sim->now_ms};
        assert_true(state_job(sim->state, id, &job.log));
        job_step(&job, &env, &enter, &action);
        bool commits = action.act == ACT_COMMIT;
        if (commits)
            commit(sim, action.update);
        action.update = commits ? NULL : action.update;
        assert_true(commits || (action.act == ACT_WAIT && job.queued));
        job_action_clear(&action);
        job_clear(&job);
        if (!commits)
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

static void end(struct sim *sim, uint64_t child, size_t move, Drover__JobState how)
{
    struct state_job log;
    assert_true(state_job(sim->state, child, &log));
    Drover__JobUpdate *update = pb_new(&drover__job_update__descriptor);
    update->job_id = child;
    update->revision = log.revision;
    update->state = how;
    if (how == OK) {
        PB_ADD(update, effects,
            effect_hand_over_allow(moves[move].vm, moves[move].from, 1, moves[move].migration, moves[move].to));
        PB_ADD(update, effects, effect_hand_over_taken(moves[move].vm, moves[move].migration));
    }
    state_job_clear(&log);
    commit(sim, update);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_are_under_way_together),
        cmocka_unit_test(one_that_fails_lets_the_others_end),
        cmocka_unit_test(cancelling_it_cancels_its_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
