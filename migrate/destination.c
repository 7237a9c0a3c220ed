#include "migrate/destination.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "migrate/addresses.h"
#include "migrate/announce.h"
#include "migrate/pack.h"
#include "migrate/mirror.h"
#include "migrate/puller.h"
#include "migrate/receiver.h"
#include "migrate/record.h"
#include "migrate/relay.h"
#include "migrate/seal.h"
#include "migrate/side.h"
#include "migrate/statepipe.h"
#include "migrate/tunnel.h"
#include "proto/engine.pb-c.h"

#define LISTEN_MS   60000u  /* nobody connects: give up */
#define LINGER_MS   5000u   /* after the start: the source may ask again if our answer was lost */
#define TOLD_MS     600000u /* after post-copy the source must learn that it may go */
#define STRIPES_MAX 16u
/* Switches learn from one frame; the others are for a lost one. */
static const uint32_t announce_at_ms[] = {0, 50, 200};
#define ANNOUNCEMENTS (sizeof announce_at_ms / sizeof *announce_at_ms)

enum destination_phase {
    DESTINATION_LISTENING,
    DESTINATION_RECEIVING,
    DESTINATION_READY,
    DESTINATION_OWNER,
    DESTINATION_POSTCOPY,
    DESTINATION_DONE,
    DESTINATION_FAILED,
    DESTINATION_PHASES
};

#define TO(phase) (1u << (phase))
static const struct {
    const char *name; /* as the control socket tells it */
    unsigned successors;
} phases[DESTINATION_PHASES] = {
    [DESTINATION_LISTENING] = {"listening", TO(DESTINATION_RECEIVING) | TO(DESTINATION_FAILED)},
    [DESTINATION_RECEIVING] = {"receiving", TO(DESTINATION_READY) | TO(DESTINATION_FAILED)},
    [DESTINATION_READY] = {"loading", TO(DESTINATION_OWNER) | TO(DESTINATION_FAILED)},
    [DESTINATION_OWNER] = {"started", TO(DESTINATION_POSTCOPY) | TO(DESTINATION_DONE) | TO(DESTINATION_FAILED)},
    [DESTINATION_POSTCOPY] = {"postcopy", TO(DESTINATION_DONE) | TO(DESTINATION_FAILED)},
    [DESTINATION_DONE] = {"done", 0},
    [DESTINATION_FAILED] = {"failed", 0},
};

struct destination {
    struct side side;
    enum destination_phase phase;
    struct wire_server *server;
    struct wire_peer *source; /* while it is connected */
    struct loop_timer *deadline, *announcer;
    struct receiver *receiver;
    struct puller *puller;  /* NULL: all pages come before the hand-over */
    struct digests digests; /* of what was received; empty: no receipt is wanted */
    char receipt[DIGEST_TEXT];
    struct statepipe *pipe;
    struct tunnel *tunnel; /* NULL: memory and devices come by themselves */
    bool whole;            /* both come in one stream of QEMU's */
    char pipe_path[108];
    bool naming;          /* stale pages are being named */
    struct mirror *disks; /* that come, too; NULL: none do */
    struct relay *relay;
    char disks_path[108];
    bool disks_open, disks_closed;                   /* QEMU offers them; does not any more */
    struct wire_request *disks_over;                 /* to be answered */
    bool prepared;                                   /* QEMU listens for device state */
    struct wire_request *hello, *verify, *hand_over; /* to be answered */
    uint64_t state_bytes;
    bool state_complete; /* all of it has come, and QEMU is loading it */
    uint64_t hand_over_ns, resumed_ns;
    struct addresses addresses; /* of the guest, to be announced */
    size_t announcements;
    bool farewell; /* the source has our answer, and after post-copy knows that all is here */
    bool finished;
};

static void destination_welcome(struct destination *d);

static void destination_move(struct destination *d, enum destination_phase to)
{
    ENSURE(phases[d->phase].successors & TO(to));
    d->phase = to;
    side_phase(&d->side, phases[to].name);
    crashpoint("destination", phases[to].name);
}

/* As source_trace(): where the blackout goes. */
static void destination_trace(const struct destination *d, const char *what)
{
    log_event(LOG_DEBUG, "switch.traced", "what=%s now_us=%" PRIu64 " state_bytes=%" PRIu64, what,
        clock_now_ns() / 1000, d->state_bytes);
}

static void destination_finish(void *user)
{
    struct destination *d = user;
    d->finished = true;
    uv_stop(&d->side.loop);
}

/* It has not run here and never will: that is recorded before anyone is told. From OWNER on it is ours, whatever goes
 * wrong. */
static void destination_fail(struct destination *d, const struct err *err)
{
    struct err why;
    if (d->phase == DESTINATION_DONE || d->phase == DESTINATION_FAILED)
        return;
    bool ours = d->phase == DESTINATION_OWNER || d->phase == DESTINATION_POSTCOPY;
    if (!ours && record_write(d->side.options->record_file, d->side.options->migration_id, "failed", &why) < 0)
        log_event(LOG_ERROR, "record.unwritten", "message=%s", LOG_QUOTE(why.message));
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

static void destination_late(void *user)
{
    struct destination *d = user;
    struct err err;
    err_set(&err, ERR_TIMEOUT, "no source came within %u s", LISTEN_MS / 1000);
    if (d->phase == DESTINATION_LISTENING)
        destination_fail(d, &err);
}

static void destination_on_broken(void *user, const struct err *err)
{
    struct destination *d = user;
    if (d->phase < DESTINATION_OWNER)
        destination_fail(d, err);
    else if (d->puller && d->phase < DESTINATION_DONE) /* the source notices, and asks for new stripes */
        log_event(LOG_WARN, "receive.failed", "message=%s", LOG_QUOTE(err->message));
}

/* ---- hand-over ---- */

/* Once the guest runs: over when the source has said that it has its answer, and the guest has been announced. */
static void destination_try_finish(struct destination *d)
{
    bool announced = d->announcements == ANNOUNCEMENTS || !d->side.options->announce_interface[0];
    if (d->phase == DESTINATION_DONE && d->farewell && announced)
        destination_finish(d);
}

static void destination_announce(void *user)
{
    struct destination *d = user;
    const char *list = d->side.options->announce_macs;
    struct err err;
    while (*list) {
        size_t len = strcspn(list, "\n");
        char mac[32];
        snprintf(mac, sizeof mac, "%.*s", (int)len, list);
        if (announce_mac(d->side.options->announce_interface, mac, &err) < 0)
            log_event(LOG_WARN, "announce.failed", "mac=%s message=%s", mac, LOG_QUOTE(err.message));
        list += len + (list[len] == '\n');
    }
    for (size_t i = 0; i < d->addresses.count; i++)
        if (announce_address(d->side.options->announce_interface, &d->addresses.list[i], &err) < 0)
            log_event(
                LOG_WARN, "announce.failed", "address=%s message=%s", d->addresses.text[i], LOG_QUOTE(err.message));
    if (++d->announcements < ANNOUNCEMENTS)
        loop_timer_start(d->announcer, announce_at_ms[d->announcements] - announce_at_ms[d->announcements - 1], 0);
    else
        destination_try_finish(d);
}

static void destination_answer(struct destination *d)
{
    Drover__EngineHandOverReply reply = DROVER__ENGINE_HAND_OVER_REPLY__INIT;
    reply.started_after_us = (d->resumed_ns - d->hand_over_ns) / 1000;
    reply.running_us = (clock_now_ns() - d->resumed_ns) / 1000;
    reply.receipt = d->receipt;
    wire_reply(d->hand_over, &reply.base);
    d->hand_over = NULL;
    crashpoint("destination", "hand-over-answered");
}

/* All of the guest is here. */
static void destination_done(struct destination *d)
{
    struct err err;
    /* Whoever finds us dead from here on has nothing left to fetch. */
    if (d->puller && record_write(d->side.options->record_file, d->side.options->migration_id, "owner", &err) < 0)
        log_event(LOG_WARN, "record.unwritten", "message=%s", LOG_QUOTE(err.message));
    destination_move(d, DESTINATION_DONE);
    json_t *postcopy = d->puller ? puller_report(d->puller) : NULL;
    control_event(d->side.control, "done", json_pack("{s:{s:o*}}", "record", "postcopy", postcopy), true);
    loop_timer_free(d->deadline);
    d->deadline = loop_timer_new(&d->side.loop, destination_finish, d);
    loop_timer_start(d->deadline, d->puller ? TOLD_MS : LINGER_MS, 0);
    destination_try_finish(d);
}

static void destination_on_resumed(void *user)
{
    struct destination *d = user;
    if (d->resumed_ns)
        return;
    d->resumed_ns = clock_now_ns();
    destination_trace(d, "resumed");
}

static void destination_started(void *user, const struct err *err)
{
    struct destination *d = user;
    if (err && err->code == ERR_TIMEOUT && d->puller) {
        /* QEMU itself waits for a page, perhaps until the connection is back. Asking twice does no harm. */
        guest_start(d->side.guest, destination_started, d);
        return;
    }
    if (err) {
        struct err why = *err;
        err_wrap(&why, "the guest is here but could not be started");
        destination_fail(d, &why);
        return;
    }
    destination_trace(d, "started");
    destination_on_resumed(d);
    crashpoint("destination", "guest-started");
    if (d->puller)
        destination_move(d, DESTINATION_POSTCOPY);
    if (d->hand_over)
        destination_answer(d);
    if (d->side.options->announce_interface[0])
        destination_announce(d);
    if (d->puller)
        puller_started(d->puller);
    else
        destination_done(d);
}

/* The source may come back over another connection. */
static void destination_adopt(struct destination *d, struct wire_peer *peer)
{
    d->source = peer;
    if (d->puller)
        puller_set_peer(d->puller, peer);
}

/* Handed over, and all of it is loaded: from the record on the guest is ours. */
static void destination_take(struct destination *d)
{
    struct err err;
    const struct options *o = d->side.options;
    if ((d->puller ? record_write_postcopy : record_write)(o->record_file, o->migration_id, "owner", &err) < 0) {
        destination_fail(d, &err);
        return;
    }
    destination_move(d, DESTINATION_OWNER);
    guest_start(d->side.guest, destination_started, d);
}

/* All pages were applied before the device state came; is what is held what was sent? */
static int destination_compare(struct destination *d, const uint8_t *body, size_t len, struct err *err)
{
    if (!d->digests.page || d->puller || d->receipt[0])
        return 0;
    Drover__EngineHandOver *hand_over = drover__engine_hand_over__unpack(NULL, len, body);
    int rc = hand_over ? 0 : err_set(err, ERR_PROTOCOL, "hand-over makes no sense");
    if (hand_over && hand_over->receipt[0]) {
        digests_root(&d->digests, d->receipt);
        if (strcmp(d->receipt, hand_over->receipt) != 0)
            rc = err_set(err, ERR_CORRUPT, "memory is not held as it was sent: receipt %s here, %.40s there",
                d->receipt, hand_over->receipt);
    }
    drover__engine_hand_over__free_unpacked(hand_over, NULL);
    return rc;
}

static void destination_on_hand_over(
    struct destination *d, struct wire_request *request, const uint8_t *body, size_t len)
{
    struct err err;
    bool first = !d->hand_over_ns;
    if (d->hand_over) { /* asked again because the first answer is late: the newest gets it */
        err_set(&err, ERR_BUSY, "asked again");
        wire_reply_error(d->hand_over, &err);
    }
    d->hand_over = request;
    if (first)
        d->hand_over_ns = clock_now_ns();
    destination_trace(d, "hand-over");
    crashpoint("destination", "hand-over-received");
    if (d->phase < DESTINATION_OWNER && destination_compare(d, body, len, &err) < 0) {
        destination_fail(d, &err);
    } else if (d->phase == DESTINATION_READY) {
        destination_take(d);
    } else if (d->phase == DESTINATION_POSTCOPY || d->phase == DESTINATION_DONE) {
        destination_answer(d);
    } else if (d->phase != DESTINATION_OWNER && !(d->phase == DESTINATION_RECEIVING && d->state_complete)) {
        err_set(&err, ERR_PROTOCOL, "handed over before everything was here");
        destination_fail(d, &err);
    }
}

/* ---- verifying ---- */

static void destination_hashed(void *user, const struct err *err, const char *hash)
{
    struct destination *d = user;
    if (err) {
        wire_reply_error(d->verify, err);
    } else {
        char text[RAM_HASH_TEXT];
        snprintf(text, sizeof text, "%s", hash);
        Drover__EngineVerifyReply reply = DROVER__ENGINE_VERIFY_REPLY__INIT;
        reply.hash = text;
        wire_reply(d->verify, &reply.base);
    }
    d->verify = NULL;
}

static void destination_on_verify(struct destination *d, struct wire_request *request)
{
    struct err err;
    if (d->phase != DESTINATION_READY || d->verify) {
        err_set(&err, ERR_PROTOCOL, "nothing to verify now");
        wire_reply_error(request, &err);
        return;
    }
    d->verify = request;
    side_hash(&d->side, destination_hashed, d);
}

/* ---- device state ---- */

static void destination_on_state(struct destination *d, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineState *state = drover__engine_state__unpack(NULL, len, body);
    uint8_t *room = mem_alloc(PACK_BYTES_MAX);
    const uint8_t *data = NULL;
    if (!state || state->offset != d->state_bytes || d->phase != DESTINATION_RECEIVING || d->state_complete || !d->pipe)
        err_set(&err, ERR_PROTOCOL, "device state came out of order");
    else
        data = unpack(state->data.data, state->data.len, state->unpacked_bytes, &err, room);
    if (data) {
        size_t bytes = state->unpacked_bytes ? state->unpacked_bytes : state->data.len;
        d->state_bytes += bytes;
        destination_trace(d, "state");
        statepipe_write(d->pipe, data, bytes);
    } else {
        destination_fail(d, &err);
    }
    free(room);
    drover__engine_state__free_unpacked(state, NULL);
}

static void destination_on_state_end(struct destination *d, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineStateEnd *end = drover__engine_state_end__unpack(NULL, len, body);
    uint64_t total = end ? end->total_bytes : UINT64_MAX;
    drover__engine_state_end__free_unpacked(end, NULL);
    if (d->tunnel)
        d->state_bytes = tunnel_stream_bytes(d->tunnel);
    if (d->disks && !d->disks_closed)
        total = UINT64_MAX; /* a device must not be loaded while somebody else may write its disk */
    d->state_complete = total == d->state_bytes;
    destination_trace(d, "state-complete");
    crashpoint("destination", "state-received");
    if (d->state_complete)
        return;
    err_set(&err, ERR_PROTOCOL, "device state is incomplete");
    destination_on_broken(d, &err);
}

static void destination_on_migration(void *user, const char *status)
{
    struct destination *d = user;
    struct err err;
    if (strcmp(status, "failed") == 0) {
        err_set(&err, ERR_INTERNAL, "QEMU could not load the device state; its log says why");
        destination_on_broken(d, &err);
        return;
    }
    destination_trace(d, status);
    if (strcmp(status, "completed") != 0 || d->phase != DESTINATION_RECEIVING)
        return;
    destination_move(d, DESTINATION_READY);
    if (d->hand_over)
        destination_take(d);
    Drover__EngineReady ready = DROVER__ENGINE_READY__INIT;
    /* Without a connection, or if it breaks now, the hand-over may still come over a new one. */
    if (d->phase != DESTINATION_FAILED && d->source &&
        wire_note(d->source, DROVER__ENGINE_METHOD__ENGINE_READY, &ready.base, &err) < 0)
        log_event(LOG_INFO, "ready.unsent", "message=%s", LOG_QUOTE(err.message));
    crashpoint("destination", "ready-sent");
}

/* ---- stripes ---- */

/* The IP we listen at. */
static void destination_host(const struct destination *d, char *out, size_t size)
{
    const char *address = wire_server_address(d->server) + strlen("tcp://");
    snprintf(out, size, "%.*s", (int)(strrchr(address, ':') - address), address);
}

/* What comes through it goes to QEMU as it is. */
static int destination_open_tunnel(struct destination *d, const char *host, const uint8_t *key, struct err *err)
{
    const struct tunnel_options options = {
        .key = key, .socket = d->pipe_path, .host = host, .on_failed = destination_on_broken, .user = d};
    return tunnel_open_destination(&d->side.loop, &options, err, &d->tunnel);
}

static int destination_open_receiver(struct destination *d, const uint8_t *key, struct err *err)
{
    char host[64];
    destination_host(d, host, sizeof host);
    if (d->whole)
        return destination_open_tunnel(d, host, key, err);
    struct receiver_options options = {
        .ram = &d->side.ram,
        .filler = d->puller ? puller_filler(d->puller) : NULL,
        .digests = d->digests.page ? &d->digests : NULL,
        .key = key,
        .host = host,
        .stripes = (uint32_t)d->side.options->stripes,
        .on_failed = destination_on_broken,
        .user = d,
    };
    return receiver_open(&d->side.loop, &options, err, &d->receiver);
}

static size_t destination_addresses(const struct destination *d, char *out[static STRIPES_MAX])
{
    if (d->tunnel) {
        out[0] = (char *)tunnel_address(d->tunnel);
        return 1;
    }
    for (uint32_t i = 0; i < d->side.options->stripes; i++)
        out[i] = (char *)receiver_address(d->receiver, i);
    return d->side.options->stripes;
}

/* ---- post-copy ---- */

static void destination_on_all_here(void *user)
{
    destination_done(user);
}

static void destination_on_told(void *user)
{
    struct destination *d = user;
    d->farewell = true;
    destination_try_finish(d);
}

static void destination_on_puller_failed(void *user, const struct err *err)
{
    destination_fail(user, err);
}

static void destination_on_postcopy(struct destination *d, struct wire_request *request)
{
    const struct puller_options options = {
        .side = &d->side,
        .on_complete = destination_on_all_here,
        .on_told = destination_on_told,
        .on_failed = destination_on_puller_failed,
        .user = d,
    };
    struct err err;
    if (d->phase != DESTINATION_RECEIVING || d->puller || d->state_bytes || d->tunnel)
        err_set(&err, ERR_PROTOCOL, "post-copy is not possible now");
    else if (puller_open(&options, &err, &d->puller) == 0) {
        Drover__EnginePostcopyReply reply = DROVER__ENGINE_POSTCOPY_REPLY__INIT;
        d->naming = true;
        puller_set_peer(d->puller, d->source);
        wire_reply(request, &reply.base);
        crashpoint("destination", "postcopy-armed");
        return;
    }
    wire_reply_error(request, &err);
}

static void destination_on_stale(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len)
{
    struct err err;
    bool last = false;
    if (!d->puller || !d->naming) {
        err_set(&err, ERR_PROTOCOL, "no pages may become stale now");
        wire_reply_error(request, &err);
        return;
    }
    if (puller_take_stale(d->puller, body, len, &err, &last) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    Drover__EngineStaleReply reply = DROVER__ENGINE_STALE_REPLY__INIT;
    wire_reply(request, &reply.base);
    if (!last)
        return;
    receiver_fill(d->receiver, puller_filler(d->puller));
    d->naming = false;
    crashpoint("destination", "stale-named");
}

static void destination_on_resume(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineResume *resume = drover__engine_resume__unpack(NULL, len, body);
    int rc = -1;
    if (!resume || resume->bulk_key.len != SEAL_KEY_BYTES)
        err_set(&err, ERR_PROTOCOL, "resume makes no sense");
    else if (strcmp(resume->migration_id, d->side.options->migration_id) != 0)
        err_set(&err, ERR_INVALID, "this engine serves another migration");
    else if (!d->puller || d->phase < DESTINATION_OWNER || d->phase > DESTINATION_DONE)
        err_set(&err, ERR_STATE, "there is nothing to resume");
    else {
        receiver_close(d->receiver, NULL);
        d->receiver = NULL;
        rc = destination_open_receiver(d, resume->bulk_key.data, &err);
    }
    drover__engine_resume__free_unpacked(resume, NULL);
    if (rc < 0) {
        wire_reply_error(request, &err);
        return;
    }
    char *addresses[STRIPES_MAX];
    Drover__EngineResumeReply reply = DROVER__ENGINE_RESUME_REPLY__INIT;
    reply.n_bulk_addresses = destination_addresses(d, addresses);
    reply.bulk_addresses = addresses;
    reply.window_bytes = RECEIVER_WINDOW_BYTES;
    wire_reply(request, &reply.base);
    destination_adopt(d, peer);
}

static void destination_on_missing(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len)
{
    struct err err;
    if (d->puller) {
        puller_answer_missing(d->puller, request, body, len);
        return;
    }
    err_set(&err, ERR_PROTOCOL, "no page is missing here");
    wire_reply_error(request, &err);
}

static void destination_on_pages(struct destination *d, const uint8_t *body, size_t len)
{
    struct err err;
    if (d->puller && puller_take_pages(d->puller, body, len, &err) < 0)
        destination_on_broken(d, &err);
}

/* ---- disks ---- */

static void destination_disks_offered(void *user)
{
    struct destination *d = user;
    d->disks_open = true;
    destination_welcome(d);
}

static int destination_open_disks(struct destination *d, const uint8_t *key, struct err *err)
{
    char host[64];
    const struct mirror_options mirror = {
        .qmp = guest_qmp(d->side.guest),
        .numbers = d->side.options->disks,
        .path = d->disks_path,
        .id = d->side.options->migration_id,
        .on_exported = destination_disks_offered,
        .on_failed = destination_on_broken,
        .user = d,
    };
    destination_host(d, host, sizeof host);
    if (relay_open_destination(&d->side.loop, host, d->disks_path, key, err, &d->relay) < 0 ||
        mirror_new(&mirror, err, &d->disks) < 0)
        return -1;
    mirror_export(d->disks);
    return 0;
}

static void destination_disks_closed(void *user, const struct err *err, json_t *result)
{
    struct destination *d = user;
    (void)result;
    if (!d->disks_over || (err && err->code == ERR_CANCELLED))
        return;
    d->disks_closed = err == NULL;
    Drover__EngineDisksOverReply reply = DROVER__ENGINE_DISKS_OVER_REPLY__INIT;
    if (err)
        wire_reply_error(d->disks_over, err);
    else
        wire_reply(d->disks_over, &reply.base);
    d->disks_over = NULL;
    crashpoint("destination", "disks-taken");
}

/* The guest stands still there, and its disks are equal to ours: QEMU stops offering them before it loads any device
 * that uses them. */
static void destination_on_disks_over(struct destination *d, struct wire_request *request)
{
    struct err err;
    if (d->phase != DESTINATION_RECEIVING || !d->disks || d->disks_over || d->disks_closed) {
        err_set(&err, ERR_PROTOCOL, "no disks to take over now");
        wire_reply_error(request, &err);
        return;
    }
    d->disks_over = request;
    mirror_unexport(d->disks, destination_disks_closed, d);
}

/* ---- hello ---- */

/* Answers the hello once QEMU listens for device state and the stripes are open. */
static void destination_welcome(struct destination *d)
{
    if (!d->prepared || !d->hello || (d->disks && !d->disks_open))
        return;
    struct err err;
    struct statepipe_options pipe = {.on_failed = destination_on_broken, .user = d};
    if (!d->tunnel && statepipe_connect(&d->side.loop, d->pipe_path, &pipe, &err, &d->pipe) < 0) {
        destination_fail(d, &err);
        return;
    }
    char *addresses[STRIPES_MAX];
    Drover__EngineHelloReply reply = DROVER__ENGINE_HELLO_REPLY__INIT;
    reply.n_bulk_addresses = destination_addresses(d, addresses);
    reply.bulk_addresses = addresses;
    reply.window_bytes = RECEIVER_WINDOW_BYTES;
    reply.disk_address = d->relay ? (char *)relay_address(d->relay) : reply.disk_address;
    wire_reply(d->hello, &reply.base);
    d->hello = NULL;
    crashpoint("destination", "welcomed");
}

static void destination_take_addresses(struct destination *d, const Drover__EngineHello *hello)
{
    const struct options *o = d->side.options;
    struct err err;
    addresses_take(hello->addresses, hello->n_addresses, o->announce_macs, &d->addresses);
    if (o->announce_addresses[0] && addresses_save(&d->addresses, o->announce_addresses, &err) < 0)
        log_event(LOG_WARN, "addresses.unsaved", "message=%s", LOG_QUOTE(err.message));
}

static int destination_accept(struct destination *d, const Drover__EngineHello *hello, struct err *err)
{
    const struct options *o = d->side.options;
    if (d->phase != DESTINATION_LISTENING)
        return err_set(err, ERR_BUSY, "this engine serves one migration, and it has begun");
    if (strcmp(hello->migration_id, o->migration_id) != 0)
        return err_set(err, ERR_INVALID, "this engine waits for another migration");
    if (hello->page_bytes != PAGE_BYTES || hello->ram_bytes != o->ram_bytes || hello->stripes != o->stripes ||
        hello->bulk_key.len != SEAL_KEY_BYTES)
        return err_set(err, ERR_INVALID, "RAM, page size or stripes differ: %llu bytes there, %llu here",
            (unsigned long long)hello->ram_bytes, (unsigned long long)o->ram_bytes);
    if (strcmp(hello->disks, o->disks) != 0)
        return err_set(
            err, ERR_INVALID, "disks '%.64s' are to come, and '%.64s' are waited for", hello->disks, o->disks);
    if (hello->whole != d->whole)
        return err_set(err, ERR_INVALID, "tracker.kind must be qemu on both sides or on none; it is on the %s",
            d->whole ? "destination" : "source");
    if (hello->receipt)
        digests_init(&d->digests, d->side.ram.pages, seal_derive(hello->bulk_key.data, "page digests"));
    destination_take_addresses(d, hello);
    if (destination_open_receiver(d, hello->bulk_key.data, err) < 0)
        return -1;
    return o->disks[0] ? destination_open_disks(d, hello->bulk_key.data, err) : 0;
}

static void destination_on_hello(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineHello *hello = drover__engine_hello__unpack(NULL, len, body);
    int rc = hello ? destination_accept(d, hello, &err) : err_set(&err, ERR_PROTOCOL, "hello makes no sense");
    drover__engine_hello__free_unpacked(hello, NULL);
    if (rc < 0) {
        wire_reply_error(request, &err);
        return;
    }
    d->source = peer;
    d->hello = request;
    loop_timer_stop(d->deadline);
    destination_move(d, DESTINATION_RECEIVING);
    destination_welcome(d);
}

static void destination_prepared(void *user, const struct err *err)
{
    struct destination *d = user;
    if (err) {
        destination_on_broken(d, err);
        return;
    }
    d->prepared = true;
    destination_welcome(d);
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
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_FAREWELL) {
        crashpoint("destination", "farewell-received");
        d->farewell = true;
        destination_try_finish(d);
    } else if (method == DROVER__ENGINE_METHOD__ENGINE_ABORT) {
        Drover__EngineAbort *abort = drover__engine_abort__unpack(NULL, len, body);
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
        if (peer == d->source ||
            method == DROVER__ENGINE_METHOD__ENGINE_FAREWELL) /* that may come over a new connection */
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
    case DROVER__ENGINE_METHOD__ENGINE_HAND_OVER:
        destination_adopt(d, peer);
        destination_on_hand_over(d, request, body, len);
        break;
    case DROVER__ENGINE_METHOD__ENGINE_DISKS_OVER:
        destination_on_disks_over(d, request);
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
    if (side_open(&d->side, options, &events, destination_on_cancel, d, err) < 0)
        return -1;
    struct options_policy policy;
    if (options_policy(options, err, &policy) < 0)
        return -1;
    d->whole = policy.tracker == TRACKER_QEMU;
    d->deadline = loop_timer_new(&d->side.loop, destination_late, d);
    d->announcer = loop_timer_new(&d->side.loop, destination_announce, d);
    if (snprintf(d->pipe_path, sizeof d->pipe_path, "%s.state", options->control_socket) >= (int)sizeof d->pipe_path)
        return err_set(err, ERR_INVALID, "control.socket is too long");
    snprintf(d->disks_path, sizeof d->disks_path, "%s.nbd", options->control_socket); /* shorter than the other */
    return wire_server_open(d->side.wire, options->listen, &wire, err, &d->server);
}

static void destination_close(struct destination *d)
{
    loop_timer_free(d->deadline);
    loop_timer_free(d->announcer);
    receiver_close(d->receiver, NULL);
    tunnel_close(d->tunnel);
    statepipe_close(d->pipe);
    wire_server_close(d->server);
    puller_close(d->puller);
    digests_free(&d->digests);
    relay_close(d->relay);
    side_close(&d->side);
    mirror_free(d->disks);
}

int destination_run(const struct options *options)
{
    struct destination *d = mem_zalloc(sizeof *d);
    struct err err;
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
        guest_prepare_destination(d->side.guest, d->pipe_path, d->whole, destination_prepared, d);
    }
    while (!d->finished)
        uv_run(&d->side.loop, UV_RUN_DEFAULT);
    int status = d->phase == DESTINATION_DONE ? 0 : 1;
    destination_close(d);
    free(d);
    return status;
}
