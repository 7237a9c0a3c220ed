/* Steps of jobs on hosts, members and settings (a VM's among them). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controller/jobs/step.h"

static void add_effects(const struct job_ctx *ctx, Drover__JobUpdate *update)
{
    const Drover__JobData *data = job_data(ctx);
    for (size_t i = 0; i < data->n_effects; i++)
        PB_ADD(update, effects, pb_copy(data->effects[i]));
}

/* `record`: what the job is about is a change of the log alone. */
static void run_record(struct job_ctx *ctx)
{
    add_effects(ctx, job_done(ctx, "recorded"));
}

/* The names of the VMs that are freed, as far as they fit: nothing else tells later which ones these were. */
static void record_lost(struct job_ctx *ctx, const char *host)
{
    struct state_vm *vms;
    char names[400] = "";
    size_t count = state_vms_owned(ctx->env->state, host, &vms), used = 0, named = 0;
    for (; named < count && used + STATE_NAME_MAX + 2 < sizeof names; named++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", named ? ", " : "", vms[named].name);
    free(vms);
    if (count == 0)
        add_effects(ctx, job_done(ctx, "recorded; it had no VMs"));
    else if (named < count)
        add_effects(ctx, job_done(ctx, "recorded; stopped with it: %s and %zu more", names, count - named));
    else
        add_effects(ctx, job_done(ctx, "recorded; stopped with it: %s", names));
}

/* Somebody vouches for a machine that is off. What is heard is not. */
static void run_host_remove(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    const char *name = ctx->job->log.job->target;
    struct job_host host;
    struct err err;
    bool dead = data->n_effects == 1 && data->effects[0]->change_case == DROVER__EFFECT__CHANGE_HOST_LOST;
    if (!dead || !ctx->env->host(ctx->env->user, name, &host)) {
        run_record(ctx);
    } else if (host.missed) {
        record_lost(ctx, name);
    } else if (host.up) {
        err_set(&err, ERR_WRONG_STATE, "host %s is heard, so it is not dead; `drover host evacuate %s`", name, name);
        job_fail(ctx, &err);
    } else {
        job_back_off(ctx, "until host %s has been missed", name);
    }
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

/* Takes the member out of the configuration by `act`; true once it is. */
static bool member_leave(struct job_ctx *ctx, enum job_act act, struct err *failed)
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
        ctx->out->act = act;
        ctx->out->member = job_data(ctx)->member;
    }
    return false;
}

/* A member of that name that was there before this job, and for which it was refused, stays. */
static void undo_join(struct job_ctx *ctx)
{
    struct err failed;
    if (!member_leave(ctx, ACT_MEMBER_WITHDRAW, &failed)) {
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
    if (member_leave(ctx, ACT_MEMBER_REMOVE, &failed))
        job_done(ctx, "member %s has left", job_data(ctx)->member->name);
    else if (failed.code != ERR_NONE)
        job_fail(ctx, &failed);
}

/* A change of the membership that is under way cannot be called back, and a new leader does not know whether one is: a
 * removal that is cancelled is gone through with. One that was refused has changed nothing. */
static void undo_leave(struct job_ctx *ctx)
{
    if (job_cancelled(ctx->job->log.job))
        job_resume(ctx, ctx->job->log.step);
    else
        job_undone(ctx, "member %s stays", job_data(ctx)->member->name);
}

/* Leaving is not undone: a member that has left by the time of the cancel is forgotten too. */
static void undo_forget(struct job_ctx *ctx)
{
    job_resume(ctx, ctx->job->log.step);
}

const struct job_step_kind cluster_steps[] = {
    {DROVER__JOB_KIND__JOB_HOST_ADD, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_HOST_REMOVE, "record", run_host_remove, NULL},
    {DROVER__JOB_KIND__JOB_VM_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_HOST_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_CLUSTER_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_OPTIMIZER_SET, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_MEMBER_ADD, "record", run_record, NULL},
    {DROVER__JOB_KIND__JOB_MEMBER_ADD, "join", run_join, undo_join},
    {DROVER__JOB_KIND__JOB_MEMBER_REMOVE, "leave", run_leave, undo_leave},
    {DROVER__JOB_KIND__JOB_MEMBER_REMOVE, "forget", run_record, undo_forget},
    {0},
};
