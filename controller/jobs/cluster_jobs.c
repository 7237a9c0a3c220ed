/* Steps of jobs on hosts, members and settings (a VM's among them), and of an optimizer's plan, whose moves are jobs of
 * their own. */
#include <inttypes.h>
#include <string.h>

#include "controller/jobs/step.h"
#include "proto/pbjson.h"

/* `record`: what the job is about is a change of the log alone. */
static void run_record(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    Drover__JobUpdate *update = job_done(ctx, "recorded");
    for (size_t i = 0; i < data->n_effects; i++)
        PB_ADD(update, effects, pb_copy(data->effects[i]));
}

static void run_join(struct job_ctx *ctx)
{
    const struct job_event *event = ctx->event;
    const Drover__MemberPut *member = job_data(ctx)->member;
    if (event->type == JOB_REPLY && (!event->err || event->err->code == ERR_EXISTS)) {
        job_done(ctx, "member %s votes", member->name);
    } else if (event->type == JOB_REPLY && (!err_retryable(event->err->code) || !job_within(ctx, JOB_UNREACHABLE_MS))) {
        job_fail(ctx, event->err);
    } else if (event->type == JOB_REPLY) {
        job_back_off(ctx, "%.200s", event->err->message);
    } else {
        ctx->out->act = ACT_MEMBER_ADD;
        ctx->out->member = member;
    }
}

/* Takes the member out of the configuration; true once it is. */
static bool member_leave(struct job_ctx *ctx, struct err *failed)
{
    const struct job_event *event = ctx->event;
    failed->code = ERR_NONE;
    if (event->type == JOB_REPLY && (!event->err || event->err->code == ERR_NOT_FOUND))
        return true;
    if (event->type == JOB_REPLY && !err_retryable(event->err->code)) {
        *failed = *event->err;
    } else if (event->type == JOB_REPLY) {
        job_back_off(ctx, "%.200s", event->err->message);
    } else {
        ctx->out->act = ACT_MEMBER_REMOVE;
        ctx->out->member = job_data(ctx)->member;
    }
    return false;
}

static void undo_join(struct job_ctx *ctx)
{
    struct err failed;
    if (!member_leave(ctx, &failed)) {
        if (failed.code != ERR_NONE)
            job_back_off(ctx, "%.200s", failed.message);
        return;
    }
    Drover__JobUpdate *update = job_undone(ctx, "member %s is out again", job_data(ctx)->member->name);
    PB_ADD(update, effects, effect_member_delete(job_data(ctx)->member->name));
}

static void run_leave(struct job_ctx *ctx)
{
    struct err failed;
    if (member_leave(ctx, &failed))
        job_done(ctx, "member %s has left", job_data(ctx)->member->name);
    else if (failed.code != ERR_NONE)
        job_fail(ctx, &failed);
}

/* Leaving is not undone: a member that has left by the time of the cancel is forgotten too. */
static void undo_forget(struct job_ctx *ctx)
{
    job_resume(ctx, ctx->job->log.step);
}

/* --- optimizer apply: step n is move n --- */

static Drover__JobCreate *child_create(const struct job_ctx *ctx, const Drover__PlannedMove *move)
{
    struct state_vm vm;
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = DROVER__JOB_KIND__JOB_VM_MIGRATE;
    pb_string(&create->target, move->vm);
    pb_string(&create->actor, ctx->job->log.job->actor);
    pb_string(&create->reason, move->reason);
    pb_string(&create->vm_id, move->vm_id);
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->data->vm_id, move->vm_id);
    pb_string(&create->data->host, move->to_host);
    pb_string(&create->data->migration_id, move->migration_id);
    if (state_vm(ctx->env->state, move->vm_id, &vm))
        pb_string(&create->data->from_host, vm.owner);
    job_add_steps(create, false);
    return create;
}

static void run_move_job(struct job_ctx *ctx)
{
    struct err err;
    struct state_job_ref child;
    const Drover__JobData *data = job_data(ctx);
    uint32_t step = ctx->job->log.step;
    if (step >= data->n_moves) {
        job_done(ctx, "nothing to move");
        return;
    }
    const Drover__PlannedMove *move = data->moves[step];
    if (!state_job_child(ctx->env->state, ctx->job->log.job->id, move->migration_id, &child)) {
        Drover__JobUpdate *update = job_resume(ctx, step); /* the step goes on; its job is made with this */
        PB_ADD(update, effects, effect_job_create(child_create(ctx, move)));
        return;
    }
    if (child.state == DROVER__JOB_STATE__JOB_SUCCEEDED) {
        job_done(ctx, "job %" PRIu64, child.id);
    } else if (child.state == DROVER__JOB_STATE__JOB_FAILED || child.state == DROVER__JOB_STATE__JOB_CANCELLED) {
        err_set(&err, ERR_JOB_FAILED,
            "job %" PRIu64 " (move of %s) did not succeed; `drover job show %" PRIu64 "` says why", child.id, move->vm,
            child.id);
        job_fail(ctx, &err);
    } else {
        job_wait(ctx, 300, "job %" PRIu64, child.id);
    }
}

static void undo_move_job(struct job_ctx *ctx)
{
    struct state_job_ref child;
    const Drover__JobData *data = job_data(ctx);
    uint32_t step = ctx->job->log.step;
    bool made = step < data->n_moves &&
                state_job_child(ctx->env->state, ctx->job->log.job->id, data->moves[step]->migration_id, &child);
    if (made && child.state == DROVER__JOB_STATE__JOB_RUNNING && ctx->event->type == JOB_ENTER) {
        Drover__JobUpdate *update = pb_new(&drover__job_update__descriptor);
        update->job_id = ctx->job->log.job->id;
        update->revision = ctx->job->log.revision;
        update->state = DROVER__JOB_STATE__JOB_CANCELLING;
        update->step = step;
        PB_ADD(update, effects, effect_job_cancel(child.id, ctx->job->log.job->actor));
        ctx->out->act = ACT_COMMIT;
        ctx->out->update = update;
    } else if (made &&
               (child.state == DROVER__JOB_STATE__JOB_RUNNING || child.state == DROVER__JOB_STATE__JOB_CANCELLING)) {
        job_wait(ctx, 300, "job %" PRIu64 " is being cancelled", child.id);
    } else {
        job_undone(ctx, "no more moves; those done before stay");
    }
}

const struct job_step_kind cluster_steps[] = {
    {DROVER__JOB_KIND__JOB_HOST_ADD, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_HOST_REMOVE, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_VM_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_HOST_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_CLUSTER_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_OPTIMIZER_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_MEMBER_ADD, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_MEMBER_ADD, "join", run_join, undo_join},
    {DROVER__JOB_KIND__JOB_MEMBER_REMOVE, "leave", run_leave, NULL},
    {DROVER__JOB_KIND__JOB_MEMBER_REMOVE, "forget", run_record, undo_forget},
    {DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY, NULL, run_move_job, undo_move_job},
    {0},
};
