#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "migrate/addresses.h"
#include "migrate/record.h"
#include "migrate/batch.h"
#include "migrate/source_private.h"
#include "proto/bounded.h"

#define CONNECT_MS 15000u
#define CALL_MS    10000u

#define TO(phase) (1u << (phase))
static const struct {
    const char *name;
    unsigned successors;
} phases[SOURCE_PHASES] = {
    [SOURCE_CONNECTING] = {"connecting",
        TO(SOURCE_DISKS) | TO(SOURCE_PRECOPY) | TO(SOURCE_FAILING) | TO(SOURCE_HANDED_OVER)},
    [SOURCE_DISKS] = {"disks", TO(SOURCE_PRECOPY) | TO(SOURCE_FAILING)},
    [SOURCE_PRECOPY] = {"precopy", TO(SOURCE_SWITCHING) | TO(SOURCE_FAILING)},
    [SOURCE_SWITCHING] = {"switching", TO(SOURCE_HANDED_OVER) | TO(SOURCE_FAILING)},
    [SOURCE_HANDED_OVER] = {"handed-over",
        TO(SOURCE_UNANSWERED) | TO(SOURCE_POSTCOPY) | TO(SOURCE_DONE) | TO(SOURCE_FAILING) | TO(SOURCE_DOUBT)},
    [SOURCE_UNANSWERED] = {"unanswered", TO(SOURCE_POSTCOPY) | TO(SOURCE_FAILING)},
    [SOURCE_POSTCOPY] = {"postcopy", TO(SOURCE_DONE) | TO(SOURCE_DOUBT)},
    [SOURCE_DONE] = {"done", 0},
    [SOURCE_FAILING] = {"failing", TO(SOURCE_FAILED)},
    [SOURCE_FAILED] = {"failed", 0},
    [SOURCE_DOUBT] = {"doubt", 0},
};

void source_move(struct source *s, enum source_phase to)
{
    ENSURE(phases[s->phase].successors & TO(to));
    s->phase = to;
    quota_urgent(&s->side.quota, to == SOURCE_SWITCHING || to == SOURCE_HANDED_OVER);
    side_phase(&s->side, phases[to].name);
    crashpoint("source", phases[to].name);
}

/* Where the blackout goes, for those who want to make it shorter: log.level = debug. */
void source_trace(const struct source *s, const char *what)
{
    log_event(LOG_DEBUG, "switch.traced", "what=%s now_us=%" PRIu64 " after_us=%" PRIu64 " state_bytes=%" PRIu64, what,
        clock_now_ns() / 1000, s->sw.stopped_ns ? (clock_now_ns() - s->sw.stopped_ns) / 1000 : 0, s->state_bytes);
}

bool source_running(const struct source *s)
{
    return s->phase <= SOURCE_SWITCHING;
}

bool source_asking(const struct source *s)
{
    return s->phase == SOURCE_HANDED_OVER || s->phase == SOURCE_UNANSWERED;
}

void source_release_brake(struct source *s)
{
    if (!s->brake)
        return;
    brake_release(s->brake);
    s->brake = NULL;
    s->report.throttled_us = (clock_now_ns() - s->braked_ns) / 1000;
    control_event(s->side.control, "throttle", json_pack("{s:i}", "percent", 100), true);
}

void source_finish(struct source *s)
{
    s->finished = true;
    uv_stop(&s->side.loop);
}

/* ---- failing: the guest goes on here ---- */

static void source_resumed(void *user, const struct err *err)
{
    struct source *s = user;
    if (err)
        err_wrap(&s->failure, "%s; after", err->message);
    else if (s->hand_over_ns && s->side.guest) /* the network may have been told that it is there */
        guest_announce(s->side.guest);
    struct err why;
    if (record_write(s->side.options->record_file, s->side.options->migration_id, "failed", &why) < 0)
        log_event(LOG_ERROR, "record.unwritten", "message=%s", LOG_QUOTE(why.message));
    source_move(s, SOURCE_FAILED);
    side_failed(&s->side, &s->failure);
    source_finish(s);
}

static void source_tell_abort(struct source *s)
{
    char code[32];
    snprintf(code, sizeof code, "%s", err_name(s->failure.code));
    Drover__ErrorInfo info = DROVER__ERROR_INFO__INIT;
    info.code = code;
    info.message = s->failure.message;
    Drover__EngineAbort abort = DROVER__ENGINE_ABORT__INIT;
    abort.error = &info;
    struct err ignored; /* a destination that does not hear it notices that we are gone */
    if (s->client &&
        wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_ABORT, &abort.base, &ignored) < 0)
        log_event(LOG_INFO, "abort.unsent", "message=%s", LOG_QUOTE(ignored.message));
}

void source_fail(struct source *s, const struct err *err)
{
    if (s->phase == SOURCE_FAILING || s->phase == SOURCE_FAILED || s->phase == SOURCE_DONE || s->phase == SOURCE_DOUBT)
        return;
    s->failure = *err;
    source_move(s, SOURCE_FAILING);
    source_release_brake(s);
    loop_timer_stop(s->deadline);
    source_tell_abort(s);
    sender_close(s->sender, NULL);
    s->sender = NULL;
    tunnel_close(s->tunnel);
    s->tunnel = NULL;
    pusher_stop(s->pusher);
    survey_free(s->survey);
    s->survey = NULL;
    tracker_close(s->tracker);
    s->tracker = NULL;
    statepipe_close(s->pipe);
    s->pipe = NULL;
    source_abandon_disks(s);
    if (s->side.guest)
        guest_resume(s->side.guest, source_resumed, s);
    else
        source_resumed(s, NULL);
}

void source_fail_if_running(struct source *s, const struct err *err)
{
    if (source_running(s))
        source_fail(s, err);
}

void source_fail_early(struct source *s, const struct err *err)
{
    if (s->phase != SOURCE_CONNECTING || s->welcomed)
        source_fail_if_running(s, err);
    else
        s->early = *err;
}

static void source_on_cancel(void *user)
{
    struct source *s = user;
    struct err err;
    err_set(&err, ERR_CANCELLED, "cancelled on request");
    if (source_running(s))
        source_fail(s, &err);
    else if (source_asking(s) || s->phase == SOURCE_POSTCOPY)
        side_refused(&s->side, "the guest has been handed over to the destination, so the move cannot be cancelled");
}

/* This host's share of the link or the other's is another one now: the workers see it, QEMU's copying must be told. */
static void source_on_share(void *user)
{
    struct source *s = user;
    if (s->mirror)
        mirror_limit(s->mirror, quota_bytes_per_s(&s->side.quota));
}

static void source_late(void *user)
{
    struct source *s = user;
    struct err err;
    err_set(&err, ERR_TIMEOUT, "%s took too long", phases[s->phase].name);
    source_fail_if_running(s, s->early.code != ERR_NONE ? &s->early : &err);
}

/* ---- connecting ---- */

static int source_open_sender(struct source *s, const Drover__EngineHelloReply *reply, struct err *err)
{
    if (reply->n_bulk_addresses != s->side.options->stripes || reply->window_bytes == 0)
        return err_set(err, ERR_PROTOCOL, "the destination offers %zu stripes where %" PRIu64 " were asked for",
            reply->n_bulk_addresses, s->side.options->stripes);
    const struct options *o = s->side.options;
    if (o->silent_writes || o->delta_memory || o->receipt || o->verify)
        digests_init(&s->digests, s->side.ram.pages, seal_derive(s->bulk_key, "page digests"), o->receipt || o->verify);
    if (o->delta_memory)
        s->copies = copies_new(s->side.ram.pages, o->delta_memory);
    if (reply->image_key.len == IMAGE_KEY_BYTES && s->chosen.mode != MODE_POSTCOPY)
        s->offer = offer_new(s->side.ram.pages, reply->image_key.data);
    struct sender_options options = {
        .ram = &s->side.ram,
        .key = s->bulk_key,
        .addresses = (const char *const *)reply->bulk_addresses,
        .stripes = (uint32_t)s->side.options->stripes,
        .window_bytes = reply->window_bytes,
        .quota = &s->side.quota,
        .digests = s->digests.page ? &s->digests : NULL,
        .copies = s->copies,
        .silent = o->silent_writes,
        .offer = s->offer,
        .thorough = o->bandwidth != 0,
        .before_read = source_renew,
        .on_pass = source_on_pass,
        .on_failed = source_on_sender_failed,
        .user = s,
    };
    return sender_open(&s->side.loop, &options, err, &s->sender);
}

static void source_welcomed(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    struct err why;
    if (s->phase != SOURCE_CONNECTING)
        return;
    if (err || s->early.code != ERR_NONE) {
        source_fail(s, err ? err : &s->early);
        return;
    }
    Drover__EngineHelloReply *reply = BOUNDED_UNPACK(engine_hello_reply, body, len);
    bool whole = s->chosen.tracker == TRACKER_QEMU;
    int rc = reply ? (whole ? source_open_tunnel : source_open_sender)(s, reply, &why)
                   : err_set(&why, ERR_PROTOCOL, "the destination's welcome makes no sense");
    s->welcomed = rc == 0;
    if (rc == 0)
        s->disk_address = mem_strdup(reply->disk_address);
    if (rc == 0)
        quota_limit(&s->side.quota, QUOTA_THERE, reply->bandwidth_bytes_per_s);
    s->verifies_early = rc == 0 && reply->verifies_early && !whole;
    drover__engine_hello_reply__free_unpacked(reply, NULL);
    if (rc == 0)
        source_ask_clock(s, CLOCK_QUESTIONS);
    if (rc == 0 && s->offer)
        source_fetch_offer(s);
    if (rc < 0)
        source_fail(s, &why);
    else if (whole)
        guest_prepare_source_whole(s->side.guest, s->side.options->max_downtime_ms, source_prepared, s);
    else
        source_begin(s);
}

static void source_say_hello(struct source *s)
{
    seal_make_key(s->bulk_key);
    Drover__EngineHello hello = DROVER__ENGINE_HELLO__INIT;
    hello.migration_id = s->side.options->migration_id;
    hello.ram_bytes = s->side.ram.bytes;
    hello.page_bytes = PAGE_BYTES;
    hello.page_format = BATCH_FORMAT;
    hello.stripes = (uint32_t)s->side.options->stripes;
    bool whole = s->chosen.tracker == TRACKER_QEMU;
    hello.receipt = (s->side.options->receipt || s->side.options->verify) && !whole; /* nobody here sees the pages */
    hello.whole = whole;
    hello.disks = s->side.options->disks;
    hello.bulk_key = (ProtobufCBinaryData){sizeof s->bulk_key, s->bulk_key};
    struct addresses addresses;
    addresses_load(s->side.options->announce_addresses, &addresses);
    hello.n_addresses = addresses.count;
    hello.addresses = addresses.lines;
    wire_call(
        wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base, CALL_MS, source_welcomed, s);
    crashpoint("source", "hello-sent");
}

static void source_on_other_share(struct source *s, const uint8_t *body, size_t len)
{
    Drover__EngineBandwidth *note = BOUNDED_UNPACK(engine_bandwidth, body, len);
    if (note) {
        quota_limit(&s->side.quota, QUOTA_THERE, note->bytes_per_s);
        side_log_quota(&s->side);
        source_on_share(s);
    }
    drover__engine_bandwidth__free_unpacked(note, NULL);
}

static void source_on_note(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct source *s = user;
    struct err err;
    (void)peer;
    if (request && method == DROVER__ENGINE_METHOD__ENGINE_ALL_HERE) {
        source_on_all_here(s, request, body, len);
    } else if (request) {
        err_set(&err, ERR_PROTOCOL, "the source answers no such request");
        wire_reply_error(request, &err);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_DEMAND) {
        if (s->pusher)
            pusher_on_demand(s->pusher, body, len);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_READY) {
        s->sw.peer_ready = true;
        source_try_commit(s);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_BANDWIDTH) {
        source_on_other_share(s, body, len);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_ABORT) {
        Drover__EngineAbort *abort = BOUNDED_UNPACK(engine_abort, body, len);
        side_error_from(abort ? abort->error : NULL, &err);
        drover__engine_abort__free_unpacked(abort, NULL);
        err_wrap(&err, "the destination called it off");
        if (s->phase == SOURCE_POSTCOPY)
            source_doubt(s, &err); /* the guest is lost there; whether for good is not ours to say */
        else
            source_fail_if_running(s, &err);
    }
}

static void source_on_peer(void *user, struct wire_peer *peer, bool up)
{
    struct source *s = user;
    struct err err;
    (void)peer;
    if (up)
        return;
    err_set(&err, ERR_UNAVAILABLE, "connection to the destination lost");
    if (s->phase == SOURCE_POSTCOPY)
        pusher_on_lost(s->pusher, &err);
    else if (source_asking(s))
        s->lost = true;
    else if (s->phase != SOURCE_CONNECTING)
        source_fail_if_running(s, &err);
}

static void source_on_gone(void *user, const struct err *err)
{
    source_fail_if_running(user, err);
}

static int source_open(struct source *s, const struct options *options, struct err *err)
{
    const struct guest_events events = {.on_stopped = source_on_stopped,
        .on_migration = source_on_migration,
        .on_pass = source_tunnel_on_pass,
        .on_gone = source_on_gone,
        .on_block_job = source_on_block_job,
        .user = s};
    const struct wire_options wire = {.handler = source_on_note, .on_peer = source_on_peer, .user = s};
    /* After the hand-over only the RAM file is needed, so that QEMU's death costs nothing. */
    if (side_open(&s->side, options, options->resume ? NULL : &events, source_on_cancel, source_on_share, s, err) < 0 ||
        options_policy(options, err, &s->chosen) < 0)
        return -1;
    if (options->resume && !record_says(options->record_file, options->migration_id, "handed-over"))
        return err_set(err, ERR_WRONG_STATE,
            "there is nothing to resume: %s does not say that the guest was handed over", options->record_file);
    s->deadline = loop_timer_new(&s->side.loop, source_late, s);
    s->sending = bitmap_new(s->side.ram.pages);
    s->dirty = bitmap_new(s->side.ram.pages);
    if (snprintf(s->pipe_path, sizeof s->pipe_path, "%s.state", options->control_socket) >= (int)sizeof s->pipe_path)
        return err_set(err, ERR_INVALID, "control.socket is too long");
    return wire_client_open(s->side.wire, options->connect, s->side.peer_key, &wire, err, &s->client);
}

static void source_close(struct source *s)
{
    loop_timer_free(s->deadline);
    loop_timer_free(s->abandoning);
    brake_release(s->brake);
    sender_close(s->sender, NULL);
    tunnel_close(s->tunnel);
    statepipe_close(s->pipe);
    pusher_stop(s->pusher);
    buf_free(&s->sw.held);
    wire_client_close(s->client);
    pusher_free(s->pusher);
    survey_free(s->survey);
    tracker_close(s->tracker);
    source_close_collecting(s);
    relay_close(s->relay);
    s->relay = NULL;
    free(s->disk_address);
    side_close(&s->side);
    mirror_free(s->mirror);
    bitmap_free(&s->sending);
    bitmap_free(&s->dirty);
    copies_free(s->copies);
    offer_free(s->offer);
    digests_free(&s->digests);
    report_free(&s->report);
    key_wipe(s->bulk_key, sizeof s->bulk_key);
}

int source_run(const struct options *options)
{
    struct source *s = mem_zalloc(sizeof *s);
    struct err err;
    s->started_ns = clock_now_ns();
    s->report.mode = "precopy";
    s->report.tracker = "none";
    policy_init(&s->policy);
    if (source_open(s, options, &err) < 0) {
        side_failed(&s->side, &err);
        s->phase = SOURCE_FAILED;
        s->finished = true;
    } else if (options->resume) {
        source_take_over(s);
    } else {
        side_phase(&s->side, phases[s->phase].name);
        crashpoint("source", phases[s->phase].name);
        loop_timer_start(s->deadline, CONNECT_MS, 0);
        source_say_hello(s);
        if (s->chosen.tracker != TRACKER_QEMU) /* meanwhile: the guest is looked at before anybody takes it */
            guest_prepare_source(s->side.guest, source_prepared, s);
    }
    while (!s->finished)
        uv_run(&s->side.loop, UV_RUN_DEFAULT);
    int status = s->phase == SOURCE_DONE ? 0 : s->phase == SOURCE_DOUBT ? 3 : 1;
    source_close(s);
    free(s);
    return status;
}
