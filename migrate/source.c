#include "migrate/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "migrate/policy.h"
#include "migrate/pusher.h"
#include "migrate/record.h"
#include "migrate/report.h"
#include "migrate/sender.h"
#include "migrate/side.h"
#include "migrate/statepipe.h"
#include "migrate/tracker.h"
#include "proto/engine.pb-c.h"

#define CONNECT_MS         15000u
#define CALL_MS            10000u
#define SWITCH_MS          20000u /* from QEMU's migrate to the hand-over; then it is called off */
#define HAND_OVER_MS       2000u  /* one try; it is repeated until DOUBT_MS have gone by */
#define HAND_OVER_PAUSE_MS 200u
#define DOUBT_MS           30000u
#define DOUBT_POSTCOPY_MS  600000u /* pages it may need are here alone, so more patience */
#define LAST_PASSES_MAX    8u

enum source_phase {
    SOURCE_CONNECTING,
    SOURCE_PRECOPY,
    SOURCE_SWITCHING,
    SOURCE_HANDED_OVER,
    SOURCE_POSTCOPY,
    SOURCE_DONE,
    SOURCE_FAILING,
    SOURCE_FAILED,
    SOURCE_DOUBT,
    SOURCE_PHASES
};

#define TO(phase) (1u << (phase))
static const struct {
    const char *name;
    unsigned successors;
} phases[SOURCE_PHASES] = {
    [SOURCE_CONNECTING] = {"connecting", TO(SOURCE_PRECOPY) | TO(SOURCE_FAILING) | TO(SOURCE_HANDED_OVER)},
    [SOURCE_PRECOPY] = {"precopy", TO(SOURCE_SWITCHING) | TO(SOURCE_FAILING)},
    [SOURCE_SWITCHING] = {"switching", TO(SOURCE_HANDED_OVER) | TO(SOURCE_FAILING)},
    [SOURCE_HANDED_OVER] = {"handed-over",
        TO(SOURCE_POSTCOPY) | TO(SOURCE_DONE) | TO(SOURCE_FAILING) | TO(SOURCE_DOUBT)},
    [SOURCE_POSTCOPY] = {"postcopy", TO(SOURCE_DONE) | TO(SOURCE_DOUBT)},
    [SOURCE_DONE] = {"done", 0},
    [SOURCE_FAILING] = {"failing", TO(SOURCE_FAILED)},
    [SOURCE_FAILED] = {"failed", 0},
    [SOURCE_DOUBT] = {"doubt", 0},
};

/* What the switch still waits for; all must have come before the hand-over. */
struct switching {
    uint64_t stopped_ns; /* when the guest stood still; 0: it runs */
    bool saved;          /* QEMU has written all of the device state */
    bool sent;           /* and its end has gone to the destination */
    bool pages_applied;  /* the last pass is over and a scan after it found nothing; in post-copy: the rest is named */
    bool peer_ready;     /* the destination's QEMU has loaded the state */
    bool hashing;
    uint32_t last_passes;
    bool holding;    /* device state waits in `held` until pages_applied */
    bool state_over; /* `held` is all of it */
    struct buf held;
};

struct source {
    struct side side;
    enum source_phase phase;
    struct wire_client *client;
    struct loop_timer *deadline; /* of the phase, where it has one */
    struct sender *sender;       /* NULL from POSTCOPY on: the pusher's */
    struct tracker *tracker;     /* NULL: nothing travels before the switch */
    struct pusher *pusher;       /* NULL: nothing travels after the switch */
    struct statepipe *pipe;
    char pipe_path[108];
    struct bitmap sending, dirty;
    bool flushed;        /* the guest's disks have been written back for the switch */
    bool pass_under_way; /* the workers read `sending` */
    bool naming;         /* the first stale pages are being named */
    bool lost;           /* the connection broke after the hand-over */
    struct options_policy chosen;
    struct policy policy;
    struct report report;
    uint8_t bulk_key[SEAL_KEY_BYTES];
    uint64_t started_ns, hand_over_ns, state_bytes;
    struct switching sw;
    struct err failure;
    bool finished;
};

static void source_move(struct source *s, enum source_phase to)
{
    ENSURE(phases[s->phase].successors & TO(to));
    s->phase = to;
    side_phase(&s->side, phases[to].name);
}

/* Where the blackout goes, for those who want to make it shorter: log.level = debug. */
static void source_trace(const struct source *s, const char *what)
{
    log_event(LOG_DEBUG, "switch.traced", "what=%s after_us=%" PRIu64 " state_bytes=%" PRIu64, what,
        s->sw.stopped_ns ? (clock_now_ns() - s->sw.stopped_ns) / 1000 : 0, s->state_bytes);
}

static bool source_running(const struct source *s)
{
    return s->phase <= SOURCE_SWITCHING;
}

static void source_finish(struct source *s)
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

static void source_fail(struct source *s, const struct err *err)
{
    if (s->phase == SOURCE_FAILING || s->phase == SOURCE_FAILED || s->phase == SOURCE_DONE || s->phase == SOURCE_DOUBT)
        return;
    s->failure = *err;
    source_move(s, SOURCE_FAILING);
    loop_timer_stop(s->deadline);
    source_tell_abort(s);
    sender_close(s->sender, NULL);
    s->sender = NULL;
    pusher_stop(s->pusher);
    tracker_close(s->tracker);
    s->tracker = NULL;
    statepipe_close(s->pipe);
    s->pipe = NULL;
    if (s->side.guest)
        guest_resume(s->side.guest, source_resumed, s);
    else
        source_resumed(s, NULL);
}

static void source_fail_if_running(struct source *s, const struct err *err)
{
    if (source_running(s))
        source_fail(s, err);
}

static void source_on_cancel(void *user)
{
    struct source *s = user;
    struct err err;
    err_set(&err, ERR_CANCELLED, "cancelled on request");
    if (source_running(s))
        source_fail(s, &err);
    else if (s->phase == SOURCE_HANDED_OVER || s->phase == SOURCE_POSTCOPY)
        side_refused(&s->side, "the guest has been handed over to the destination, so the move cannot be cancelled");
}

static void source_late(void *user)
{
    struct source *s = user;
    struct err err;
    err_set(&err, ERR_TIMEOUT, "%s took too long", phases[s->phase].name);
    source_fail_if_running(s, &err);
}

/* ---- hand-over ---- */

static void source_hand_over(void *user);

static void source_doubt(struct source *s, const struct err *err)
{
    s->failure = *err;
    err_wrap(&s->failure, "handed over, but the destination has not said whether it took it");
    pusher_stop(s->pusher);
    source_move(s, SOURCE_DOUBT);
    side_failed(&s->side, &s->failure);
    source_finish(s);
}

/* The destination has all of the guest. */
static void source_done(struct source *s)
{
    struct err err;
    if (record_write(s->side.options->record_file, s->side.options->migration_id, "taken", &err) < 0)
        log_event(LOG_ERROR, "record.unwritten", "message=%s", LOG_QUOTE(err.message));
    s->report.total_us = (clock_now_ns() - s->started_ns) / 1000;
    s->report.state_bytes = s->state_bytes;
    Drover__EngineReady farewell = DROVER__ENGINE_READY__INIT; /* empty, too */
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_FAREWELL, &farewell.base, &err) < 0)
        log_event(LOG_DEBUG, "farewell.unsent", "message=%s", LOG_QUOTE(err.message)); /* it waits a little longer */
    source_move(s, SOURCE_DONE);
    control_event(s->side.control, "done", json_pack("{s:o}", "record", report_json(&s->report)), true);
    source_finish(s);
}

/* It runs there. Without post-copy it is all there, too. */
static void source_started(struct source *s)
{
    if (s->sw.stopped_ns) /* else only the engine before us knew */
        s->report.blackout_us = (clock_now_ns() - s->sw.stopped_ns) / 1000;
    source_trace(s, "taken");
    if (!s->pusher) {
        source_done(s);
        return;
    }
    source_move(s, SOURCE_POSTCOPY);
    loop_timer_stop(s->deadline);
    if (s->lost) {
        sender_close(s->sender, NULL);
        s->sender = NULL;
    }
    pusher_push(s->pusher, s->sender);
    s->sender = NULL;
}

static void source_handed_over(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    uint64_t patience_ms = s->pusher ? DOUBT_POSTCOPY_MS : DOUBT_MS;
    if (s->phase != SOURCE_HANDED_OVER)
        return;
    if (err) {
        if (clock_now_ns() - s->hand_over_ns > patience_ms * UINT64_C(1000000))
            source_doubt(s, err);
        else
            loop_timer_start(s->deadline, HAND_OVER_PAUSE_MS, 0);
        return;
    }
    Drover__EngineHandOverReply *reply = drover__engine_hand_over_reply__unpack(NULL, len, body);
    struct err why;
    if (!reply && !s->pusher) { /* it answered, so it lives; only its words are lost */
        err_set(&why, ERR_PROTOCOL, "the destination's answer makes no sense");
        source_doubt(s, &why);
    } else if (reply && reply->refused) {
        side_error_from(reply->refused, &why);
        err_wrap(&why, "the destination refused the guest");
        source_fail(s, &why);
    } else {
        source_started(s);
    }
    drover__engine_hand_over_reply__free_unpacked(reply, NULL);
}

static void source_hand_over(void *user)
{
    struct source *s = user;
    Drover__EngineHandOver request = DROVER__ENGINE_HAND_OVER__INIT;
    request.migration_id = s->side.options->migration_id;
    wire_call(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_HAND_OVER, &request.base, HAND_OVER_MS,
        source_handed_over, s);
}

static void source_commit(struct source *s)
{
    struct err err;
    const struct options *o = s->side.options;
    if ((s->pusher ? record_write_postcopy : record_write)(o->record_file, o->migration_id, "handed-over", &err) < 0) {
        source_fail(s, &err); /* nothing has been sent: it is still ours */
        return;
    }
    source_move(s, SOURCE_HANDED_OVER);
    source_trace(s, "handed-over");
    loop_timer_free(s->deadline);
    s->deadline = loop_timer_new(&s->side.loop, source_hand_over, s);
    s->hand_over_ns = clock_now_ns();
    source_hand_over(s);
}

/* ---- verifying ---- */

static void source_compare(struct source *s)
{
    struct err err;
    if (!s->report.source_hash[0] || !s->report.destination_hash[0] || s->phase != SOURCE_SWITCHING)
        return;
    if (strcmp(s->report.source_hash, s->report.destination_hash) != 0) {
        err_set(&err, ERR_CORRUPT, "RAM differs: %s here, %s on the destination", s->report.source_hash,
            s->report.destination_hash);
        source_fail(s, &err);
        return;
    }
    source_commit(s);
}

static void source_hashed(void *user, const struct err *err, const char *hash)
{
    struct source *s = user;
    if (err) {
        source_fail_if_running(s, err);
        return;
    }
    snprintf(s->report.source_hash, sizeof s->report.source_hash, "%s", hash);
    source_compare(s);
}

static void source_peer_hashed(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    if (err) {
        source_fail_if_running(s, err);
        return;
    }
    Drover__EngineVerifyReply *reply = drover__engine_verify_reply__unpack(NULL, len, body);
    snprintf(s->report.destination_hash, sizeof s->report.destination_hash, "%s", reply ? reply->hash : "nothing");
    drover__engine_verify_reply__free_unpacked(reply, NULL);
    source_compare(s);
}

/* ---- the switch ---- */

/* Everything the hand-over needs has come? Then it goes; with `verify`, after the hashes were compared. */
static void source_try_commit(struct source *s)
{
    const struct switching *sw = &s->sw;
    if (s->phase != SOURCE_SWITCHING || !sw->saved || !sw->sent || !sw->pages_applied || !sw->peer_ready || sw->hashing)
        return;
    if (!s->side.options->verify || s->pusher) { /* in post-copy there is no moment when both sides are equal */
        source_commit(s);
        return;
    }
    s->sw.hashing = true;
    Drover__EngineVerify request = DROVER__ENGINE_VERIFY__INIT;
    wire_call(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_VERIFY, &request.base, SWITCH_MS,
        source_peer_hashed, s);
    side_hash(&s->side, source_hashed, s);
}

static void source_send_pass(struct source *s)
{
    struct bitmap swap = s->sending;
    s->sending = s->dirty;
    s->dirty = swap;
    bitmap_clear(&s->dirty);
    s->pass_under_way = true;
    sender_pass(s->sender, &s->sending);
}

static void source_send_state(struct source *s, const uint8_t *data, size_t len)
{
    struct err err;
    Drover__EngineState state = DROVER__ENGINE_STATE__INIT;
    state.offset = s->state_bytes;
    state.data = (ProtobufCBinaryData){len, (uint8_t *)data};
    s->state_bytes += len;
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_STATE, &state.base, &err) < 0)
        source_fail(s, &err);
}

/* The destination's QEMU looks into guest memory while it loads a device (virtio reads the indices of its rings), so no
 * device may come before the last page has been applied. */
static void source_release_state(struct source *s)
{
    struct err err;
    struct buf *held = &s->sw.held;
    for (size_t at = 0; at < held->len && s->phase == SOURCE_SWITCHING; at += STATEPIPE_CHUNK)
        source_send_state(s, held->data + at, held->len - at < STATEPIPE_CHUNK ? held->len - at : STATEPIPE_CHUNK);
    buf_clear(held);
    s->sw.holding = false;
    if (!s->sw.state_over || s->sw.sent || s->phase != SOURCE_SWITCHING)
        return;
    Drover__EngineStateEnd end = DROVER__ENGINE_STATE_END__INIT;
    end.total_bytes = s->state_bytes;
    s->sw.sent = true;
    source_trace(s, "state-sent");
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_STATE_END, &end.base, &err) < 0)
        source_fail(s, &err);
    else
        source_try_commit(s);
}

/* With the guest stopped: sends what was written since the last scan, until a scan finds nothing. The scan that counts
 * comes after QEMU has saved the device state, so that a write made by saving would be seen too. */
static void source_last_pass(struct source *s)
{
    struct err err;
    if (tracker_scan(s->tracker, &err, &s->dirty) < 0) {
        source_fail(s, &err);
        return;
    }
    if (bitmap_count(&s->dirty) != 0) {
        if (++s->sw.last_passes > LAST_PASSES_MAX) {
            err_set(&err, ERR_INTERNAL, "memory goes on changing although the guest stands still");
            source_fail(s, &err);
            return;
        }
        source_send_pass(s);
    } else if (s->sw.saved) {
        s->sw.pages_applied = true;
        source_release_state(s);
    }
}

/* What has been written since the pages were sent; without tracking nothing was sent, so all that is allocated. */
static int source_scan(struct source *s, struct err *err)
{
    return s->tracker ? tracker_scan(s->tracker, err, &s->dirty) : ram_allocated(&s->side.ram, err, &s->dirty);
}

/* In post-copy the last pages are named when QEMU has saved the device state, so that a write made by saving counts.
 * The state goes after the names: loading it may need one of these pages. */
static void source_name_rest(struct source *s)
{
    struct err err;
    if (source_scan(s, &err) < 0) {
        source_fail(s, &err);
        return;
    }
    pusher_seal(s->pusher, &s->dirty);
    source_trace(s, "named");
    s->sw.pages_applied = true;
    source_release_state(s);
}

static void source_switched(void *user, const struct err *err)
{
    if (err)
        source_fail_if_running(user, err);
}

static void source_on_migration(void *user, const char *status)
{
    struct source *s = user;
    struct err err;
    if (s->phase != SOURCE_SWITCHING)
        return;
    source_trace(s, status);
    if (strcmp(status, "pre-switchover") == 0) {
        s->sw.holding = true;
        guest_switch(s->side.guest, source_switched, s);
        if (!s->pusher)
            source_last_pass(s);
    } else if (strcmp(status, "completed") == 0) {
        s->sw.saved = true;
        if (s->pusher)
            source_name_rest(s);
        else if (!s->pass_under_way)
            source_last_pass(s);
    } else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
        err_set(&err, ERR_INTERNAL, "QEMU's migration of the device state %s", status);
        source_fail(s, &err);
    }
}

static void source_on_stopped(void *user)
{
    struct source *s = user;
    if (s->phase == SOURCE_SWITCHING && s->sw.stopped_ns == 0)
        s->sw.stopped_ns = clock_now_ns();
    source_trace(s, "stopped");
}

static void source_state_data(void *user, const uint8_t *data, size_t len)
{
    struct source *s = user;
    if (s->phase != SOURCE_SWITCHING)
        return;
    if (s->sw.holding && len)
        buf_append(&s->sw.held, data, len);
    else if (len)
        source_send_state(s, data, len);
    else
        s->sw.state_over = true;
    if (s->sw.state_over && s->sw.pages_applied)
        source_release_state(s);
}

static void source_state_failed(void *user, const struct err *err)
{
    source_fail_if_running(user, err);
}

static void source_begin_switch(struct source *s)
{
    struct err err;
    struct statepipe_options options = {.on_data = source_state_data, .on_failed = source_state_failed, .user = s};
    source_move(s, SOURCE_SWITCHING);
    loop_timer_start(s->deadline, SWITCH_MS, 0);
    if (statepipe_listen(&s->side.loop, s->pipe_path, &options, &err, &s->pipe) < 0) {
        source_fail(s, &err);
        return;
    }
    guest_migrate(s->side.guest, s->pipe_path, source_switched, s);
}

/* ---- towards post-copy ---- */

static void source_flushed(void *user);
static void source_on_sender_failed(void *user, const struct err *err);

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
}

/* An earlier engine of this migration has recorded the hand-over and died before the destination had all pages. Whether
 * it had sent the hand-over nobody knows, so it is sent again, as that engine would have done. */
static void source_take_over(struct source *s)
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

static void source_on_all_here(struct source *s, struct wire_request *request, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineAllHere *told = drover__engine_all_here__unpack(NULL, len, body);
    bool ours = told && strcmp(told->migration_id, s->side.options->migration_id) == 0;
    if (ours && s->phase == SOURCE_HANDED_OVER && s->pusher) /* its answer to the hand-over was lost */
        source_started(s);
    if (!ours || s->phase != SOURCE_POSTCOPY) {
        err_set(&err, ERR_PROTOCOL, "nothing to end now");
        wire_reply_error(request, &err);
    } else {
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
    struct err err;
    s->flushed = true;
    if (s->phase != SOURCE_PRECOPY)
        return;
    if (s->pusher) {
        source_name(s);
        return;
    }
    if (tracker_scan(s->tracker, &err, &s->dirty) < 0)
        source_fail(s, &err);
    else
        source_send_pass(s);
}

static void source_give_up(struct source *s)
{
    struct err err;
    if (s->chosen.postcopy_when_stuck) {
        source_begin_postcopy(s);
        return;
    }
    err_set(&err, ERR_CONVERGENCE,
        "the guest writes %.0f pages/s, so a switch would take %" PRIu64 " ms and the limit is %" PRIu64
        " ms; allow a longer downtime or post-copy, or calm the guest",
        s->policy.dirty_pages_per_us * 1e6, policy_predict_us(&s->policy) / 1000, s->side.options->max_downtime_ms);
    source_fail(s, &err);
}

static void source_decide(struct source *s)
{
    const struct policy_limits limits = {.max_downtime_us = s->side.options->max_downtime_ms * 1000,
        .max_rounds = (uint32_t)s->side.options->max_rounds,
        .postcopy_next = s->chosen.postcopy_when_stuck};
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
    case POLICY_GIVE_UP:
        source_give_up(s);
        break;
    }
}

static void source_round_over(struct source *s, const struct sender_stats *stats)
{
    struct err err;
    if (tracker_scan(s->tracker, &err, &s->dirty) < 0) {
        source_fail(s, &err);
        return;
    }
    uint64_t dirty = bitmap_count(&s->dirty);
    policy_round(&s->policy, stats->pages - stats->zero_pages, stats->duration_ns / 1000, dirty);
    control_event(s->side.control, "round", report_round(&s->report, stats, &s->policy), false);

    if (s->chosen.mode == MODE_HYBRID) {
        if (policy_hybrid_round(&s->policy))
            source_send_pass(s);
        else
            source_begin_postcopy(s);
        return;
    }
    source_decide(s);
}

static void source_on_pass(void *user, const struct sender_stats *stats)
{
    struct source *s = user;
    s->pass_under_way = false;
    source_trace(s, "pass-over");
    if (s->phase == SOURCE_PRECOPY) {
        source_round_over(s, stats);
    } else if (s->phase == SOURCE_SWITCHING) {
        control_event(s->side.control, "round", report_round(&s->report, stats, &s->policy), false);
        source_last_pass(s);
    } else if (s->phase == SOURCE_POSTCOPY) {
        pusher_on_pass(s->pusher, stats);
    }
}

static void source_on_sender_failed(void *user, const struct err *err)
{
    struct source *s = user;
    if (s->phase == SOURCE_POSTCOPY)
        pusher_on_lost(s->pusher, err);
    else
        source_fail_if_running(s, err);
}

static void source_prepared(void *user, const struct err *err)
{
    struct source *s = user;
    struct err why;
    if (!source_running(s))
        return;
    if (err) {
        source_fail(s, err);
        return;
    }
    if (s->chosen.mode == MODE_POSTCOPY) {
        source_move(s, SOURCE_PRECOPY);
        loop_timer_stop(s->deadline);
        source_begin_postcopy(s);
        return;
    }
    /* Tracking begins before the allocated pages are listed: a page that is allocated in between counts as written. */
    if (tracker_open((pid_t)s->side.options->qemu_pid, &s->side.ram, &why, &s->tracker) < 0 ||
        ram_allocated(&s->side.ram, &why, &s->dirty) < 0) {
        source_fail(s, &why);
        return;
    }
    s->report.tracker = tracker_name(s->tracker);
    source_move(s, SOURCE_PRECOPY);
    loop_timer_stop(s->deadline);
    source_send_pass(s);
}

/* ---- connecting ---- */

static int source_open_sender(struct source *s, const Drover__EngineHelloReply *reply, struct err *err)
{
    if (reply->n_bulk_addresses != s->side.options->stripes || reply->window_bytes == 0)
        return err_set(err, ERR_PROTOCOL, "the destination offers %zu stripes where %" PRIu64 " were asked for",
            reply->n_bulk_addresses, s->side.options->stripes);
    struct sender_options options = {
        .ram = &s->side.ram,
        .key = s->bulk_key,
        .addresses = (const char *const *)reply->bulk_addresses,
        .stripes = (uint32_t)s->side.options->stripes,
        .window_bytes = reply->window_bytes,
        .bandwidth = s->side.options->bandwidth,
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
    if (err) {
        source_fail(s, err);
        return;
    }
    Drover__EngineHelloReply *reply = drover__engine_hello_reply__unpack(NULL, len, body);
    int rc = reply ? source_open_sender(s, reply, &why)
                   : err_set(&why, ERR_PROTOCOL, "the destination's welcome makes no sense");
    drover__engine_hello_reply__free_unpacked(reply, NULL);
    if (rc < 0)
        source_fail(s, &why);
    else
        guest_prepare_source(s->side.guest, source_prepared, s);
}

static void source_say_hello(struct source *s)
{
    seal_make_key(s->bulk_key);
    Drover__EngineHello hello = DROVER__ENGINE_HELLO__INIT;
    hello.migration_id = s->side.options->migration_id;
    hello.ram_bytes = s->side.ram.bytes;
    hello.page_bytes = PAGE_BYTES;
    hello.stripes = (uint32_t)s->side.options->stripes;
    hello.bulk_key = (ProtobufCBinaryData){sizeof s->bulk_key, s->bulk_key};
    wire_call(
        wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base, CALL_MS, source_welcomed, s);
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
        source_trace(s, "peer-ready");
        source_try_commit(s);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_ABORT) {
        Drover__EngineAbort *abort = drover__engine_abort__unpack(NULL, len, body);
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
    else if (s->phase == SOURCE_HANDED_OVER)
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
    const struct guest_events events = {
        .on_stopped = source_on_stopped, .on_migration = source_on_migration, .on_gone = source_on_gone, .user = s};
    const struct wire_options wire = {.handler = source_on_note, .on_peer = source_on_peer, .user = s};
    if (side_open(&s->side, options, &events, source_on_cancel, s, err) < 0 ||
        options_policy(options, err, &s->chosen) < 0)
        return -1;
    if (options->resume && !record_says(options->record_file, options->migration_id, "handed-over"))
        return err_set(err, ERR_STATE, "there is nothing to resume: %s does not say that the guest was handed over",
            options->record_file);
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
    sender_close(s->sender, NULL);
    statepipe_close(s->pipe);
    pusher_stop(s->pusher);
    buf_free(&s->sw.held);
    wire_client_close(s->client);
    pusher_free(s->pusher);
    tracker_close(s->tracker);
    side_close(&s->side);
    bitmap_free(&s->sending);
    bitmap_free(&s->dirty);
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
    if (source_open(s, options, &err) < 0) {
        side_failed(&s->side, &err);
        s->phase = SOURCE_FAILED;
        s->finished = true;
    } else if (options->resume) {
        source_take_over(s);
    } else {
        side_phase(&s->side, phases[s->phase].name);
        loop_timer_start(s->deadline, CONNECT_MS, 0);
        source_say_hello(s);
    }
    while (!s->finished)
        uv_run(&s->side.loop, UV_RUN_DEFAULT);
    int status = s->phase == SOURCE_DONE ? 0 : s->phase == SOURCE_DOUBT ? 3 : 1;
    source_close(s);
    free(s);
    return status;
}
