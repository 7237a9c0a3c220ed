/* A migration that failed or was cancelled, undone; and what both ways share.
 *
 * The destination's fence is what counts: asked with `fence` it decides for good. So where a source may have handed
 * over, the leave in the log is taken back only after the destination has answered, however long that takes; until then
 * nobody else may run the VM. A source that has given up, or was never told to begin, cannot have: then a destination
 * that does not answer is not waited for, because it may be away for good.
 *
 *   source \ destination | taken         | aborted                | knows nothing, in doubt | silent
 *   ---------------------+---------------+------------------------+-------------------------+-----------------
 *   never told, aborted  | moved: finish | leave taken back       | the same                | the same
 *   unknown              | moved: finish | leave taken back       | the same                | wait for it
 *   in doubt             | moved: finish | renewed as g+2, resume | nobody may run it: stop | wait for it
 *   silent               | moved: finish | leave taken back       | wait for the source     | wait for both
 *
 * A source that is still under way when the destination has spoken is told so, ends its engine, and is then in one of
 * the first three rows.
 */
#include <inttypes.h>
#include <string.h>

#include "controller/jobs/home.h"
#include "controller/jobs/migrate.h"
#include "proto/bounded.h"

static void ask(struct job_ctx *ctx, const char *host, bool fence)
{
    Drover__MigrateQueryRequest *request = pb_new(&drover__migrate_query_request__descriptor);
    pb_string(&request->migration_id, job_data(ctx)->migration_id);
    request->fence = fence;
    job_call(ctx, host, DROVER__METHOD__MIGRATE_QUERY, request, MIGRATE_CALL_MS);
}

void migrate_ask_source(struct job_ctx *ctx)
{
    ask(ctx, job_data(ctx)->from_host, false);
}

void migrate_ask_destination(struct job_ctx *ctx, bool fence)
{
    ask(ctx, job_data(ctx)->host, fence);
}

static void cancel(struct job_ctx *ctx, bool destination_gone)
{
    Drover__MigrateCancelRequest *request = pb_new(&drover__migrate_cancel_request__descriptor);
    pb_string(&request->migration_id, job_data(ctx)->migration_id);
    request->destination_gone = destination_gone;
    job_call(ctx, job_data(ctx)->from_host, DROVER__METHOD__MIGRATE_CANCEL, request, MIGRATE_CALL_MS);
}

void migrate_tell_source(struct job_ctx *ctx)
{
    cancel(ctx, true);
}

bool migrate_source_is(const struct job *job, Drover__MigrationOutcome outcome)
{
    return job->migrating.source.heard && job->migrating.source.outcome == outcome;
}

bool migrate_source_at_work(const struct job *job)
{
    return migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY) ||
           migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_UNANSWERED);
}

bool migrate_note_reply(struct job_ctx *ctx, struct job_side *side, struct err *err)
{
    struct job *job = ctx->job;
    if (ctx->event->err) {
        *err = *ctx->event->err;
        return false;
    }
    cleanup_pb Drover__MigrateQueryReply *reply =
        BOUNDED_UNPACK(migrate_query_reply, ctx->event->body, ctx->event->len);
    if (!reply) {
        err_set(err, ERR_PROTOCOL, "not an answer to a query");
        return false;
    }
    side->heard = true;
    side->outcome = reply->outcome;
    side->unresumed = reply->unresumed;
    if (reply->error)
        pb_error_get(reply->error, &side->error);
    if (reply->record && (side == &job->migrating.source || !job->record)) {
        pb_free(job->record);
        job->record = reply->record;
        reply->record = NULL;
        job_record_bound(job->record);
    }
    return true;
}

bool migrate_taken(const struct job *job)
{
    return (job->migrating.destination.heard &&
               job->migrating.destination.outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN) ||
           migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
}

void migrate_update_record(struct job_ctx *ctx, Drover__JobUpdate *update)
{
    if (!ctx->job->record)
        return;
    update->migration = pb_copy(ctx->job->record);
    pb_string(&update->migration->migration_id, job_data(ctx)->migration_id);
    pb_string(&update->migration->from_host, job_data(ctx)->from_host);
    pb_string(&update->migration->to_host, job_data(ctx)->host);
    if (ctx->job->migrating.heard_us && ctx->job->record->blackout_us)
        update->migration->network_blackout_us = ctx->job->record->blackout_us + ctx->job->migrating.heard_us;
}

void migrate_commit_taken(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    uint32_t move = ctx->job->log.step;
    Drover__JobUpdate *update = job_resume(ctx, move + 1);
    char detail[128];
    snprintf(detail, sizeof detail, "host %s owns it as generation %" PRIu64, data->host, data->generation + 1);
    job_update_step(update, move, DROVER__STEP_STATE__STEP_DONE, detail);
    PB_ADD(update, effects, effect_hand_over_taken(data->vm_id, data->migration_id));
    migrate_disks_taken(ctx, update);
    char home[STATE_NAME_MAX];
    if (data->disks || home_of(ctx->env->state, data->vm_id, home))
        PB_ADD(update, effects, home_put(data->vm_id, data->host));
    migrate_update_record(ctx, update);
}

enum undo_phase {
    UNDO_SOURCE, /* tell it to stop; its answer is how it stands */
    UNDO_LOOK,   /* it goes on: maybe the destination is gone already */
    UNDO_FENCE,  /* the destination decides: taken, or never */
    UNDO_TELL,   /* it is gone, and the source is told */
    UNDO_LISTEN, /* the destination knows nothing: the source's word is needed */
    UNDO_RESUME, /* the source in doubt is told to run on */
};

static bool step_is_move(const struct job_ctx *ctx)
{
    return strcmp(ctx->job->log.job->steps[ctx->job->log.step]->name, "move") == 0;
}

static void undo_call(struct job_ctx *ctx, int phase)
{
    const Drover__JobData *data = job_data(ctx);
    ctx->job->phase = phase;
    if (phase == UNDO_SOURCE) {
        cancel(ctx, false);
    } else if (phase == UNDO_LOOK || phase == UNDO_FENCE) {
        migrate_ask_destination(ctx, phase == UNDO_FENCE);
    } else if (phase == UNDO_TELL) {
        migrate_tell_source(ctx);
    } else if (phase == UNDO_LISTEN) {
        migrate_ask_source(ctx);
    } else {
        Drover__MigrateResolveRequest *resolve = pb_new(&drover__migrate_resolve_request__descriptor);
        pb_string(&resolve->migration_id, data->migration_id);
        pb_string(&resolve->vm_id, data->vm_id);
        resolve->generation = data->generation;
        resolve->resume = true;
        job_call(ctx, data->from_host, DROVER__METHOD__MIGRATE_RESOLVE, resolve, MIGRATE_CALL_MS);
    }
}

static void undo_clear(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    Drover__JobUpdate *update = job_undone(ctx, "VM %s runs on on host %s", ctx->job->log.job->target, data->from_host);
    PB_ADD(update, effects, effect_hand_over_clear(data->vm_id, data->migration_id));
    migrate_update_record(ctx, update);
}

/* The destination never ran it and never will: the VM stays with the source, under a generation nobody has been
 * offered. */
static void undo_renew(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    Drover__JobUpdate *update = job_go_on_undoing(ctx);
    uint64_t generation = data->generation + 2;
    PB_ADD(update, effects, effect_vm_renew(data->vm_id, data->from_host, generation, data->migration_id));
    Drover__JobData *changed = job_update_data(ctx, update);
    changed->generation = generation;
    changed->resume = true;
}

/* The destination may have run it and lost it. Resuming the source's older memory on a disk that has moved on would
 * corrupt it, so the VM ends as stopped. Where it took its disks along, the newer ones may be those on the destination,
 * and the definition names the source's: which to go on with nobody here can say. The source's paused partition is
 * ended once the fleet sees that nobody owns it. */
static void undo_stop(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    const Drover__Job *job = ctx->job->log.job;
    char next[MIGRATE_NEXT_MAX];
    migrate_disks_next(ctx, next);
    Drover__JobUpdate *update = job_undone(
        ctx, "host %s had taken nothing it still knows of: VM %s is stopped; %s", data->host, job->target, next);
    if (!job_cancelled(job) && job->error) {
        struct err err;
        pb_error_get(job->error, &err);
        err_wrap(&err, "VM %s is stopped, because host %s may have run it and knows nothing of it; %s", job->target,
            data->host, next);
        update->error = pb_error(&err);
    }
    PB_ADD(update, effects, effect_vm_release(data->vm_id, data->from_host, data->generation, data->migration_id));
    if (data->disks)
        PB_ADD(update, effects, home_put(data->vm_id, HOME_UNKNOWN));
    migrate_update_record(ctx, update);
}

static void undo_tell(struct job_ctx *ctx)
{
    ctx->job->attempts = 0;
    ctx->job->since_ms = ctx->event->now_ms;
    undo_call(ctx, UNDO_TELL);
}

/* After the destination's answer. */
static void undo_decide(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    bool doubt = migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT);
    bool settled = migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED) ||
                   migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN);
    if (migrate_source_at_work(job) && job->phase != UNDO_TELL) {
        undo_tell(ctx);
    } else if (job->migrating.destination.outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED) {
        if (doubt)
            undo_renew(ctx);
        else
            undo_clear(ctx);
    } else if (!step_is_move(ctx) || settled) { /* unknown to the destination */
        undo_clear(ctx);
    } else if (doubt) {
        undo_stop(ctx);
    } else if (ctx->event->type == JOB_REPLY && job->phase == UNDO_LISTEN) {
        job_back_off(ctx, "waiting for host %s: VM %s is in doubt", job_data(ctx)->from_host, job->log.job->target);
    } else {
        undo_call(ctx, UNDO_LISTEN);
    }
}

/* What the source has answered to a cancel, or to the word that the destination is gone. */
static void undo_source_replied(struct job_ctx *ctx, bool heard)
{
    struct job *job = ctx->job;
    bool closing = !heard || job->migrating.source.outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
    bool within = job_within(ctx, MIGRATE_FAREWELL_MS);
    if (closing && within && heard && job->phase == UNDO_SOURCE)
        undo_call(ctx, UNDO_LOOK);
    else if (closing && within)
        job_back_off(ctx, "waiting until host %s has stopped sending", job_data(ctx)->from_host);
    else if (job->phase == UNDO_TELL)
        undo_decide(ctx);
    else
        undo_call(ctx, UNDO_FENCE);
}

/* Nobody can hand the guest over to the destination any more, whatever that holds: the source was never told that it
 * may, or its word that it has given up is for good. */
static bool nobody_hands_over(const struct job_ctx *ctx)
{
    return !step_is_move(ctx) || migrate_source_is(ctx->job, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED);
}

/* What the destination has. */
static void undo_destination_replied(struct job_ctx *ctx, bool heard)
{
    struct job *job = ctx->job;
    const Drover__JobData *data = job_data(ctx);
    bool decided = heard && job->migrating.destination.outcome != DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
    if (job->phase == UNDO_LOOK && decided) {
        undo_call(ctx, UNDO_FENCE);
    } else if (job->phase == UNDO_LOOK) {
        job->phase = UNDO_SOURCE;
        job_back_off(ctx, "waiting until host %s has stopped sending", data->from_host);
    } else if (!heard && nobody_hands_over(ctx) && !job_within(ctx, MIGRATE_FAREWELL_MS)) {
        undo_clear(ctx); /* a host may be away for good; what is left there is ended when it is back */
    } else if (!decided) {
        job_back_off(ctx, "waiting for host %s to give up VM %s", data->host, job->log.job->target);
    } else {
        job->migrating.destination_engine_gone = true;
        undo_decide(ctx);
    }
}

static void undo_reply(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    const Drover__JobData *data = job_data(ctx);
    struct err err;
    if (job->phase == UNDO_RESUME) {
        if (ctx->event->err && job_within(ctx, MIGRATE_FAREWELL_MS))
            job_back_off(ctx, "waiting for host %s: %.150s", data->from_host, ctx->event->err->message);
        else
            undo_clear(ctx);
        return;
    }
    bool of_destination = job->phase == UNDO_LOOK || job->phase == UNDO_FENCE;
    bool heard = migrate_note_reply(ctx, of_destination ? &job->migrating.destination : &job->migrating.source, &err);
    if (migrate_taken(job))
        migrate_commit_taken(ctx);
    else if (of_destination)
        undo_destination_replied(ctx, heard);
    else if (job->phase == UNDO_LISTEN)
        undo_decide(ctx);
    else
        undo_source_replied(ctx, heard);
}

static int undo_first(struct job_ctx *ctx)
{
    if (job_data(ctx)->resume)
        return UNDO_RESUME;
    if (!step_is_move(ctx))
        return UNDO_FENCE;
    return ctx->job->migrating.destination_engine_gone ? UNDO_TELL : UNDO_SOURCE;
}

void migrate_undo(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    switch (ctx->event->type) {
    case JOB_ENTER:
        undo_call(ctx, undo_first(ctx));
        return;
    case JOB_TIMER:
        undo_call(ctx, job->phase);
        return;
    case JOB_REPLY:
        undo_reply(ctx);
        return;
    case JOB_OUTCOME:
    case JOB_REFUSED:
        return;
    }
}

void migrate_undo_finish(struct job_ctx *ctx)
{
    job_resume(ctx, ctx->job->log.step);
}
