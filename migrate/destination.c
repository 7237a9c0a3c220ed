#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/destination_private.h"
#include "migrate/record.h"
#include "proto/bounded.h"

#define LISTEN_MS 60000u /* nobody connects: give up */

#define TO(phase) (1u << (phase))
static const struct {
    const char *name; /* as the control socket tells it */
    unsigned successors;
} phases[DESTINATION_PHASES] = {
    [DESTINATION_LISTENING] = {"listening", TO(DESTINATION_RECEIVING) | TO(DESTINATION_FAILED)},
    [DESTINATION_RECEIVING] = {"receiving", TO(DESTINATION_LOADED) | TO(DESTINATION_FAILED)},
    [DESTINATION_LOADED] = {"loaded", TO(DESTINATION_OWNER) | TO(DESTINATION_FAILED)},
    [DESTINATION_OWNER] = {"owner",
        TO(DESTINATION_POSTCOPY) | TO(DESTINATION_DONE) | TO(DESTINATION_RETURNING) | TO(DESTINATION_FAILED)},
    [DESTINATION_POSTCOPY] = {"postcopy", TO(DESTINATION_DONE) | TO(DESTINATION_FAILED)},
    [DESTINATION_DONE] = {"done", 0},
    [DESTINATION_RETURNING] = {"returning", TO(DESTINATION_FAILED)},
    [DESTINATION_FAILED] = {"failed", 0},
};

void destination_move(struct destination *d, enum destination_phase to)
{
    ENSURE(phases[d->phase].successors & TO(to));
    d->phase = to;
    if (to == DESTINATION_POSTCOPY)
        quota_urgent(&d->side.quota, false);
    side_phase(&d->side, phases[to].name);
    crashpoint("destination", phases[to].name);
}

/* As source_trace(): where the blackout goes. */
void destination_trace(const struct destination *d, const char *what)
{
    log_event(LOG_DEBUG, "switch.traced", "what=%s now_us=%" PRIu64 " state_bytes=%" PRIu64, what,
        clock_now_ns() / 1000, d->state_bytes);
}

void destination_finish(void *user)
{
    struct destination *d = user;
    d->finished = true;
    uv_stop(&d->side.loop);
}

static void destination_end(struct destination *d, const struct err *err, bool ours)
{
    struct err why;
    char code[32], message[ERR_MESSAGE_MAX];
    snprintf(code, sizeof code, "%s", err_name(err->code));
    snprintf(message, sizeof message, "%s", err->message);
    Drover__ErrorInfo info = DROVER__ERROR_INFO__INIT;
    info.code = code;
    info.message = message;
    if (d->source) {
        Drover__EngineAbort abort = DROVER__ENGINE_ABORT__INIT;
        abort.error = &info;
        if (wire_note(d->source, DROVER__ENGINE_METHOD__ENGINE_ABORT, &abort.base, &why) < 0)
            log_event(LOG_INFO, "abort.unsent", "message=%s", LOG_QUOTE(why.message));
    }
    if (d->hand_over && !ours) {
        Drover__EngineHandOverReply reply = DROVER__ENGINE_HAND_OVER_REPLY__INIT;
        reply.refused = &info;
        wire_reply(d->hand_over, &reply.base);
        d->hand_over = NULL;
    }
    if (d->puller && !ours)
        puller_abandon(d->puller);
    destination_move(d, DESTINATION_FAILED);
    side_failed(&d->side, err);
    destination_finish(d);
}

void destination_refuse(struct destination *d, const struct err *err)
{
    destination_end(d, err, false);
}

/* It has not run here and never will: that is recorded before anyone is told. From OWNER on it is ours, whatever goes
 * wrong. One that is returned has failed already. */
void destination_fail(struct destination *d, const struct err *err)
{
    struct err why;
    if (d->phase >= DESTINATION_DONE)
        return;
    bool ours = d->phase == DESTINATION_OWNER || d->phase == DESTINATION_POSTCOPY;
    if (!ours && record_write(d->side.options->record_file, d->side.options->migration_id, "failed", &why) < 0)
        log_event(LOG_ERROR, "record.unwritten", "message=%s", LOG_QUOTE(why.message));
    destination_end(d, err, ours);
}

static void destination_on_cancel(void *user)
{
    struct destination *d = user;
    struct err err;
    err_set(&err, ERR_CANCELLED, "cancelled on request");
    if (d->phase < DESTINATION_OWNER)
        destination_fail(d, &err);
    else if (d->phase < DESTINATION_DONE)
        side_refused(&d->side, "the guest runs here already, so it cannot be cancelled any more");
}

/* Who sends must keep to this host's share of its link. */
static void destination_on_share(void *user)
{
    struct destination *d = user;
    struct err unsent; /* a source whose connection is lost hears it with its new one */
    Drover__EngineBandwidth note = DROVER__ENGINE_BANDWIDTH__INIT;
    note.bytes_per_s = quota_bytes_per_s(&d->side.quota);
    if (d->source && wire_note(d->source, DROVER__ENGINE_METHOD__ENGINE_BANDWIDTH, &note.base, &unsent) < 0)
        log_event(LOG_INFO, "share.unsent", "message=%s", LOG_QUOTE(unsent.message));
}

static void destination_late(void *user)
{
    struct destination *d = user;
    struct err err;
    err_set(&err, ERR_TIMEOUT, "no source came within %u s", LISTEN_MS / 1000);
    if (d->phase == DESTINATION_LISTENING)
        destination_fail(d, &err);
}

void destination_on_broken(void *user, const struct err *err)
{
    struct destination *d = user;
    if (d->phase < DESTINATION_OWNER)
        destination_fail(d, err);
    else if (d->puller && d->phase < DESTINATION_DONE) /* the source notices, and asks for new stripes */
        log_event(LOG_WARN, "receive.failed", "message=%s", LOG_QUOTE(err->message));
}

/* ---- the connection ---- */

static void destination_on_note(struct destination *d, uint32_t method, const uint8_t *body, size_t len)
{
    struct err err;
    if (method == DROVER__ENGINE_METHOD__ENGINE_STATE) {
        destination_on_state(d, body, len);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_STATE_END) {
        destination_on_state_end(d, body, len);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_PAGES) {
        destination_on_pages(d, body, len);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_HURRY) {
        quota_urgent(&d->side.quota, true);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_FAREWELL) {
        destination_on_farewell(d, body, len);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_ABORT) {
        Drover__EngineAbort *abort = BOUNDED_UNPACK(engine_abort, body, len);
        side_error_from(abort ? abort->error : NULL, &err);
        drover__engine_abort__free_unpacked(abort, NULL);
        err_wrap(&err, "the source called it off");
        destination_on_broken(d, &err);
    }
}

static void destination_on_message(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct destination *d = user;
    struct err err;
    if (!request) {
        if (peer == d->source || method == DROVER__ENGINE_METHOD__ENGINE_FAREWELL) /* which says whose it is */
            destination_on_note(d, method, body, len);
        return;
    }
    switch (method) {
    case DROVER__ENGINE_METHOD__ENGINE_HELLO:
        destination_on_hello(d, request, peer, body, len);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_VERIFY:
        destination_on_verify(d, request);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_CLOCK: {
        Drover__EngineClockReply reply = DROVER__ENGINE_CLOCK_REPLY__INIT;
        reply.now_ns = clock_now_ns();
        wire_reply(request, &reply.base);
        break;
    }
    case DROVER__ENGINE_METHOD__ENGINE_HAND_OVER:
        destination_on_hand_over(d, request, peer, body, len);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_DISKS_OVER:
        destination_on_disks_over(d, request);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_IMAGE:
        destination_on_image(d, request, body, len);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_POSTCOPY:
        destination_on_postcopy(d, request);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_STALE:
        destination_on_stale(d, request, body, len);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_RESUME:
        destination_on_resume(d, request, peer, body, len);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_MISSING:
        destination_on_missing(d, request, body, len);
        break;
    default:
        err_set(&err, ERR_PROTOCOL, "unknown request %u", method);
        wire_reply_error(request, &err);
    }
}

static void destination_on_peer(void *user, struct wire_peer *peer, bool up)
{
    struct destination *d = user;
    struct err err;
    if (up || peer != d->source)
        return;
    destination_adopt(d, NULL);
    err_set(&err, ERR_UNAVAILABLE, "connection to the source lost");
    /* Once we have all of it, the hand-over may have come, or be on its way again over a new connection; the
     * controllers can still fence us. */
    if (d->phase == DESTINATION_RECEIVING && !d->state_complete)
        destination_fail(d, &err);
}

static void destination_on_gone(void *user, const struct err *err)
{
    struct destination *d = user;
    destination_fail(d, err);
}

static int destination_open(struct destination *d, const struct options *options, struct err *err)
{
    const struct guest_events events = {.on_resumed = destination_on_resumed,
        .on_migration = destination_on_migration,
        .on_gone = destination_on_gone,
        .user = d};
    const struct wire_options wire = {.handler = destination_on_message, .on_peer = destination_on_peer, .user = d};
    if (side_open(&d->side, options, &events, destination_on_cancel, destination_on_share, d, err) < 0)
        return -1;
    struct options_policy policy;
    if (options_policy(options, err, &policy) < 0)
        return -1;
    d->whole = policy.tracker == TRACKER_QEMU;
    d->ticks = hostticks_now();
    d->ear = ear_open(&d->side.loop, options->announce_ports, destination_on_heard, d);
    d->deadline = loop_timer_new(&d->side.loop, destination_late, d);
    d->announcer = loop_timer_new(&d->side.loop, destination_announce, d);
    d->starter = loop_timer_new(&d->side.loop, destination_start, d);
    if (snprintf(d->pipe_path, sizeof d->pipe_path, "%s.state", options->control_socket) >= (int)sizeof d->pipe_path)
        return err_set(err, ERR_INVALID, "control.socket is too long");
    snprintf(d->disks_path, sizeof d->disks_path, "%s.nbd", options->control_socket); /* shorter than the other */
    return wire_server_open(d->side.wire, options->listen, &wire, err, &d->server);
}

static void destination_close(struct destination *d)
{
    loop_timer_free(d->deadline);
    loop_timer_free(d->announcer);
    loop_timer_free(d->starter);
    receiver_close(d->receiver, NULL);
    tunnel_close(d->tunnel);
    statepipe_close(d->pipe);
    guestclock_free(&d->clock);
    wire_server_close(d->server);
    puller_close(d->puller);
    digests_free(&d->digests);
    image_close(d->image);
    relay_close(d->relay);
    ear_close(d->ear);
    side_close(&d->side);
    mirror_free(d->disks);
    if (d->announce_socket >= 0)
        close(d->announce_socket);
    record_unprepare(d->side.options->record_file);
}

/* While the source is being told where we listen: should the guest have to be given back later, the disk may be full.
 */
static void destination_prepare(struct destination *d)
{
    struct err err;
    const struct options *o = d->side.options;
    guest_prepare_destination(d->side.guest, d->pipe_path, d->whole, destination_prepared, d);
    if (record_prepare_failed(o->record_file, o->migration_id, &err) < 0)
        destination_fail(d, &err);
    crashpoint("destination", "return-prepared");
}

int destination_run(const struct options *options)
{
    struct destination *d = mem_zalloc(sizeof *d);
    struct err err;
    d->announce_socket = -1;
    if (destination_open(d, options, &err) < 0) {
        side_failed(&d->side, &err);
        d->phase = DESTINATION_FAILED;
        d->finished = true;
    } else {
        control_event(
            d->side.control, "listening", json_pack("{s:s}", "address", wire_server_address(d->server)), true);
        side_phase(&d->side, phases[d->phase].name);
        crashpoint("destination", phases[d->phase].name);
        loop_timer_start(d->deadline, LISTEN_MS, 0);
        destination_prepare(d);
    }
    while (!d->finished)
        uv_run(&d->side.loop, UV_RUN_DEFAULT);
    int status = d->phase == DESTINATION_DONE ? 0 : 1;
    destination_close(d);
    free(d);
    return status;
}
