/* MIGRATE_FORECAST: an engine that only watches the guest and says how a migration would go. Nothing is recorded,
 * because nothing follows from it: it dies with its hostd. But like every engine that is killed it may leave the guest
 * waiting (let_go.c), so its files are removed only once the guest has been let go of, by this hostd or the next. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/crashpoint.h"
#include "hostd/partition/private.h"
#include "hostd/text.h"
#include "proto/api.pb-c.h"

static int forecast_created(void *user, struct process_id id, struct err *err)
{
    (void)user, (void)id, (void)err;
    return 0;
}

static void forecast_changed(void *user, enum report_change change)
{
    (void)user, (void)change; /* all is said at the end */
}

/* Nobody waits for its engine any more. */
static void forecast_over(struct partition *p)
{
    engine_remove_files(p->directory);
    if (!p->guest) { /* it died meanwhile */
        char why[RECORD_TEXT_MAX];
        text_print(why, sizeof why, p->record.detail);
        partition_guest_dead(p, p->shut_down, why);
    }
}

static void forecast_ended(void *user, const char *why)
{
    struct partition *p = user;
    struct report report;
    bool let_go = decide_let_go(false, RECORD_NONE, p->guest != NULL, engine_in_order(p->forecaster));
    crashpoint("hostd", "forecast-ended");
    engine_take_report(p->forecaster, &report);
    engine_free(p->forecaster);
    p->forecaster = NULL;
    Drover__MigrateForecastReply reply = DROVER__MIGRATE_FORECAST_REPLY__INIT;
    reply.forecast = report.record ? report.record->forecast : NULL;
    if (reply.forecast) {
        wire_reply(p->forecasting, &reply.base);
    } else {
        struct err err;
        err_set(&err, report.failed ? report.failure.code : ERR_UNAVAILABLE, "no forecast: %s", why);
        wire_reply_error(p->forecasting, &err);
    }
    p->forecasting = NULL;
    report_clear(&report);
    if (let_go)
        let_go_begin(p, forecast_over);
    else
        forecast_over(p);
}

void forecast_adopt(struct partition *p)
{
    if (engine_has_files(p->directory))
        let_go_begin(p, forecast_over);
}

void forecast_drop(struct partition *p)
{
    if (!p->forecaster)
        return;
    struct err err;
    err_set(&err, ERR_WRONG_STATE, "the partition is ending, or hostd is");
    wire_reply_error(p->forecasting, &err);
    p->forecasting = NULL;
    engine_abandon(p->forecaster);
    p->forecaster = NULL;
}

static int forecast_check(struct partition *p, const Drover__MigrateForecastRequest *m, struct err *err)
{
    if (!p)
        return err_set(err, ERR_NOT_FOUND, "no partition of VM %.64s is on this host", m->vm_id);
    if (p->record.generation != m->generation || p->record.state != STATE_RUNNING || !p->guest)
        return err_set(err, ERR_WRONG_STATE, "generation %" PRIu64 " is %s here; a forecast needs %" PRIu64 " running",
            p->record.generation, state_name(p->record.state), m->generation);
    if (standstill_check(p, err) < 0)
        return -1;
    if (p->engine || p->lingering || p->forecaster || p->moving || p->aftermath != AFTERMATH_NONE)
        return err_set(err, ERR_BUSY, "an engine is at work on it; try again in some seconds");
    if (!m->to_address[0] || strlen(m->to_address) > 64 ||
        strspn(m->to_address, "0123456789abcdefABCDEF.:") != strlen(m->to_address))
        return err_set(err, ERR_INVALID, "'%.64s' is not the address of a host", m->to_address);
    return 0;
}

void migrate_forecast(struct partitions *ps, const Drover__MigrateForecastRequest *m, struct wire_request *request)
{
    struct err err;
    char ram[PATH_MAX], address[WIRE_ADDRESS_MAX];
    struct partition *p = paths_vm_id_ok(m->vm_id) ? partition_find(ps, m->vm_id) : NULL;
    if (forecast_check(p, m, &err) < 0 || migration_check_options(m->options, &err) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    snprintf(address, sizeof address, strchr(m->to_address, ':') ? "tcp://[%s]:0" : "tcp://%s:0", m->to_address);
    const struct engine_config config = {
        .program = ps->env.options->engine,
        .role = ENGINE_FORECAST,
        .migration_id = "forecast",
        .key_file = ps->env.options->key,
        .peer_key = "-",
        .directory = p->directory,
        .ram_path = paths_ram(ps->env.options->memory_directory, p->record.vm_id, ram),
        .spec = p->record.spec,
        .guest = p->record.guest,
        .address = address,
        .options = m->options,
        .way = m->way,
    };
    const struct engine_events events = {forecast_created, forecast_changed, forecast_ended, p};
    if (engine_start(ps->env.loop, &config, &events, &err, &p->forecaster) < 0)
        wire_reply_error(request, &err);
    else
        p->forecasting = request;
    crashpoint("hostd", "forecast-begun");
}
