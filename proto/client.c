/* The client's side of wire: one DEALER socket to one server.
 *
 *              connected                    WELCOME
 *   OFFLINE ──────────────> HELLO ────────────────────────────> UP
 *      ^                    │ ^  `── WELCOME with an error ─> REFUSED
 *      │                    │ └────── RESET (UP), timer (REFUSED) ──┘
 *      └── connection lost, or nothing heard for too long ──────────┘
 *
 * ZeroMQ reconnects by itself. With ZMQ_IMMEDIATE and without a high-water mark a DEALER is writable exactly while it
 * has a connection, which is how its loss is seen at once, without a socket monitor. What would be the high-water mark
 * is kept here: a message counts as under way until the answer to a later call or ping shows that it has arrived. Some
 * failures make ZeroMQ give up for good (whatever listened there spoke another protocol), and some a peer cannot see
 * (its server hangs): after WIRE_CLIENT_LOST_TICKS without progress the socket is replaced by a new one. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "proto/peer.h"

enum client_state { CLIENT_OFFLINE, CLIENT_HELLO, CLIENT_UP, CLIENT_REFUSED };

static const char *const client_state_names[] = {"offline", "hello", "up", "refused"};

struct wire_client {
    struct wire_peer peer;
    struct wire *wire;
    struct wire_options options;
    struct zsock *zsock;
    uv_timer_t tick;
    char *address;
    uint8_t server_key[KEY_BYTES];
    enum client_state state;
    unsigned ticks; /* since it came into this state, or heard of the server */
    unsigned ping_ticks;
    uint64_t hello_id;
    uint64_t pinged; /* value of peer.sent at the last ping */
    bool patient;    /* the socket reconnects slowly */
    bool closed;
};

static struct wire_client *peer_client(struct wire_peer *peer)
{
    return (struct wire_client *)(void *)((char *)peer - offsetof(struct wire_client, peer));
}

static void client_move(struct wire_client *client, enum client_state state)
{
    static const bool allowed[4][4] = {
        [CLIENT_OFFLINE] = {[CLIENT_HELLO] = true},
        [CLIENT_HELLO] = {[CLIENT_OFFLINE] = true, [CLIENT_UP] = true, [CLIENT_REFUSED] = true},
        [CLIENT_UP] = {[CLIENT_OFFLINE] = true, [CLIENT_HELLO] = true},
        [CLIENT_REFUSED] = {[CLIENT_OFFLINE] = true, [CLIENT_HELLO] = true},
    };
    ENSURE(allowed[client->state][state]);
    log_event(LOG_DEBUG, "wire.client-moved", "server=%s from=%s to=%s", client->address,
        client_state_names[client->state], client_state_names[state]);
    client->state = state;
    client->ticks = 0;
    client->peer.refusal.code = ERR_NONE;
}

/* --- sending --- */

static enum peer_sent client_send_now(struct wire_client *client, const struct frame *frame)
{
    zmq_msg_t message;
    wire_encode(client->wire, frame, NULL, &message);
    int rc;
    do
        rc = zmq_msg_send(&message, zsock_socket(client->zsock), ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc >= 0) {
        client->peer.sent++;
        return PEER_SENT;
    }
    zmq_msg_close(&message);
    zsock_kick(client->zsock); /* the turn finds the connection lost */
    return PEER_GONE;
}

static void client_ping(struct wire_client *client)
{
    struct frame ping = {.kind = DROVER__FRAME_KIND__FRAME_PING, .id = client->peer.sent + 1};
    if (client_send_now(client, &ping) == PEER_SENT) {
        client->pinged = client->peer.sent;
        client->ping_ticks = 0;
    }
}

static enum peer_sent client_send(struct wire_peer *peer, const struct frame *frame)
{
    struct wire_client *client = peer_client(peer);
    if (client->state != CLIENT_UP)
        return PEER_WAIT;
    /* Answers go out in any case: the server has bounded its requests. */
    bool credit = frame->kind == DROVER__FRAME_KIND__FRAME_REQUEST || frame->kind == DROVER__FRAME_KIND__FRAME_NOTE;
    uint64_t under_way = peer->sent - peer->arrived;
    if (credit && under_way >= client->options.queue_messages)
        return PEER_WAIT;
    enum peer_sent sent = client_send_now(client, frame);
    /* Ask early how far the server has come; one question at a time. */
    if (sent == PEER_SENT && credit && under_way >= client->options.queue_messages / 2 &&
        client->pinged <= peer->arrived)
        client_ping(client);
    return sent;
}

static void client_say_hello(struct wire_client *client)
{
    Drover__Hello body;
    struct frame hello;
    peer_reset(&client->peer);
    client->pinged = 0;
    client->hello_id = ++client->wire->last_id;
    wire_hello(client->wire, &client->options, DROVER__FRAME_KIND__FRAME_HELLO, client->hello_id, &body, &hello);
    (void)client_send_now(client, &hello); /* repeated by the tick if it got lost */
}

/* --- beginning and end of the session --- */

/* Leaves UP or whatever it is in for `state`; calls under way fail, those that wait go on waiting. */
static void client_down(struct wire_client *client, enum client_state state, const char *why)
{
    bool was_up = client->state == CLIENT_UP;
    client_move(client, state);
    if (!was_up)
        return;
    peer_reset(&client->peer);
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "connection to %s lost: %s", client->address, why);
    peer_fail_calls(&client->peer, false, &err);
    if (!client->closed && client->options.on_peer)
        client->options.on_peer(client->options.user, &client->peer, false);
}

static int client_connect(struct wire_client *client, bool patient, struct err *err);

/* Starts over with a new socket. A patient one is for servers that did not let us in so far: ZeroMQ backs off when
 * nobody listens, but not when it is turned away. */
static void client_replace(struct wire_client *client, bool patient, const char *why)
{
    struct err err;
    if (client->state != CLIENT_OFFLINE)
        client_down(client, CLIENT_OFFLINE, why);
    if (client->closed)
        return;
    client->ticks = 0;
    struct zsock *old = client->zsock;
    if (client_connect(client, patient, &err) < 0) {
        log_event(LOG_WARN, "wire.connect-failed", "server=%s why=%s", client->address, LOG_QUOTE(err.message));
        return; /* the old one stays; the next tick that finds no progress tries again */
    }
    zsock_close(old);
}

static void client_welcome(struct wire_client *client, const Drover__Frame *frame)
{
    struct err err;
    struct frame_hello hello;
    if (client->state != CLIENT_HELLO || frame->id != client->hello_id)
        return; /* answers a hello that was repeated meanwhile */
    bool refused = frame->error != NULL;
    if (refused) {
        frame_error(frame, &err);
    } else if (frame_decode_hello(frame, &err, &hello) < 0) {
        refused = true;
    } else if (hello.protocol_max < WIRE_PROTOCOL_MIN || hello.protocol_min > WIRE_PROTOCOL_MAX) {
        refused = true;
        err_set(&err, ERR_PROTOCOL, "%s speaks protocol %u to %u, %s speaks %d to %d: upgrade the older one",
            hello.program, hello.protocol_min, hello.protocol_max, client->wire->program, WIRE_PROTOCOL_MIN,
            WIRE_PROTOCOL_MAX);
    }
    if (refused) {
        err_wrap(&err, "%s", client->address);
        client_move(client, CLIENT_REFUSED);
        client->peer.refusal = err;
        wire_rejected(client->wire, client->address, err.message);
        peer_fail_calls(&client->peer, true, &err);
        return;
    }
    client_move(client, CLIENT_UP);
    client->peer.arrived = client->peer.sent; /* the hello */
    client->ping_ticks = 0;
    client->peer.max_message =
        hello.max_message < client->options.max_message ? hello.max_message : client->options.max_message;
    if (client->options.on_peer)
        client->options.on_peer(client->options.user, &client->peer, true);
}

/* --- incoming messages --- */

static void client_handle(struct wire_client *client, const Drover__Frame *frame)
{
    struct err err;
    if (frame->kind == DROVER__FRAME_KIND__FRAME_WELCOME) {
        client_welcome(client, frame);
    } else if (client->state != CLIENT_UP) {
        return; /* of a session that is over */
    } else if (frame->kind == DROVER__FRAME_KIND__FRAME_RESET) {
        client_down(client, CLIENT_HELLO, "the server has forgotten it");
        if (!client->closed && client->state == CLIENT_HELLO)
            client_say_hello(client);
    } else {
        client->ticks = 0;
        if (!peer_dispatch(&client->peer, frame, &err)) {
            wire_rejected(client->wire, client->address, err.message);
            if (!client->closed)
                client_replace(client, false, err.message);
        }
    }
    if (!client->closed && client->state == CLIENT_UP)
        peer_flush(&client->peer);
}

/* One message; false: there is none. */
static bool client_receive_one(struct wire_client *client)
{
    zmq_msg_t message;
    struct err err;
    Drover__Frame *frame;
    if (zsock_receive(client->zsock, &message) < 0)
        return false;
    client->wire->counters.messages_in++;
    client->wire->counters.bytes_in += zmq_msg_size(&message);
    bool whole = !zsock_skip_rest(client->zsock, &message);
    int rc =
        whole ? frame_decode(zmq_msg_data(&message), zmq_msg_size(&message), client->options.max_message, &err, &frame)
              : err_set(&err, ERR_PROTOCOL, "message of several parts");
    if (rc == 0) {
        client_handle(client, frame);
        frame_free(frame);
    } else {
        wire_rejected(client->wire, client->address, err.message);
        client_replace(client, false, err.message);
    }
    zmq_msg_close(&message);
    return true;
}

static bool client_turn(void *user, bool readable, bool writable)
{
    struct wire_client *client = user;
    (void)readable;
    struct zsock *zsock = client->zsock;
    /* What has arrived is read before a lost connection is taken note of: it may hold the last answers. */
    for (int i = 0; i < WIRE_TURN_MESSAGES; i++) {
        bool any = client_receive_one(client);
        if (client->closed || client->zsock != zsock)
            return false;
        if (!any)
            break;
        if (i == WIRE_TURN_MESSAGES - 1) {
            zsock_kick(zsock); /* the next turn comes even if there is nothing more to read, for what follows below */
            return true;
        }
    }
    if (!writable && client->state != CLIENT_OFFLINE) {
        if (client->patient)
            client_replace(client, false, "the server closed it");
        else
            client_down(client, CLIENT_OFFLINE, "the server closed it");
        return false;
    }
    if (writable && client->state == CLIENT_OFFLINE && !client->closed) {
        client_move(client, CLIENT_HELLO);
        client_say_hello(client);
    }
    return false;
}

/* --- liveness --- */

static void client_tick(uv_timer_t *timer)
{
    struct wire_client *client = timer->data;
    client->ticks++;
    client->ping_ticks++;
    bool lost = client->ticks >= WIRE_CLIENT_LOST_TICKS;
    switch (client->state) {
    case CLIENT_OFFLINE:
        if (lost)
            client_replace(client, true, "cannot connect");
        return;
    case CLIENT_HELLO:
        if (lost)
            client_replace(client, true, "no welcome");
        else if (client->ticks % WIRE_HELLO_TICKS == 0)
            client_say_hello(client);
        return;
    case CLIENT_UP:
        if (lost)
            client_replace(client, false, "nothing heard of it");
        else if (client->ping_ticks >= WIRE_PING_TICKS)
            client_ping(client);
        return;
    case CLIENT_REFUSED:
        if (client->ticks >= WIRE_REFUSED_TICKS) {
            client_move(client, CLIENT_HELLO);
            client_say_hello(client);
        }
        return;
    }
}

/* --- opening and closing --- */

static int client_connect(struct wire_client *client, bool patient, struct err *err)
{
    struct wire *wire = client->wire;
    struct zsock *zsock;
    if (zsock_open(wire->loop, wire->zmq, ZMQ_DEALER, err, &zsock) < 0)
        return -1;
    wire_socket_setup(wire, zsock, &client->options);
    zsock_set(zsock, ZMQ_SNDHWM, 0); /* see above */
    zsock_set(zsock, ZMQ_IMMEDIATE, 1);
    zsock_set(zsock, ZMQ_RECONNECT_IVL, patient ? WIRE_RECONNECT_MAX_MS : WIRE_RECONNECT_MS);
    zsock_set(zsock, ZMQ_RECONNECT_IVL_MAX, WIRE_RECONNECT_MAX_MS);
    zsock_set(zsock, ZMQ_CONNECT_TIMEOUT, WIRE_CONNECT_MS);
    ENSURE(zmq_setsockopt(zsock_socket(zsock), ZMQ_CURVE_SERVERKEY, client->server_key, KEY_BYTES) == 0);
    if (strchr(client->address, '['))
        zsock_set(zsock, ZMQ_IPV6, 1);
    if (zmq_connect(zsock_socket(zsock), client->address) < 0) {
        err_set(err, ERR_INVALID, "cannot connect to %s: %s", client->address, zmq_strerror(errno));
        zsock_close(zsock);
        return -1;
    }
    client->zsock = zsock;
    client->patient = patient;
    zsock_start(zsock, client_turn, client);
    return 0;
}

int wire_client_open(struct wire *wire, const char *address, const uint8_t server_key[KEY_BYTES],
    const struct wire_options *options, struct err *err, struct wire_client **out)
{
    if (wire_address_check(address, 1, err) < 0)
        return -1;
    struct wire_client *client = mem_zalloc(sizeof *client);
    client->wire = wire;
    client->options = wire_options_fill(options);
    client->address = mem_strdup(address);
    memcpy(client->server_key, server_key, KEY_BYTES);
    peer_init(&client->peer, wire, &client->options, address);
    client->peer.principal.kind = PRINCIPAL_CONTROLLER;
    client->peer.send = client_send;
    if (client_connect(client, false, err) < 0) {
        free(client->address);
        free(client);
        return -1;
    }
    wire->sockets++;
    uv_timer_init(wire->loop, &client->tick);
    client->tick.data = client;
    uv_timer_start(&client->tick, client_tick, wire->tick_ms, wire->tick_ms);
    *out = client;
    return 0;
}

struct wire_peer *wire_client_peer(struct wire_client *client)
{
    return &client->peer;
}

bool wire_client_connected(const struct wire_client *client)
{
    return client->state == CLIENT_UP;
}

static void client_freed(uv_handle_t *handle)
{
    struct wire_client *client = handle->data;
    free(client->address);
    free(client);
}

void wire_client_close(struct wire_client *client)
{
    if (!client || client->closed)
        return;
    client->closed = true;
    client->peer.ended = true;
    struct err err;
    err_set(&err, ERR_CANCELLED, "the connection to %s was closed", client->address);
    peer_reset(&client->peer);
    peer_fail_calls(&client->peer, true, &err);
    zsock_close(client->zsock);
    client->wire->sockets--;
    uv_close((uv_handle_t *)&client->tick, client_freed);
}
