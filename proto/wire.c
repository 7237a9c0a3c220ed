#include "proto/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/address.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "proto/context.h"
#include "proto/zap.h"

int wire_new(uv_loop_t *loop, const struct key_pair *key, const char *program, wire_auth_fn auth, void *user,
    struct err *err, struct wire **out)
{
    struct wire *wire = mem_zalloc(sizeof *wire);
    wire->loop = loop;
    wire->key = *key;
    wire->tick_ms = WIRE_TICK_MS;
    wire->auth = auth;
    wire->auth_user = user;
    snprintf(wire->program, sizeof wire->program, "%s", program);
    wire->zmq = zmq_ctx_new();
    if (!wire->zmq) {
        err_set(err, ERR_INTERNAL, "cannot make a ZeroMQ context: %s", zmq_strerror(errno));
        goto fail;
    }
    if (!zmq_has("curve")) {
        err_set(err, ERR_UNSUPPORTED, "this libzmq was built without CURVE");
        goto fail;
    }
    if (zap_open(wire, err, &wire->zap) < 0)
        goto fail;
    *out = wire;
    return 0;
fail:
    wire_free(wire);
    return -1;
}

void wire_free(struct wire *wire)
{
    if (!wire)
        return;
    ENSURE(wire->sockets == 0);
    zap_close(wire->zap);
    while (wire->zmq && zmq_ctx_term(wire->zmq) < 0)
        ENSURE(errno == EINTR);
    idmap_free(&wire->calls);
    key_wipe(&wire->key, sizeof wire->key);
    free(wire);
}

void wire_counters(const struct wire *wire, struct wire_counters *out)
{
    *out = wire->counters;
}

bool wire_authorize(const struct wire *wire, const uint8_t key[KEY_BYTES], struct principal *out)
{
    memset(out, 0, sizeof *out);
    return wire->auth && wire->auth(wire->auth_user, key, out);
}

/* Strangers must not be able to fill the disk with our log. */
static bool wire_may_log(struct wire *wire)
{
    uint64_t now_ms = clock_now_ms();
    if (wire->logged_ms && now_ms - wire->logged_ms < 1000) {
        wire->unlogged++;
        return false;
    }
    wire->logged_ms = now_ms;
    return true;
}

void wire_rejected(struct wire *wire, const char *from, const char *why)
{
    wire->counters.rejected++;
    if (!wire_may_log(wire))
        return;
    log_event(
        LOG_WARN, "wire.rejected", "from=%s why=%s unlogged=%" PRIu64, LOG_QUOTE(from), LOG_QUOTE(why), wire->unlogged);
    wire->unlogged = 0;
}

void wire_refused(struct wire *wire, const char *from, const char *key)
{
    wire->counters.refused++;
    if (!wire_may_log(wire))
        return;
    log_event(LOG_WARN, "wire.refused", "from=%s key=%s why=\"unknown key\" unlogged=%" PRIu64, LOG_QUOTE(from),
        LOG_QUOTE(key), wire->unlogged);
    wire->unlogged = 0;
}

struct wire_options wire_options_fill(const struct wire_options *options)
{
    struct wire_options filled = *options;
    if (filled.max_message == 0)
        filled.max_message = WIRE_MESSAGE_MAX;
    if (filled.max_message < FRAME_ENVELOPE_MAX) /* what a hello may not go below */
        filled.max_message = FRAME_ENVELOPE_MAX;
    if (filled.queue_messages == 0)
        filled.queue_messages = WIRE_QUEUE_MESSAGES;
    return filled;
}

int wire_address_check(const char *address, unsigned port_min, struct err *err)
{
    struct address parsed;
    if (address_parse(address, err, &parsed) < 0)
        return -1;
    if (parsed.port < port_min)
        return err_set(err, ERR_INVALID, "address '%.100s' needs a port of %u to 65535", address, port_min);
    return 0;
}

void wire_socket_setup(struct wire *wire, struct zsock *zsock, const struct wire_options *options)
{
    void *socket = zsock_socket(zsock);
    ENSURE(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, wire->key.public_key, KEY_BYTES) == 0);
    ENSURE(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, wire->key.secret_key, KEY_BYTES) == 0);
    /* What is beyond even the envelope's slack is cut off by ZeroMQ before it takes up memory; CURVE adds some 50
     * bytes. */
    int64_t max = (int64_t)options->max_message + 2 * FRAME_ENVELOPE_MAX;
    ENSURE(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof max) == 0);
    zsock_set(zsock, ZMQ_LINGER, WIRE_LINGER_MS);
    zsock_set(zsock, ZMQ_HANDSHAKE_IVL, WIRE_HANDSHAKE_MS);
    /* Not ZeroMQ's heartbeats: in libzmq 4.3.4 their timer writes to a connection whose input was stopped when it
     * broke, and the assertion "!_io_error" ends the process. TCP gives up on a dead machine or network after the same
     * time. */
    zsock_set(zsock, ZMQ_TCP_MAXRT, WIRE_TCP_TIMEOUT_MS);
    /* What ZeroMQ takes in before we look at it: beyond that the sender's TCP has to wait. */
    uint32_t fit = (uint32_t)(WIRE_QUEUE_BYTES / (uint64_t)max);
    if (fit < WIRE_QUEUE_MIN)
        fit = WIRE_QUEUE_MIN;
    zsock_set(zsock, ZMQ_RCVHWM, (int)(fit < options->queue_messages ? fit : options->queue_messages));
}

void wire_encode(struct wire *wire, const struct frame *frame, struct backlog *backlog, zmq_msg_t *out)
{
    size_t size = frame_size(frame);
    if (backlog)
        backlog_message(backlog, size, out);
    else
        ENSURE(zmq_msg_init_size(out, size) == 0);
    frame_encode(frame, zmq_msg_data(out));
    wire->counters.messages_out++;
    wire->counters.bytes_out += size;
}

void wire_hello(struct wire *wire, const struct wire_options *options, Drover__FrameKind kind, uint64_t id,
    Drover__Hello *body, struct frame *out)
{
    drover__hello__init(body);
    body->protocol_min = WIRE_PROTOCOL_MIN;
    body->protocol_max = WIRE_PROTOCOL_MAX;
    body->program = wire->program;
    body->max_message = options->max_message;
    *out = (struct frame){.kind = kind, .id = id, .body = &body->base};
}
