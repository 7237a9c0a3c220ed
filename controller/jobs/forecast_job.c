/* vm migrate --dry-run: preflight -> forecast. Nothing moves, so there is nothing to undo; cancelled, the engine that
 * watches the guest ends by itself within seconds. */
#include "controller/foretold.h"
#include "controller/jobs/migrate.h"
#include "proto/bounded.h"

static void call_forecast(struct job_ctx *ctx)
{
    struct job_host to;
    const Drover__JobData *data = job_data(ctx);
    if (!job_host_ready(ctx, data->host, &to))
        return;
    Drover__MigrateForecastRequest *request = pb_new(&drover__migrate_forecast_request__descriptor);
    pb_string(&request->vm_id, data->vm_id);
    request->generation = data->generation;
    pb_string(&request->to_address, to.facts->migration_address);
    request->options = pb_copy(data->options);
    request->way = foretold_way(ctx->env->state, data->vm_id, data->from_host, data->host);
    job_call(ctx, data->from_host, DROVER__METHOD__MIGRATE_FORECAST, request, JOB_CALL_MS);
}

static void forecast_heard(struct job_ctx *ctx)
{
    struct err err;
    cleanup_pb Drover__MigrateForecastReply *reply =
        BOUNDED_UNPACK(migrate_forecast_reply, ctx->event->body, ctx->event->len);
    if (!reply || !reply->forecast) {
        err_set(&err, ERR_PROTOCOL, "host %s gave no forecast", job_data(ctx)->from_host);
        job_fail(ctx, &err);
        return;
    }
    pb_free(ctx->job->record);
    ctx->job->record = pb_new(&drover__migration_record__descriptor);
    ctx->job->record->forecast = reply->forecast;
    reply->forecast = NULL;
    foretold_bound(ctx->job->record->forecast);
    Drover__JobUpdate *update =
        job_done(ctx, "%s: %s", ctx->job->record->forecast->mode, ctx->job->record->forecast->why);
    migrate_update_record(ctx, update);
}

void migrate_run_forecast(struct job_ctx *ctx)
{
    const struct job_event *event = ctx->event;
    if (event->type == JOB_OUTCOME)
        return;
    if (event->type != JOB_REPLY)
        call_forecast(ctx);
    else if (!event->err)
        forecast_heard(ctx);
    else if (err_retryable(event->err->code) && job_within(ctx, JOB_UNREACHABLE_MS))
        job_back_off(ctx, "waiting for host %s: %.150s", job_data(ctx)->from_host, event->err->message);
    else
        job_fail(ctx, event->err);
}
