/* optimizer apply: the moves of a plan, jobs of their own. Step n is move n, which tells how that one ended, but all
 * moves are under way together: how many are at work at once is decided where every migration is let in (admission.h).
 * Only a move into a host that an earlier one has yet to leave waits for that (the plan may count on the room), and one
 * of a VM that another job holds for that job's end. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "controller/jobs/step.h"

#define LOOK_MS 1000u /* at the latest: the end of a job wakes it */

static bool under_way(Drover__JobState state)
{
    return state == DROVER__JOB_STATE__JOB_RUNNING || state == DROVER__JOB_STATE__JOB_CANCELLING;
}

/* A move's job: what of it is known. Once it has ended, it is not kept for ever. */
struct made {
    bool made, kept;
    struct state_job_ref job; /* where it is kept */
};

static struct made move_made(const struct job_ctx *ctx, const Drover__PlannedMove *move)
{
    struct made m = {0};
    m.kept = state_job_child(ctx->env->state, ctx->job->log.job->id, move->migration_id, &m.job);
    m.made = m.kept || move->made;
    return m;
}

/* Will an earlier move still leave the host that this one goes to? */
static bool must_wait(const struct job_ctx *ctx, size_t which)
{
    const Drover__JobData *data = job_data(ctx);
    for (size_t i = 0; i < which; i++) {
        struct state_vm vm;
        struct made m = move_made(ctx, data->moves[i]);
        bool over = m.made && !(m.kept && under_way(m.job.state));
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
    return job_migration_new(&(struct job_migration_order){
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
    const Drover__JobData *data = job_data(ctx);
    uint32_t step = ctx->job->log.step;
    for (size_t i = step; i < data->n_moves; i++) {
        if (move_made(ctx, data->moves[i]).made || !is_free(ctx, data->moves[i]) || must_wait(ctx, i))
            continue;
        Drover__JobUpdate *update = job_resume(ctx, step); /* the step goes on; the move's job is made with this */
        PB_ADD(update, effects, effect_job_create(move_create(ctx, data->moves[i])));
        job_update_data(ctx, update)->moves[i]->made = true;
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

/* The VM is where the move was to take it. */
static bool has_arrived(const struct job_ctx *ctx, const Drover__PlannedMove *move)
{
    struct state_vm vm;
    return state_vm(ctx->env->state, move->vm_id, &vm) && strcmp(vm.owner, move->to_host) == 0;
}

/* The step's own move was made: the step ends as it does. */
static void follow(struct job_ctx *ctx, const Drover__PlannedMove *move, const struct made *m)
{
    struct err err;
    if (m->kept && under_way(m->job.state)) {
        ctx->job->queued = true;
        job_wait(ctx, LOOK_MS, "job %" PRIu64, m->job.id);
    } else if (m->kept && m->job.state == DROVER__JOB_STATE__JOB_SUCCEEDED) {
        job_done(ctx, "job %" PRIu64, m->job.id);
    } else if (!m->kept && has_arrived(ctx, move)) {
        job_done(ctx, "moved long ago");
    } else if (!m->kept) {
        err_set(&err, ERR_JOB_FAILED, "VM %s is not where it was to be moved long ago", move->vm);
        job_fail(ctx, &err);
    } else {
        err_set(&err, ERR_JOB_FAILED,
            "job %" PRIu64 " (move of %s) did not succeed; `drover job show %" PRIu64 "` says why", m->job.id, move->vm,
            m->job.id);
        job_fail(ctx, &err);
    }
}

static void run_moves(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    uint32_t step = ctx->job->log.step;
    if (ctx->event->type == JOB_REFUSED) { /* a VM was taken, or deleted, at that moment: look again */
        ctx->job->queued = true;
        job_wait(ctx, LOOK_MS, "%.200s", ctx->event->err->message);
    } else if (step >= data->n_moves) {
        job_done(ctx, "nothing to move");
    } else if (!move_make(ctx)) {
        struct made m = move_made(ctx, data->moves[step]);
        if (m.made)
            follow(ctx, data->moves[step], &m);
        else
            not_made(ctx, data->moves[step]);
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
