/* vm move-storage: check -> copy -> finish. A disk of a running VM goes to another file on the VM's host.
 *
 * The host decides when the guest changes over; the files themselves say for good whether it has (storage/place.h). The
 * controllers put into the log what it says, and only then may the old file go:
 *
 *   check    where exactly to; this name is in the log before anything is made
 *   copy     the host copies while the guest writes. Taken: the definition names the new file with the end of this step
 *   finish   the old file is removed, unless it is to be kept
 *
 * Cancelled or failed in `copy`: the host is made to decide, and what it says is followed either way. It is in doubt
 * where its guest is dead, it has lost its records, and the files are not where they were; then somebody has to say
 * which file is the disk (job_settle_command()), and neither is removed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "controller/jobs/step.h"
#include "proto/bounded.h"

#define STORAGE_POLL_MS 1000u

static const char *storage_host(const struct job_ctx *ctx)
{
    return job_data(ctx)->from_host;
}

static void run_check(struct job_ctx *ctx)
{
    const struct job_event *event = ctx->event;
    const Drover__JobData *data = job_data(ctx);
    struct err err;
    struct state_vm vm;
    if (event->type == JOB_OUTCOME)
        return;
    if (!job_vm(ctx, &vm) || strcmp(vm.owner, storage_host(ctx)) != 0) {
        err_set(&err, ERR_WRONG_STATE, "VM %s does not run on host %s any more", ctx->job->log.job->target,
            storage_host(ctx));
        job_fail(ctx, &err);
    } else if (event->type != JOB_REPLY) {
        Drover__StorageCheckRequest *request = pb_new(&drover__storage_check_request__descriptor);
        pb_string(&request->vm_id, vm.id);
        request->generation = vm.generation;
        request->move = pb_copy(data->storage);
        job_call(ctx, vm.owner, DROVER__METHOD__STORAGE_CHECK, request, JOB_CALL_MS);
    } else if (event->err && err_retryable(event->err->code) && job_within(ctx, JOB_SETTLE_MS)) {
        job_back_off(ctx, "waiting for host %s: %.150s", vm.owner, event->err->message);
    } else if (event->err) {
        job_fail(ctx, event->err);
    } else {
        cleanup_pb Drover__StorageCheckReply *reply = BOUNDED_UNPACK(storage_check_reply, event->body, event->len);
        if (!reply || !reply->target[0] || strlen(reply->target) > STATE_PATH_MAX || strlen(reply->format) > 16) {
            err_set(&err, ERR_PROTOCOL, "host %s did not say where the disk would go", vm.owner);
            job_fail(ctx, &err);
            return;
        }
        Drover__JobUpdate *update =
            job_done(ctx, "%s goes to %s (%s)", data->storage->disk, reply->target, reply->format);
        Drover__JobData *changed = job_update_data(ctx, update);
        pb_string(&changed->storage->target, reply->target);
        pb_string(&changed->storage->format, reply->format);
        changed->storage->file_system = reply->file_system;
        changed->storage->inode = reply->inode;
        changed->generation = vm.generation;
    }
}

enum copy_phase {
    COPY_ASK,   /* how it stands; a new leader knows less than the host */
    COPY_START, /* the host has been told to begin */
    COPY_FENCE, /* the host is made to decide */
};

static void copy_ask(struct job_ctx *ctx, bool fence)
{
    const Drover__JobData *data = job_data(ctx);
    Drover__StorageQueryRequest *request = pb_new(&drover__storage_query_request__descriptor);
    pb_string(&request->migration_id, data->migration_id);
    request->move = pb_copy(data->storage);
    request->fence = fence;
    pb_string(&request->vm_id, data->vm_id);
    request->generation = data->generation;
    ctx->job->phase = fence ? COPY_FENCE : COPY_ASK;
    job_call(ctx, storage_host(ctx), DROVER__METHOD__STORAGE_QUERY, request, JOB_CALL_MS);
}

static void copy_start(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    Drover__StorageMoveRequest *request = pb_new(&drover__storage_move_request__descriptor);
    request->key = job_key(ctx);
    pb_string(&request->migration_id, data->migration_id);
    pb_string(&request->vm_id, data->vm_id);
    request->generation = data->generation;
    request->move = pb_copy(data->storage);
    ctx->job->phase = COPY_START;
    job_call(ctx, storage_host(ctx), DROVER__METHOD__STORAGE_MOVE, request, JOB_CALL_MS);
}

static void copy_taken(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    uint32_t step = ctx->job->log.step;
    Drover__JobUpdate *update = job_resume(ctx, step + 1);
    char detail[512];
    snprintf(detail, sizeof detail, "the guest uses %.400s", data->storage->target);
    job_update_step(update, step, DROVER__STEP_STATE__STEP_DONE, detail);
    PB_ADD(update, effects,
        effect_vm_disk_put(data->vm_id, data->storage->disk, data->storage->target, data->storage->format));
}

/* Takes in what the host says of it; false: nothing that can be used, and the job waits. */
static bool copy_note(struct job_ctx *ctx)
{
    struct job_side *side = &ctx->job->migrating.source;
    if (ctx->event->type != JOB_REPLY)
        return side->heard;
    cleanup_pb Drover__MigrateQueryReply *reply =
        ctx->event->err ? NULL : BOUNDED_UNPACK(migrate_query_reply, ctx->event->body, ctx->event->len);
    if (!reply) {
        job_back_off(ctx, "waiting for host %s: %.150s", storage_host(ctx),
            ctx->event->err ? ctx->event->err->message : "its answer makes no sense");
        return false;
    }
    side->heard = true;
    side->outcome = reply->outcome;
    if (reply->error)
        pb_error_get(reply->error, &side->error);
    return true;
}

static void copy_in_doubt(struct job_ctx *ctx)
{
    job_back_off(ctx,
        "host %s cannot tell which file is the disk: %.200s. If it never will: `drover job cancel %" PRIu64
        " --disk FILE` says which, and removes nothing",
        storage_host(ctx), ctx->job->migrating.source.error.message, ctx->job->log.job->id);
}

static void copy_decide(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    struct err err;
    switch (job->migrating.source.outcome) {
    case DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN:
        copy_taken(ctx);
        return;
    case DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED:
        err = job->migrating.source.error;
        if (err.code == ERR_NONE)
            err_set(
                &err, ERR_JOB_FAILED, "host %s gave up copying %s", storage_host(ctx), job_data(ctx)->storage->disk);
        job_fail(ctx, &err);
        return;
    case DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN:
        if (job->migrating.started) /* the host has lost its memory: the files know */
            copy_ask(ctx, true);
        else
            copy_start(ctx);
        return;
    case DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT:
        copy_in_doubt(ctx);
        return;
    default:
        job->attempts = 0;
        job->phase = COPY_ASK;
        job_wait(ctx, STORAGE_POLL_MS, "%s", "");
    }
}

static void copy_started(struct job_ctx *ctx)
{
    const struct err *err = ctx->event->err;
    if (err && !err_retryable(err->code)) {
        job_fail(ctx, err);
        return;
    }
    ctx->job->phase = COPY_ASK;
    ctx->job->migrating.started = err == NULL;
    if (err)
        job_back_off(ctx, "waiting for host %s: %.150s", storage_host(ctx), err->message);
    else
        job_wait(ctx, STORAGE_POLL_MS, "%s", "");
}

static void run_copy(struct job_ctx *ctx)
{
    Drover__MigrationOutcome outcome = ctx->job->migrating.source.outcome;
    switch (ctx->event->type) {
    case JOB_ENTER:
    case JOB_TIMER:
        copy_ask(ctx, false);
        return;
    case JOB_REPLY:
        if (ctx->job->phase == COPY_START)
            copy_started(ctx);
        else if (copy_note(ctx))
            copy_decide(ctx);
        return;
    case JOB_OUTCOME:
        if (outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN ||
            outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED)
            copy_decide(ctx);
        return;
    case JOB_REFUSED:
        return;
    }
}

/* Somebody had to say so: the old file stays. */
static void copy_settled(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    const Drover__StorageMove *move = data->storage;
    Drover__JobUpdate *update =
        job_undone(ctx, "the disk is %.200s from now on; %.200s is left as it is", move->target, move->disk);
    PB_ADD(update, effects, effect_vm_disk_put(data->vm_id, move->disk, move->target, move->format));
}

static void undo_copy(struct job_ctx *ctx)
{
    if (ctx->event->type != JOB_REPLY) {
        copy_ask(ctx, true);
        return;
    }
    if (!copy_note(ctx))
        return;
    switch (ctx->job->migrating.source.outcome) {
    case DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN:
        if (job_data(ctx)->storage->settled[0])
            copy_settled(ctx);
        else
            copy_taken(ctx);
        return;
    case DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT:
        copy_in_doubt(ctx);
        return;
    case DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED:
        job_undone(ctx, "the guest uses %.400s, as before", job_data(ctx)->storage->disk);
        return;
    default:
        job_back_off(ctx, "waiting until host %s has stopped copying", storage_host(ctx));
    }
}

static void run_finish(struct job_ctx *ctx)
{
    const struct job_event *event = ctx->event;
    const Drover__StorageMove *move = job_data(ctx)->storage;
    char name[STATE_NAME_MAX];
    if (event->type == JOB_OUTCOME)
        return;
    if (event->type != JOB_REPLY) {
        Drover__StorageFinishRequest *request = pb_new(&drover__storage_finish_request__descriptor);
        request->key = job_key(ctx);
        pb_string(&request->migration_id, job_data(ctx)->migration_id);
        request->move = pb_copy(move);
        request->move->keep = move->keep || job_disk_named(ctx, move->disk, "", name);
        job_call(ctx, storage_host(ctx), DROVER__METHOD__STORAGE_FINISH, request, JOB_CALL_MS);
    } else if (event->err && err_retryable(event->err->code) && job_within(ctx, JOB_UNREACHABLE_MS)) {
        job_back_off(ctx, "waiting for host %s: %.150s", storage_host(ctx), event->err->message);
    } else if (event->err) {
        job_done(ctx, "%.200s is left where it is: %.200s", move->disk, event->err->message);
    } else {
        cleanup_pb Drover__StorageFinishReply *reply = BOUNDED_UNPACK(storage_finish_reply, event->body, event->len);
        job_done(ctx, "%.400s", reply ? reply->detail : "");
    }
}

/* The guest uses the new file and the definition says so: too late to cancel. */
static void undo_finish(struct job_ctx *ctx)
{
    job_resume(ctx, ctx->job->log.step);
}

const struct job_step_kind storage_steps[] = {
    {DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE, "check", run_check, NULL},
    {DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE, "copy", run_copy, undo_copy},
    {DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE, "finish", run_finish, undo_finish},
    {0},
};
