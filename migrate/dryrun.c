#include "migrate/dryrun.h"

#include "base/ensure.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/control.h"
#include "migrate/quota.h"
#include "migrate/report.h"
#include "migrate/survey.h"

/* Long enough for writers that come in bursts: the longest window is 2.56 s. */
#define DRYRUN_MS     2600u
#define LAST_WORDS_MS 1000u

struct dryrun {
    uv_loop_t loop;
    struct control *control;
    struct ram ram;
    struct tracker *tracker;
    struct survey *survey;
    struct report report;
    bool told;
};

static void dryrun_fail(struct dryrun *d, const struct err *err)
{
    log_event(LOG_ERROR, "forecast.failed", "code=%s message=%s", err_name(err->code), LOG_QUOTE(err->message));
    if (d->control)
        control_event(
            d->control, "failed", json_pack("{s:s, s:s}", "code", err_name(err->code), "message", err->message), true);
    uv_stop(&d->loop);
}

static void dryrun_on_command(void *user, const struct control_command *command)
{
    struct err err;
    if (command->verb != CONTROL_CANCEL)
        return; /* it sends nothing, and is over in moments */
    err_set(&err, ERR_CANCELLED, "cancelled on request");
    dryrun_fail(user, &err);
}

static void dryrun_surveyed(void *user, const struct err *err)
{
    struct dryrun *d = user;
    struct forecast forecast;
    if (err) {
        dryrun_fail(d, err);
        return;
    }
    const struct forecast_input *input = survey_input(d->survey);
    forecast_make(input, &forecast);
    d->told = true;
    control_event(d->control, "forecast", report_forecast(&d->report, &forecast, input), true);
    uv_stop(&d->loop);
}

static int dryrun_begin(struct dryrun *d, const struct options *options, struct err *err)
{
    struct options_policy chosen;
    if (options_policy(options, err, &chosen) < 0 ||
        control_open(&d->loop, options->control_socket, dryrun_on_command, d, err, &d->control) < 0 ||
        ram_open(options->ram_file, options->ram_bytes, err, &d->ram) < 0)
        return -1;
    if (tracker_open(chosen.tracker, (pid_t)options->qemu_pid, &d->ram, err, &d->tracker) < 0)
        return -1;
    struct bitmap allocated = bitmap_new(d->ram.pages);
    struct quota quota;
    quota_init(&quota);
    quota_limit(&quota, QUOTA_ASKED, options->bandwidth);
    quota_limit(&quota, QUOTA_HERE, options->share);
    int rc = ram_allocated(&d->ram, err, &allocated);
    const struct survey_options survey = {
        .ram = &d->ram,
        .tracker = d->tracker,
        .allocated = &allocated,
        .options = options,
        .chosen = chosen,
        .limits = options_limits(options, &chosen),
        .bytes_per_s = quota_bytes_per_s(&quota),
        .longest_ms = DRYRUN_MS,
        .whole = true,
        .on_done = dryrun_surveyed,
        .user = d,
    };
    if (rc == 0)
        d->survey = survey_start(&d->loop, &survey);
    bitmap_free(&allocated);
    return rc;
}

static void dryrun_waited(void *user)
{
    uv_stop(user);
}

static void dryrun_close(struct dryrun *d)
{
    survey_free(d->survey);
    tracker_close(d->tracker);
    ram_close(&d->ram);
    report_free(&d->report);
    control_close(d->control);
    struct loop_timer *bound = loop_timer_new(&d->loop, dryrun_waited, &d->loop);
    loop_timer_start(bound, LAST_WORDS_MS, 0);
    loop_timer_unref(bound);
    uv_run(&d->loop, UV_RUN_DEFAULT);
    loop_timer_free(bound);
    loop_close(&d->loop);
}

int dryrun_run(const struct options *options)
{
    struct dryrun d = {.ram = {.fd = -1}};
    struct err err;
    ENSURE(uv_loop_init(&d.loop) == 0);
    if (dryrun_begin(&d, options, &err) < 0)
        dryrun_fail(&d, &err);
    else
        uv_run(&d.loop, UV_RUN_DEFAULT);
    bool told = d.told;
    dryrun_close(&d);
    return told ? 0 : 1;
}
