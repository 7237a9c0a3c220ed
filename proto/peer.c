#include "proto/peer.h"

#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"

/* What a peer that sends requests faster than we answer may pile up, in queues' lengths. */
#define PEER_REQUEST_QUEUES 4

struct peer_call {
    uv_timer_t timer;
    struct idmap_node node; /* in wire->calls, while under way */
    TAILQ_ENTRY(peer_call) link;
    struct wire_peer *peer; /* NULL: it has ended, the timer only brings the news */
    uint64_t id;
    uint32_t method, deadline_ms;
    bool under_way;
    uint64_t arrived; /* an answer to it shows that so many frames have arrived */
    uint8_t *packed;  /* the request, while it waits. Owned. */
    size_t packed_len;
    struct err *failure; /* Owned. */
    wire_reply_fn fn;
    void *user;
};

struct wire_request {
    struct wire_peer *peer; /* NULL: gone */
    TAILQ_ENTRY(wire_request) link;
    uint64_t id;
    struct principal principal;
};

void peer_init(struct wire_peer *peer, struct wire *wire, const struct wire_options *options, const char *name)
{
    peer->wire = wire;
    peer->options = options;
    peer->max_message = options->max_message;
    snprintf(peer->principal.name, sizeof peer->principal.name, "%s", name);
    TAILQ_INIT(&peer->waiting);
    TAILQ_INIT(&peer->calls);
    TAILQ_INIT(&peer->failing);
    TAILQ_INIT(&peer->requests);
}

const struct principal *wire_peer_principal(const struct wire_peer *peer)
{
    return &peer->principal;
}

const char *wire_peer_ip(const struct wire_peer *peer)
{
    return peer->ip;
}

void wire_peer_set_data(struct wire_peer *peer, void *data)
{
    peer->data = data;
}

void *wire_peer_data(const struct wire_peer *peer)
{
    return peer->data;
}

/* --- calls we make --- */

static void call_freed(uv_handle_t *handle)
{
    struct peer_call *call = handle->data;
    free(call->packed);
    free(call->failure);
    free(call);
}

static struct peer_calls *call_list(const struct peer_call *call)
{
    if (call->failure)
        return &call->peer->failing;
    return call->under_way ? &call->peer->calls : &call->peer->waiting;
}

static void call_unlink(struct peer_call *call)
{
    if (!call->peer)
        return;
    if (call->under_way && !call->failure)
        idmap_remove(&call->peer->wire->calls, &call->node);
    TAILQ_REMOVE(call_list(call), call, link);
    call->peer = NULL;
}

static void call_finish(struct peer_call *call, const struct err *err, const uint8_t *body, size_t len)
{
    call_unlink(call);
    uv_close((uv_handle_t *)&call->timer, call_freed);
    call->fn(call->user, err, body, len);
}

static void call_timed_out(uv_timer_t *timer)
{
    struct peer_call *call = timer->data;
    struct err err;
    if (call->failure) {
        err = *call->failure;
    } else if (call->under_way) {
        err_set(&err, ERR_TIMEOUT, "no answer from %s within %u ms", call->peer->principal.name, call->deadline_ms);
    } else {
        err_set(
            &err, ERR_UNAVAILABLE, "no connection to %s within %u ms", call->peer->principal.name, call->deadline_ms);
    }
    call_finish(call, &err, NULL, 0);
}

/* Fails a call, but not from inside the function that made it. A peer that has ended keeps no calls: it may be freed.
 */
static void call_fail_soon(struct wire_peer *peer, struct peer_call *call, const struct err *err)
{
    call_unlink(call);
    call->failure = mem_alloc(sizeof *call->failure);
    *call->failure = *err;
    uv_timer_start(&call->timer, call_timed_out, 0, 0);
    if (peer->ended)
        return;
    call->peer = peer;
    TAILQ_INSERT_TAIL(&peer->failing, call, link);
}

static enum peer_sent call_send(struct wire_peer *peer, struct peer_call *call, const ProtobufCMessage *body)
{
    uint64_t left_ms = uv_timer_get_due_in(&call->timer);
    struct frame frame = {
        .kind = DROVER__FRAME_KIND__FRAME_REQUEST,
        .id = call->id,
        .method = call->method,
        .deadline_ms = left_ms ? (uint32_t)left_ms : 1,
        .body = body,
        .packed = call->packed,
        .packed_len = call->packed_len,
    };
    enum peer_sent sent = peer->send(peer, &frame);
    if (sent == PEER_SENT) {
        call->under_way = true;
        call->arrived = peer->sent;
        idmap_add(&peer->wire->calls, call->id, &call->node);
        TAILQ_INSERT_TAIL(&peer->calls, call, link);
    }
    return sent;
}

static void call_wait(struct wire_peer *peer, struct peer_call *call, const ProtobufCMessage *body)
{
    call->packed_len = protobuf_c_message_get_packed_size(body);
    call->packed = mem_alloc(call->packed_len);
    protobuf_c_message_pack(body, call->packed);
    TAILQ_INSERT_TAIL(&peer->waiting, call, link);
}

void wire_call(struct wire_peer *peer, uint32_t method, const ProtobufCMessage *request, uint32_t deadline_ms,
    wire_reply_fn fn, void *user)
{
    ENSURE(deadline_ms > 0 && method > 0 && fn != NULL);
    struct wire *wire = peer->wire;
    struct peer_call *call = mem_zalloc(sizeof *call);
    call->method = method;
    call->deadline_ms = deadline_ms;
    call->fn = fn;
    call->user = user;
    uv_timer_init(wire->loop, &call->timer);
    call->timer.data = call;
    uv_update_time(wire->loop);
    uv_timer_start(&call->timer, call_timed_out, deadline_ms, 0);

    struct err err;
    size_t size = protobuf_c_message_get_packed_size(request);
    if (peer->ended || peer->refusal.code != ERR_NONE) {
        err = peer->refusal;
        if (peer->ended)
            err_set(&err, ERR_UNAVAILABLE, "%s is gone", peer->principal.name);
        call_fail_soon(peer, call, &err);
        return;
    }
    if (size > peer->max_message) {
        err_set(&err, ERR_INVALID, "request of %zu bytes; %s takes %u", size, peer->principal.name, peer->max_message);
        call_fail_soon(peer, call, &err);
        return;
    }
    call->peer = peer;
    call->id = ++wire->last_id;
    enum peer_sent sent = TAILQ_EMPTY(&peer->waiting) ? call_send(peer, call, request) : PEER_WAIT;
    if (sent == PEER_SENT)
        return;
    if (sent == PEER_WAIT) {
        call_wait(peer, call, request);
        return;
    }
    call->peer = NULL; /* it is in no list yet */
    if (sent == PEER_FULL)
        err_set(&err, ERR_UNAVAILABLE, "the queue to %s is full", peer->principal.name);
    else
        err_set(&err, ERR_UNAVAILABLE, "connection to %s lost", peer->principal.name);
    call_fail_soon(peer, call, &err);
}

void peer_flush(struct wire_peer *peer)
{
    struct peer_call *call;
    while ((call = TAILQ_FIRST(&peer->waiting)) != NULL) {
        if (call->packed_len > peer->max_message) {
            struct err err;
            err_set(&err, ERR_INVALID, "request of %zu bytes; %s takes %u", call->packed_len, peer->principal.name,
                peer->max_message);
            call_fail_soon(peer, call, &err);
            continue;
        }
        TAILQ_REMOVE(&peer->waiting, call, link);
        call->id = ++peer->wire->last_id; /* ids grow in the order of sending */
        if (call_send(peer, call, NULL) != PEER_SENT) {
            TAILQ_INSERT_HEAD(&peer->waiting, call, link);
            return;
        }
        free(call->packed);
        call->packed = NULL;
    }
}

void peer_fail_calls(struct wire_peer *peer, bool waiting_too, const struct err *err)
{
    /* Callbacks may make new calls; those are not meant, so what is meant is counted first. */
    size_t count = 0;
    struct peer_call *call, *old = waiting_too ? TAILQ_FIRST(&peer->failing) : NULL;
    for (; old; old = TAILQ_NEXT(old, link))
        count++;
    while (
        (call = TAILQ_FIRST(&peer->calls)) != NULL || (waiting_too && (call = TAILQ_FIRST(&peer->waiting)) != NULL)) {
        call_unlink(call);
        call->peer = peer;
        call->failure = mem_alloc(sizeof *call->failure);
        *call->failure = *err;
        TAILQ_INSERT_HEAD(&peer->failing, call, link);
        count++;
    }
    while (count-- > 0 && (call = TAILQ_FIRST(&peer->failing)) != NULL) {
        struct err failure = *call->failure;
        call_finish(call, &failure, NULL, 0);
    }
}

static bool peer_take_reply(struct wire_peer *peer, const Drover__Frame *frame, struct err *err)
{
    if (frame->id > peer->wire->last_id) {
        err_set(err, ERR_PROTOCOL, "reply to a request that was never made");
        return false;
    }
    struct idmap_node *node = idmap_find(&peer->wire->calls, frame->id);
    struct peer_call *call = node ? IDMAP_ENTRY(node, struct peer_call, node) : NULL;
    if (!call || call->peer != peer) {
        wire_rejected(peer->wire, peer->principal.name, "reply to a request that has ended"); /* late: no offence */
        return true;
    }
    if (call->arrived > peer->arrived)
        peer->arrived = call->arrived;
    if (frame->error) {
        struct err failure;
        frame_error(frame, &failure);
        call_finish(call, &failure, NULL, 0);
    } else {
        call_finish(call, NULL, frame->body.data, frame->body.len);
    }
    return true;
}

/* --- requests of the peer --- */

static void peer_reply(struct wire_peer *peer, uint64_t id, const ProtobufCMessage *reply, const struct err *err)
{
    struct err refusal;
    size_t size = reply ? protobuf_c_message_get_packed_size(reply) : 0;
    if (size > peer->max_message) {
        err_set(&refusal, ERR_CAPACITY, "the answer has %zu bytes, and %u is the limit: ask for less", size,
            peer->max_message);
        err = &refusal;
        reply = NULL;
    }
    struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_REPLY, .id = id, .error = err, .body = reply};
    /* One that cannot be sent is lost with its session: `send` sees to that. */
    (void)peer->send(peer, &frame);
}

static void request_finish(struct wire_request *request, const ProtobufCMessage *reply, const struct err *err)
{
    struct wire_peer *peer = request->peer;
    if (peer) {
        TAILQ_REMOVE(&peer->requests, request, link);
        peer->request_count--;
        peer_reply(peer, request->id, reply, err);
    }
    free(request);
}

void wire_reply(struct wire_request *request, const ProtobufCMessage *reply)
{
    ENSURE(reply != NULL);
    request_finish(request, reply, NULL);
}

void wire_reply_error(struct wire_request *request, const struct err *err)
{
    ENSURE(err != NULL && err->code != ERR_NONE);
    request_finish(request, NULL, err);
}

const struct principal *wire_request_principal(const struct wire_request *request)
{
    return &request->principal;
}

static bool peer_take_request(struct wire_peer *peer, const Drover__Frame *frame, struct err *err)
{
    if (frame->id <= peer->last_request_id) {
        err_set(err, ERR_PROTOCOL, "request with a number that was used already");
        return false;
    }
    peer->last_request_id = frame->id;
    struct err refusal = {.code = ERR_NONE};
    if (!peer->options->handler)
        err_set(&refusal, ERR_UNSUPPORTED, "this side takes no requests");
    else if (peer->request_count >= peer->options->queue_messages * (uint64_t)PEER_REQUEST_QUEUES)
        err_set(&refusal, ERR_BUSY, "%u requests are waiting for their answers already", peer->request_count);
    if (refusal.code != ERR_NONE) {
        peer_reply(peer, frame->id, NULL, &refusal);
        return true;
    }
    struct wire_request *request = mem_zalloc(sizeof *request);
    request->peer = peer;
    request->id = frame->id;
    request->principal = peer->principal;
    TAILQ_INSERT_TAIL(&peer->requests, request, link);
    peer->request_count++;
    peer->options->handler(peer->options->user, request, peer, frame->method, frame->body.data, frame->body.len);
    return true;
}

void peer_reset(struct wire_peer *peer)
{
    struct wire_request *request;
    while ((request = TAILQ_FIRST(&peer->requests)) != NULL) {
        TAILQ_REMOVE(&peer->requests, request, link);
        request->peer = NULL;
    }
    peer->request_count = 0;
    peer->last_request_id = 0;
    peer->sent = peer->arrived = 0;
}

/* --- the rest --- */

int wire_note(struct wire_peer *peer, uint32_t method, const ProtobufCMessage *message, struct err *err)
{
    ENSURE(method > 0);
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > peer->max_message)
        return err_set(
            err, ERR_INVALID, "message of %zu bytes; %s takes %u", size, peer->principal.name, peer->max_message);
    struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_NOTE, .method = method, .body = message};
    switch (peer->ended ? PEER_GONE : peer->send(peer, &frame)) {
    case PEER_SENT:
        return 0;
    case PEER_FULL:
    case PEER_WAIT:
        return err_set(err, ERR_UNAVAILABLE, "%s is not connected or its queue is full", peer->principal.name);
    case PEER_GONE:
        break;
    }
    return err_set(err, ERR_UNAVAILABLE, "connection to %s lost", peer->principal.name);
}

static bool peer_take_pong(struct wire_peer *peer, const Drover__Frame *frame, struct err *err)
{
    if (frame->id > peer->sent) {
        err_set(err, ERR_PROTOCOL, "answer to a ping that was never sent");
        return false;
    }
    if (frame->id > peer->arrived)
        peer->arrived = frame->id;
    return true;
}

bool peer_dispatch(struct wire_peer *peer, const Drover__Frame *frame, struct err *err)
{
    struct frame pong = {.kind = DROVER__FRAME_KIND__FRAME_PONG, .id = frame->id};
    switch (frame->kind) {
    case DROVER__FRAME_KIND__FRAME_REQUEST:
        return peer_take_request(peer, frame, err);
    case DROVER__FRAME_KIND__FRAME_REPLY:
        return peer_take_reply(peer, frame, err);
    case DROVER__FRAME_KIND__FRAME_NOTE:
        if (peer->options->handler)
            peer->options->handler(peer->options->user, NULL, peer, frame->method, frame->body.data, frame->body.len);
        else
            wire_rejected(peer->wire, peer->principal.name, "note to a side that takes none");
        return true;
    case DROVER__FRAME_KIND__FRAME_PING:
        (void)peer->send(peer, &pong);
        return true;
    case DROVER__FRAME_KIND__FRAME_PONG:
        return peer_take_pong(peer, frame, err);
    default:
        err_set(err, ERR_PROTOCOL, "frame of kind %d where none is due", (int)frame->kind);
        return false;
    }
}
