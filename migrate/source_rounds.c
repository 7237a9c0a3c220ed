/* What travels while the guest runs: rounds of pre-copy, and naming pages for post-copy. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/source_private.h"
#include "proto/bounded.h"

/* The longest look before the first byte: a guest whose verdict is clear is watched for 10 ms. */
#define SURVEY_MS 320u

/* ---- towards post-copy ---- */

static void source_flushed(void *user);

/* Names what is stale by now, while the guest still runs: freeing it on the destination takes a while. */
static void source_name(struct source *s)
{
    struct err err;
    if (source_scan(s, &err) < 0) {
        source_fail(s, &err);
        return;
    }
    s->naming = true;
    pusher_name(s->pusher, &s->dirty);
}

static void source_on_pusher_ready(void *user)
{
    struct source *s = user;
    if (s->phase != SOURCE_PRECOPY)
        return;
    if (s->naming)
        source_begin_switch(s);
    else if (s->flushed)
        source_name(s);
    else
        side_flush(&s->side, source_flushed, s);
}

static struct pusher *source_new_pusher(struct source *s)
{
    const struct pusher_options options = {
        .side = &s->side,
        .peer = wire_client_peer(s->client),
        .on_ready = source_on_pusher_ready,
        .on_failed = source_on_sender_failed,
        .user = s,
    };
    s->report.mode = s->report.rounds ? "hybrid" : "postcopy";
    return pusher_new(&options);
}

static void source_begin_postcopy(struct source *s)
{
    s->pusher = source_new_pusher(s);
    pusher_arm(s->pusher);
    crashpoint("source", "postcopy-asked");
}

/* An earlier engine of this migration has recorded the hand-over and died before the destination had all pages. Whether
 * it had sent the hand-over nobody knows, so it is sent again, as that engine would have done. */
void source_take_over(struct source *s)
{
    source_move(s, SOURCE_HANDED_OVER);
    s->pusher = source_new_pusher(s);
    pusher_inherit(s->pusher);
    loop_timer_free(s->deadline);
    s->deadline = loop_timer_new(&s->side.loop, source_hand_over, s);
    s->hand_over_ns = clock_now_ns();
    source_hand_over(s);
}

/* The destination says that all pages are there: this ends post-copy. */
static void source_take_postcopy(struct source *s, const Drover__EngineAllHere *told)
{
    struct pusher_stats stats;
    pusher_stats(s->pusher, &stats);
    s->report.wire_bytes += stats.pushed.wire_bytes + stats.demanded_wire_bytes;
    s->report.raw_bytes += stats.pushed.raw_bytes + stats.demanded_pages * PAGE_BYTES;
    classes_add(&s->report.classes, &stats.pushed.classes);
    s->report.postcopied = true;
    s->report.postcopy = (struct report_postcopy){
        .duration_us = told->duration_us,
        .stale_pages = stats.stale_pages,
        .demanded_pages = told->demanded_pages,
        .zero_faults = told->zero_faults,
        .late_copies = told->late_copies,
        .wire_bytes = stats.pushed.wire_bytes + stats.demanded_wire_bytes,
        .wait_p50_us = told->wait_p50_us,
        .wait_p99_us = told->wait_p99_us,
        .wait_max_us = told->wait_max_us,
        .resumes = stats.resumes,
    };
}

void source_on_all_here(struct source *s, struct wire_request *request, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineAllHere *told = BOUNDED_UNPACK(engine_all_here, body, len);
    bool ours = told && strcmp(told->migration_id, s->side.options->migration_id) == 0;
    if (ours && source_asking(s) && s->pusher) /* its answer to the hand-over was lost */
        source_started(s, told->duration_us);
    if (!ours || s->phase != SOURCE_POSTCOPY) {
        err_set(&err, ERR_PROTOCOL, "nothing to end now");
        wire_reply_error(request, &err);
    } else {
        crashpoint("source", "all-here");
        pusher_stop(s->pusher);
        source_take_postcopy(s, told);
        source_done(s);
        Drover__EngineAllHereReply reply = DROVER__ENGINE_ALL_HERE_REPLY__INIT;
        wire_reply(request, &reply.base);
    }
    drover__engine_all_here__free_unpacked(told, NULL);
}

/* ---- pre-copy ---- */

/* The disks are clean; what the guest wrote meanwhile goes with one more round. */
static void source_flushed(void *user)
{
    struct source *s = user;
    s->flushed = true;
    if (s->phase != SOURCE_PRECOPY)
        return;
    if (s->pusher)
        source_name(s);
    else
        source_collect(s, source_send_pass);
}

static void source_give_up(struct source *s)
{
    struct err err;
    if (options_postcopy_last(&s->chosen)) {
        source_begin_postcopy(s);
        return;
    }
    const struct policy_limits limits = options_limits(s->side.options, &s->chosen);
    char slowed[64] = "";
    if (s->brake)
        snprintf(slowed, sizeof slowed, ", slowed down to %" PRIu32 " %% of its CPU time,", s->policy.throttle_percent);
    err_set(&err, ERR_CONVERGENCE,
        "the guest%s writes %.0f pages/s, so a switch would take %" PRIu64 " ms and the limit is %" PRIu64
        " ms; allow a longer downtime or post-copy, or calm the guest",
        slowed, s->policy.dirty_pages_per_us * 1e6, policy_predict_us(&s->policy, &limits) / 1000,
        s->side.options->max_downtime_ms);
    source_fail(s, &err);
}

/* One step slower. What the forecast knows to be too fast is not tried. */
static void source_throttle(struct source *s)
{
    const pid_t *threads;
    size_t count = guest_vcpus(s->side.guest, &threads);
    policy_throttle(&s->policy, s->forecast.mode == FORECAST_THROTTLE ? s->forecast.throttle_percent : 100);
    uint32_t percent = s->policy.throttle_percent;
    if (s->brake) {
        brake_set(s->brake, percent);
    } else {
        s->brake = brake_apply((pid_t)s->side.options->qemu_pid, threads, count, percent);
        s->braked_ns = clock_now_ns();
    }
    s->report.throttle_percent = percent;
    log_event(LOG_INFO, "migration.throttled", "migration=%s percent=%" PRIu32, s->side.options->migration_id, percent);
    control_event(s->side.control, "throttle", json_pack("{s:i}", "percent", (int)percent), true);
}

static void source_decide(struct source *s)
{
    const struct policy_limits limits = options_limits(s->side.options, &s->chosen);
    switch (policy_decide(&s->policy, &limits)) {
    case POLICY_ROUND:
        source_send_pass(s);
        break;
    case POLICY_SWITCH:
        if (s->flushed)
            source_begin_switch(s);
        else
            side_flush(&s->side, source_flushed, s);
        break;
    case POLICY_THROTTLE:
        source_throttle(s);
        source_send_pass(s);
        break;
    case POLICY_GIVE_UP:
        source_give_up(s);
        break;
    }
}

/* The forecast said that rounds will not do, and this one was no better. */
static bool source_foreseen(const struct source *s)
{
    const struct policy_limits limits = options_limits(s->side.options, &s->chosen);
    return s->chosen.mode == MODE_AUTO && s->forecast.mode == FORECAST_HYBRID &&
           policy_decide(&s->policy, &limits) != POLICY_SWITCH;
}

static void source_round_over(struct source *s)
{
    const struct sender_stats *stats = &s->last_pass;
    crashpoint("source", "round-over");
    uint64_t dirty = bitmap_count(&s->dirty);
    policy_round(&s->policy, classes_sent(&stats->classes), stats->duration_ns / 1000, dirty + s->renewed_pages, dirty);
    control_event(s->side.control, "round", report_round(&s->report, stats, &s->policy), false);

    if (s->chosen.mode == MODE_HYBRID || source_foreseen(s)) {
        if (policy_hybrid_round(&s->policy))
            source_send_pass(s);
        else
            source_begin_postcopy(s);
        return;
    }
    source_decide(s);
}

void source_on_pass(void *user, const struct sender_stats *stats)
{
    struct source *s = user;
    s->pass_under_way = false;
    source_trace(s, "pass-over");
    if (s->phase == SOURCE_PRECOPY) {
        s->last_pass = *stats;
        s->renewed_pages = source_renewed(s);
        source_collect(s, source_round_over);
    } else if (s->phase == SOURCE_SWITCHING) {
        if (s->sw.stopped_ns)
            s->report.last_pages_us += stats->duration_ns / 1000;
        control_event(s->side.control, "round", report_round(&s->report, stats, &s->policy), false);
        source_switch_passed(s);
    } else if (s->phase == SOURCE_POSTCOPY) {
        pusher_on_pass(s->pusher, stats);
    }
}

void source_on_sender_failed(void *user, const struct err *err)
{
    struct source *s = user;
    if (s->phase == SOURCE_POSTCOPY)
        pusher_on_lost(s->pusher, err);
    else
        source_fail_if_running(s, err);
}

static void source_send_first(struct source *s)
{
    const char *const *files;
    s->flushed = guest_disks(s->side.guest, &files) == 0;
    source_move(s, SOURCE_PRECOPY);
    loop_timer_stop(s->deadline);
    if (s->chosen.mode == MODE_POSTCOPY)
        source_begin_postcopy(s);
    else
        source_collect(s, source_send_pass);
}

/* QEMU is prepared and the guest looked at while the destination is still being asked. Disks come before memory. */
void source_begin(struct source *s)
{
    bool disks = s->side.options->disks[0];
    if (s->surveyed && s->welcomed && (!s->offer || s->offer_whole)) {
        source_send_first(s);
    } else if (s->prepared && !s->begun && (s->welcomed || !disks)) {
        s->begun = true;
        if (disks)
            source_send_disks(s, s->disk_address);
        else
            source_send_memory(s);
    }
}

/* The verdict is out before the first byte is sent. */
static void source_surveyed(void *user, const struct err *err)
{
    struct source *s = user;
    if (err) {
        source_fail_early(s, err);
        return;
    }
    forecast_make(survey_input(s->survey), &s->forecast);
    s->forecast.total_us += (clock_now_ns() - s->started_ns) / 1000; /* since it was asked for */
    control_event(
        s->side.control, "forecast", report_forecast(&s->report, &s->forecast, survey_input(s->survey)), true);
    bitmap_add(&s->dirty, survey_written(s->survey)); /* allocated since they were listed, or written since */
    survey_free(s->survey);
    s->survey = NULL;
    s->surveyed = true;
    source_begin(s);
}

/* Whether the guest can be slowed down is known before the first byte, not when it has to be. */
static void source_vcpus_found(void *user, const struct err *err)
{
    struct source *s = user;
    struct err why;
    const pid_t *threads;
    if (!source_running(s))
        return;
    size_t count = guest_vcpus(s->side.guest, &threads);
    if (err)
        source_fail_early(s, err);
    else if (brake_check((pid_t)s->side.options->qemu_pid, threads, count, &why) < 0)
        source_fail_early(s, &why);
    else
        source_prepared(s, NULL);
}

void source_prepared(void *user, const struct err *err)
{
    struct source *s = user;
    const pid_t *threads;
    if (!source_running(s))
        return;
    if (err) {
        source_fail_early(s, err);
    } else if (s->tunnel) {
        source_tunnel_prepared(s);
    } else if (s->chosen.stuck == STUCK_THROTTLE && guest_vcpus(s->side.guest, &threads) == 0) {
        guest_find_vcpus(s->side.guest, source_vcpus_found, s);
    } else {
        s->prepared = true;
        source_begin(s);
    }
}

void source_send_memory(struct source *s)
{
    struct err why;
    /* Tracking begins before the allocated pages are listed: a page that is allocated in between counts as written. */
    if (s->chosen.mode != MODE_POSTCOPY &&
        (source_open_collecting(s, &why) < 0 ||
            tracker_open(s->chosen.tracker, (pid_t)s->side.options->qemu_pid, &s->side.ram, &why, &s->tracker) < 0)) {
        source_fail_early(s, &why);
        return;
    }
    if (ram_allocated(&s->side.ram, &why, &s->dirty) < 0) {
        source_fail_early(s, &why);
        return;
    }
    if (s->tracker)
        s->report.tracker = tracker_name(s->tracker);
    const struct survey_options options = {
        .ram = &s->side.ram,
        .tracker = s->tracker,
        .allocated = &s->dirty,
        .options = s->side.options,
        .chosen = s->chosen,
        .limits = options_limits(s->side.options, &s->chosen),
        .bytes_per_s = quota_bytes_per_s(&s->side.quota),
        .longest_ms = SURVEY_MS,
        .on_done = source_surveyed,
        .user = s,
    };
    s->survey = survey_start(&s->side.loop, &options);
}
