/* vm migrate: preflight -> queue -> prepare -> allow -> move -> finish. The ownership protocol of ARCHITECTURE.md as
 * steps; the preflight is in migrate_preflight.c, what to do about each way it can break off in migrate_undo.c.
 *
 * From `move` on the two hosts finish without the controllers. The controllers only listen (outcomes), ask (queries),
 * and put into the log what the hosts have decided among themselves. */
#include <inttypes.h>
#include <string.h>

#include "controller/foretold.h"
#include "controller/jobs/migrate.h"
#include "proto/bounded.h"

static void call_prepare(struct job_ctx *ctx)
{
    struct err err;
    struct state_host from;
    const Drover__JobData *data = job_data(ctx);
    Drover__VmSpec *spec = state_vm_spec(ctx->env->state, data->vm_id);
    if (!spec || !state_host(ctx->env->state, data->from_host, &from)) {
        pb_free(spec);
        err_set(&err, ERR_NOT_FOUND, "VM %s or host %s does not exist any more", ctx->job->log.job->target,
            data->from_host);
        job_fail(ctx, &err);
        return;
    }
    Drover__MigratePrepareRequest *request = pb_new(&drover__migrate_prepare_request__descriptor);
    request->key = job_key(ctx);
    request->spec = spec;
    pb_string(&request->migration_id, data->migration_id);
    pb_string(&request->vm_id, data->vm_id);
    request->generation = data->generation + 1;
    char key[KEY_TEXT];
    key_format(from.public_key, key);
    pb_string(&request->source_key, key);
    request->options = pb_copy(data->options);
    struct job_partition partition;
    if (ctx->env->partition(ctx->env->user, data->from_host, data->vm_id, &partition))
        request->uptime_ms = partition.uptime_ms;
    migrate_disks_prepare(ctx, request);
    job_call(ctx, data->host, DROVER__METHOD__MIGRATE_PREPARE, request, JOB_CALL_MS);
}

/* The leave to hand over goes into the log only once the destination listens, and before the source hears of it. */
static void run_prepare(struct job_ctx *ctx)
{
    const struct job_event *event = ctx->event;
    const Drover__JobData *data = job_data(ctx);
    if (event->type == JOB_OUTCOME)
        return;
    if (event->type != JOB_REPLY) {
        call_prepare(ctx);
        return;
    }
    if (event->err && err_retryable(event->err->code) && job_within(ctx, JOB_UNREACHABLE_MS)) {
        job_back_off(ctx, "waiting for host %s: %.150s", data->host, event->err->message);
        return;
    }
    if (event->err) {
        job_fail(ctx, event->err);
        return;
    }
    struct err err;
    cleanup_pb Drover__MigratePrepareReply *reply = BOUNDED_UNPACK(migrate_prepare_reply, event->body, event->len);
    if (!reply || !reply->address[0] || strlen(reply->address) >= WIRE_ADDRESS_MAX) {
        err_set(&err, ERR_PROTOCOL, "host %s did not say where it listens", data->host);
        job_fail(ctx, &err);
        return;
    }
    Drover__JobUpdate *update = job_done(ctx, "host %s listens at %s", data->host, reply->address);
    pb_string(&job_update_data(ctx, update)->address, reply->address);
}

static void run_allow(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    if (ctx->event->type == JOB_OUTCOME)
        return;
    Drover__JobUpdate *update = job_done(ctx, "host %s may hand over to host %s as generation %" PRIu64,
        data->from_host, data->host, data->generation + 1);
    PB_ADD(update, effects,
        effect_hand_over_allow(data->vm_id, data->from_host, data->generation, data->migration_id, data->host));
}

/* --- move --- */

enum move_phase {
    MOVE_ASK,             /* ask the source how it stands: it may know more than a new leader */
    MOVE_START,           /* it has been told to start */
    MOVE_WATCH,           /* under way; outcomes come by themselves, polls of both see to it that none is missed */
    MOVE_ASK_DESTINATION, /* how it stands there */
    MOVE_FENCE,           /* the destination is made to decide: taken, or never */
    MOVE_TELL,            /* it never took it, and the source, which goes on, is told */
};

static void move_call_start(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    Drover__MigrateStartRequest *request = pb_new(&drover__migrate_start_request__descriptor);
    request->key = job_key(ctx);
    pb_string(&request->migration_id, data->migration_id);
    pb_string(&request->vm_id, data->vm_id);
    request->generation = data->generation;
    request->hand_over = pb_new(&drover__hand_over__descriptor);
    pb_string(&request->hand_over->migration_id, data->migration_id);
    pb_string(&request->hand_over->to_host, data->host);
    request->hand_over->generation = data->generation + 1;
    pb_string(&request->address, data->address);
    pb_string(&request->destination_key, data->destination_key);
    request->options = pb_copy(data->options);
    request->way = foretold_way(ctx->env->state, data->vm_id, data->from_host, data->host);
    ctx->job->phase = MOVE_START;
    job_call(ctx, data->from_host, DROVER__METHOD__MIGRATE_START, request, JOB_CALL_MS);
}

static void move_fail(struct job_ctx *ctx, const char *what)
{
    struct job *job = ctx->job;
    struct err err;
    bool to_tell = job->migrating.source.unresumed; /* the user has to see to that */
    if (job->phase == MOVE_TELL && job->migrating.destination.error.code != ERR_NONE &&
        !to_tell) { /* the source ended of that */
        err = job->migrating.destination.error;
        err_wrap(&err, "host %s", job_data(ctx)->host);
        if (job->migrating.unanswered)
            err_wrap(&err, "host %s got no answer to its hand-over (see to the network between the two)",
                job_data(ctx)->from_host);
    } else if (job->migrating.source.error.code != ERR_NONE) {
        err = job->migrating.source.error;
    } else if (job->migrating.destination.error.code != ERR_NONE) {
        err = job->migrating.destination.error;
    } else {
        err_set(&err, ERR_JOB_FAILED, "migration of VM %s: %s", job->log.job->target, what);
    }
    job_fail(ctx, &err);
}

static void move_fence(struct job_ctx *ctx)
{
    ctx->job->phase = MOVE_FENCE;
    migrate_ask_destination(ctx, true);
}

static void move_tell(struct job_ctx *ctx)
{
    ctx->job->phase = MOVE_TELL;
    migrate_tell_source(ctx);
}

/* The destination has said that it never took it: that it never will is written down there. */
static bool move_engine_gone(struct job *job)
{
    job->migrating.destination_engine_gone =
        job->migrating.destination_engine_gone ||
        (job->migrating.destination.heard &&
            job->migrating.destination.outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    return job->migrating.destination_engine_gone;
}

/* It has been reset, or has ended the guest without being able to tell whether it ever ran there. */
static bool destination_knows_nothing(const struct job *job)
{
    return job->migrating.destination.heard &&
           (job->migrating.destination.outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN ||
               job->migrating.destination.outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT);
}

/* The source is at work, as far as is known. */
static void move_watch(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    if (move_engine_gone(job) && job->phase == MOVE_TELL) {
        job_back_off(ctx, "waiting until host %s has stopped sending", job_data(ctx)->from_host);
    } else if (job->migrating.destination_engine_gone) {
        move_tell(ctx);
    } else if (destination_knows_nothing(job)) {
        move_fence(ctx); /* its word that nothing will run there must be for good */
    } else if (migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_UNANSWERED) && job->phase != MOVE_FENCE) {
        job->migrating.unanswered = true;
        move_fence(ctx); /* the guest stands still: decided, unless it was taken, which is left alone */
    } else if (job->phase == MOVE_ASK) {
        job->phase = MOVE_ASK_DESTINATION;
        migrate_ask_destination(ctx, false);
    } else {
        job->phase = MOVE_WATCH;
        job_wait(ctx, MIGRATE_POLL_MS, "%s", "");
    }
}

/* Goes by what is known of both sides. */
static void move_decide(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    Drover__MigrationOutcome source =
        job->migrating.source.heard ? job->migrating.source.outcome : DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
    if (migrate_taken(job)) {
        migrate_commit_taken(ctx);
    } else if (source == DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED) {
        move_fail(ctx, "the source gave up");
    } else if (!job->migrating.source.heard || migrate_source_at_work(job)) {
        move_watch(ctx);
    } else if (move_engine_gone(job)) {
        move_fail(ctx, "host lost during the migration");
    } else if (source == DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN && !job->migrating.started) {
        move_call_start(ctx);
    } else if (job->phase == MOVE_FENCE && ctx->event->type == JOB_REPLY) {
        job_back_off(ctx, "waiting for host %s to decide", job_data(ctx)->host);
    } else { /* in doubt, or the source has lost all knowledge of it */
        move_fence(ctx);
    }
}

/* Nobody answers: keep asking both sides; the engines may well go on by themselves. */
static void move_unanswered(struct job_ctx *ctx, const struct err *err)
{
    struct job *job = ctx->job;
    if (job->phase == MOVE_ASK_DESTINATION && job->attempts == 0) {
        job->phase = MOVE_WATCH; /* the source has just said that it is at work */
        job_wait(ctx, MIGRATE_POLL_MS, "%s", "");
    } else if (job->phase == MOVE_TELL && !job_within(ctx, MIGRATE_LOST_MS)) {
        move_fail(ctx, "host lost during the migration");
    } else if (job->phase == MOVE_ASK && !job_within(ctx, MIGRATE_LOST_MS)) {
        move_fence(ctx);
    } else if (job->phase == MOVE_ASK && job->attempts % 2 == 1) {
        job->attempts++;
        job->phase = MOVE_ASK_DESTINATION;
        migrate_ask_destination(ctx, false);
    } else {
        const char *host = job->phase == MOVE_FENCE || job->phase == MOVE_ASK_DESTINATION ? job_data(ctx)->host
                                                                                          : job_data(ctx)->from_host;
        if (job->phase != MOVE_FENCE && job->phase != MOVE_TELL)
            job->phase = MOVE_ASK;
        job_back_off(ctx, "waiting for host %s: %.150s", host, err->message);
    }
}

static void move_started(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    const struct err *err = ctx->event->err;
    if (err && err_retryable(err->code)) {
        move_unanswered(ctx, err);
    } else if (err) {
        job_fail(ctx, err);
    } else {
        job->migrating.started = true;
        job->migrating.source.heard = false; /* what it said was before that */
        job->attempts = 0;
        move_decide(ctx);
    }
}

static void move_reply(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    struct err err;
    bool to_source = job->phase == MOVE_ASK || job->phase == MOVE_TELL;
    if (job->phase == MOVE_START) {
        move_started(ctx);
        return;
    }
    if (!migrate_note_reply(ctx, to_source ? &job->migrating.source : &job->migrating.destination, &err)) {
        move_unanswered(ctx, &err);
        return;
    }
    if (to_source) {
        job->attempts = job->phase == MOVE_TELL ? job->attempts : 0;
        job->since_ms = ctx->event->now_ms;
    } else if (job->phase == MOVE_FENCE && destination_knows_nothing(job)) {
        job->migrating.destination_engine_gone = true; /* it has lost it, if it ever had it */
    }
    if (job->phase == MOVE_ASK_DESTINATION && job->attempts > 0 && !migrate_taken(job) && !move_engine_gone(job)) {
        job->phase = MOVE_ASK; /* which is silent */
        job_back_off(ctx, "waiting for host %s", job_data(ctx)->from_host);
        return;
    }
    move_decide(ctx);
}

/* An outcome, told unasked: only what decides interrupts a call under way. */
static void move_told(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    bool telling = job->phase == MOVE_START || job->phase == MOVE_TELL;
    if (migrate_taken(job) || migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED) ||
        migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT) || (move_engine_gone(job) && !telling) ||
        (migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_UNANSWERED) && !telling &&
            job->phase != MOVE_FENCE))
        move_decide(ctx);
}

static void run_move(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    switch (ctx->event->type) {
    case JOB_ENTER:
    case JOB_TIMER:
        if (job->phase == MOVE_FENCE) {
            move_fence(ctx);
        } else if (job->phase == MOVE_TELL) {
            move_tell(ctx);
        } else {
            job->phase = MOVE_ASK;
            migrate_ask_source(ctx);
        }
        return;
    case JOB_REPLY:
        move_reply(ctx);
        return;
    case JOB_OUTCOME:
        move_told(ctx);
        return;
    case JOB_REFUSED:
        return;
    }
}

/* --- finish --- */

enum finish_phase {
    FINISH_RECORD, /* the source has the record of the rounds; it may still be closing */
    FINISH_END,    /* what is left on the source is ended */
    FINISH_LEAVE,  /* and its files of the disks are removed */
    FINISH_LISTEN, /* until the guest was heard; nothing depends on it any more */
};

static void finish_end_source(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    ctx->job->phase = FINISH_END;
    if (!migrate_source_is(ctx->job, DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT)) {
        job_call_end_partition(ctx, data->from_host, data->generation);
        return;
    }
    Drover__MigrateResolveRequest *request = pb_new(&drover__migrate_resolve_request__descriptor);
    pb_string(&request->migration_id, data->migration_id);
    pb_string(&request->vm_id, data->vm_id);
    request->generation = data->generation;
    job_call(ctx, data->from_host, DROVER__METHOD__MIGRATE_RESOLVE, request, MIGRATE_CALL_MS);
}

/* The destination had the guest and has it no more, or has it and does not see it run. */
static bool finish_lost(const struct job *job)
{
    const struct job_side *destination = &job->migrating.destination;
    return destination->heard && destination->outcome == DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN &&
           destination->error.code != ERR_NONE;
}

static void finish_done(struct job_ctx *ctx, const char *note)
{
    const struct job_side *destination = &ctx->job->migrating.destination;
    bool lost = finish_lost(ctx->job);
    char kept[MIGRATE_NOTE_MAX];
    const char *what = !lost ? "runs on" : destination->unresumed ? "is not seen to run on" : "was lost on";
    Drover__JobUpdate *update =
        job_done(ctx, "%s host %s%s%s", what, job_data(ctx)->host, note, migrate_disks_kept(ctx, kept));
    migrate_update_record(ctx, update);
    if (lost && update->state == DROVER__JOB_STATE__JOB_SUCCEEDED) {
        update->state = DROVER__JOB_STATE__JOB_FAILED;
        update->error = pb_error(&destination->error);
    }
}

/* All is done. What may still come is when the guest was heard: most are by now, and one that has nothing to say is not
 * waited for long. */
static void finish_over(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    if (!job->migrating.listens || job->migrating.heard_us || !job_within(ctx, MIGRATE_HEARD_MS)) {
        finish_done(ctx, "");
        return;
    }
    job->phase = FINISH_LISTEN;
    job_wait(ctx, MIGRATE_HEARD_MS - (uint32_t)(ctx->event->now_ms - job->since_ms), "%s", "");
}

/* The partition has ended there. */
static void finish_left(struct job_ctx *ctx)
{
    ctx->job->phase = FINISH_LEAVE;
    if (!migrate_disks_leave(ctx))
        finish_over(ctx);
}

static void finish_ended(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    const struct err *err = ctx->event->err;
    if (migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT) && (!err || !err_retryable(err->code))) {
        /* It knows now, from us or by itself, and has begun to end it; its disks are in use until it has. */
        job->migrating.source.outcome = DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
        finish_end_source(ctx);
    } else if (!err) {
        finish_left(ctx);
    } else if (job_within(ctx, MIGRATE_FAREWELL_MS)) {
        job_back_off(ctx, "waiting for host %s: %.150s", job_data(ctx)->from_host, err->message);
    } else {
        finish_done(ctx, "; the source host will be told when it is back");
    }
}

/* It has told what it has seen; or it is in doubt, has seen nothing more, and waits for us. */
static bool finish_source_over(const struct job *job)
{
    return migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT) ||
           (migrate_source_is(job, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN) && job->record);
}

static void run_finish(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    struct err err;
    if (ctx->event->type == JOB_OUTCOME) {
        if (job->phase == FINISH_RECORD && finish_source_over(job))
            finish_end_source(ctx);
        else if (job->phase == FINISH_LISTEN)
            finish_over(ctx);
        return;
    }
    if (ctx->event->type != JOB_REPLY) {
        if (job->phase == FINISH_LISTEN)
            finish_over(ctx);
        else if (job->phase != FINISH_RECORD || finish_source_over(job))
            finish_end_source(ctx);
        else if (finish_lost(job)) /* nobody will answer its engine any more */
            migrate_tell_source(ctx);
        else
            migrate_ask_source(ctx);
        return;
    }
    if (job->phase == FINISH_END) {
        finish_ended(ctx);
        return;
    }
    if (job->phase == FINISH_LEAVE) {
        const struct err *away = ctx->event->err;
        if (away && err_retryable(away->code) && job_within(ctx, MIGRATE_FAREWELL_MS))
            job_back_off(ctx, "waiting for host %s: %.150s", job_data(ctx)->from_host, away->message);
        else if (away)
            finish_done(ctx, "; its old files are left on the source host");
        else
            finish_over(ctx);
        return;
    }
    bool heard = migrate_note_reply(ctx, &job->migrating.source, &err);
    bool closing = !heard || migrate_source_at_work(job);
    if (closing && job_within(ctx, MIGRATE_RECORD_MS)) {
        job_back_off(ctx, "waiting for the record of host %s", job_data(ctx)->from_host);
    } else if (closing && heard && !job->migrating.destination_engine_gone) {
        job->migrating.destination_engine_gone =
            true; /* nobody answers its engine any more: it is to be in doubt, and can be told */
        migrate_tell_source(ctx);
    } else {
        finish_end_source(ctx);
    }
}

const struct job_step_kind migrate_steps[] = {
    {DROVER__JOB_KIND__JOB_VM_MIGRATE, "preflight", migrate_preflight, NULL},
    {DROVER__JOB_KIND__JOB_VM_MIGRATE, "queue", migrate_queue, NULL},
    {DROVER__JOB_KIND__JOB_VM_MIGRATE, "prepare", run_prepare, migrate_undo},
    {DROVER__JOB_KIND__JOB_VM_MIGRATE, "allow", run_allow, migrate_undo},
    {DROVER__JOB_KIND__JOB_VM_MIGRATE, "move", run_move, migrate_undo},
    {DROVER__JOB_KIND__JOB_VM_MIGRATE, "finish", run_finish, migrate_undo_finish},
    {DROVER__JOB_KIND__JOB_VM_FORECAST, "preflight", migrate_preflight, NULL},
    {DROVER__JOB_KIND__JOB_VM_FORECAST, "forecast", migrate_run_forecast, NULL},
    {0},
};
