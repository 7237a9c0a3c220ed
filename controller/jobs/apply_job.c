/* optimizer apply: the moves of a plan, jobs of their own. Step n is move n, which tells how that one ended, but all
 * moves are under way together: how many are at work at once is decided where every migration is let in (admission.h).
 * Only a move into a host that an earlier one has yet to leave waits for that (the plan may count on the room), and one
 * of a VM that another job holds for that job's end. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "controller/jobs/step.h"

#define LOOK_MS 1000u /* at the latest: the end of a job wakes it */

static bool move_child(const struct job_ctx *ctx, const Drover__PlannedMove *move, struct state_job_ref *out)
{
    return state_job_child(ctx->env->state, ctx->job->log.job->id, move->migration_id, out);
}

static bool under_way(Drover__JobState state)
{
    return state == DROVER__JOB_STATE__JOB_RUNNING || state == DROVER__JOB_STATE__JOB_CANCELLING;
}

/* Will an earlier move still leave the host that this one goes to? */
static bool must_wait(const struct job_ctx *ctx, size_t which)
{
    const Drover__JobData *data = job_data(ctx);
    for (size_t i = 0; i < which; i++) {
        struct state_job_ref child;
        struct state_vm vm;
        bool over = move_child(ctx, data->moves[i], &child) && !under_way(child.state);
        if (!over && state_vm(ctx->env->state, data->moves[i]->vm_id, &vm) &&
            strcmp(vm.owner, data->moves[which]->to_host) == 0)
            return true;
    }
    return false;
}

static Drover__JobCreate *move_create(const struct job_ctx *ctx, const Drover__PlannedMove *move)
{
    struct state_vm vm = {0};
    state_vm(ctx->env->state, move->vm_id, &vm);
    return job_migration_new(&(struct job_migration){
        move->vm_id, move->vm, vm.owner, move->to_host, move->migration_id, ctx->job->log.job->actor, move->reason});
}

/* The VM exists, and no job holds it. */
static bool is_free(const struct job_ctx *ctx, const Drover__PlannedMove *move)
{
    struct state_vm vm;
    return state_vm(ctx->env->state, move->vm_id, &vm) && vm.job_id == 0;
}

/* Makes the next move that may begin, those of later steps included. False: there is none. */
static bool move_make(struct job_ctx *ctx)
{
    struct state_job_ref child;
    const Drover__JobData *data = job_data(ctx);
    uint32_t step = ctx->job->log.step;
    for (size_t i = step; i < data->n_moves; i++) {
        if (move_child(ctx, data->moves[i], &child) || !is_free(ctx, data->moves[i]) || must_wait(ctx, i))
            continue;
        Drover__JobUpdate *update = job_resume(ctx, step); /* the step goes on; the move's job is made with this */
        PB_ADD(update, effects, effect_job_create(move_create(ctx, data->moves[i])));
        return true;
    }
    return false;
}

/* The step's own move could not be made. */
static void not_made(struct job_ctx *ctx, const Drover__PlannedMove *move)
{
    struct err err;
    struct state_vm vm;
    if (!state_vm(ctx->env->state, move->vm_id, &vm)) {
        err_set(&err, ERR_NOT_FOUND, "VM %s does not exist any more; `drover optimizer plan` plans anew", move->vm);
        job_fail(ctx, &err);
    } else if (vm.job_id) {
        ctx->job->queued = true;
        job_wait(ctx, LOOK_MS, "VM %s is busy with job %" PRIu64, move->vm, vm.job_id);
    } else { /* cannot be: no earlier move is left to wait for */
        err_set(&err, ERR_INTERNAL, "move of %s was never made", move->vm);
        job_fail(ctx, &err);
    }
}

static void run_moves(struct job_ctx *ctx)
{
    struct err err;
    struct state_job_ref child;
    const Drover__JobData *data = job_data(ctx);
    uint32_t step = ctx->job->log.step;
    if (ctx->event->type == JOB_REFUSED) { /* a VM was taken, or deleted, at that moment: look again */
        ctx->job->queued = true;
        job_wait(ctx, LOOK_MS, "%.200s", ctx->event->err->message);
        return;
    }
    if (step >= data->n_moves) {
        job_done(ctx, "nothing to move");
        return;
    }
    if (move_make(ctx))
        return;
    const Drover__PlannedMove *move = data->moves[step];
    if (!move_child(ctx, move, &child)) {
        not_made(ctx, move);
    } else if (child.state == DROVER__JOB_STATE__JOB_SUCCEEDED) {
        job_done(ctx, "job %" PRIu64, child.id);
    } else if (under_way(child.state)) {
        ctx->job->queued = true;
        job_wait(ctx, LOOK_MS, "job %" PRIu64, child.id);
    } else {
        err_set(&err, ERR_JOB_FAILED,
            "job %" PRIu64 " (move of %s) did not succeed; `drover job show %" PRIu64 "` says why", child.id, move->vm,
            child.id);
        job_fail(ctx, &err);
    }
}

/* Once one has failed, or the plan is cancelled, no more moves are made, those included that waited for room or for
 * their VM. After a failure those made already go on to their end. Whoever cancels the plan, then too (cancel.c),
 * cancels them. One that ends at that moment has the whole commit refused, so every later event looks for those still
 * to be cancelled. */
static void undo_moves(struct job_ctx *ctx)
{
    struct state_child *children;
    Drover__JobUpdate *update = NULL;
    size_t active = 0, count = state_jobs_children(ctx->env->state, ctx->job->log.job->id, &children);
    for (size_t i = 0; i < count; i++) {
        active += under_way(children[i].state);
        if (!job_cancelled(ctx->job->log.job) || !job_may_cancel(ctx->env->state, &children[i]))
            continue;
        if (!update)
            update = job_go_on_undoing(ctx);
        PB_ADD(update, effects, effect_job_cancel(children[i].id, ctx->job->log.job->actor));
    }
    free(children);
    if (!update && active) {
        ctx->job->queued = true;
        job_wait(ctx, LOOK_MS, "%zu moves are on their way to their end", active);
    } else if (!update) {
        job_undone(ctx, "no more moves; those done stay");
    }
}

const struct job_step_kind apply_steps[] = {
    {DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY, NULL, run_moves, undo_moves, true},
    {0},
};
