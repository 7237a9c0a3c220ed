/* The server's side of wire: one ROUTER socket and the sessions on it.
 *
 * A session belongs to one connection, known by the routing id that ROUTER gave it, and to one key, known by the
 * User-Id that the ZAP handler gave the connection. It begins with a HELLO and ends when the peer breaks a rule, loses
 * its key, closes the connection, is silent for too long or says HELLO again:
 *
 *   (unknown) ──HELLO──> session ──┬─ HELLO ────────────> a new session
 *       ^  `─other─> RESET         ├─ malformed, forged ─┐
 *       └──────────────────────────┴─ lost, revoked ─────┴─> (unknown)
 *
 * ROUTER tells nobody that a connection is gone; sending to it does (ROUTER_MANDATORY). So a quiet peer is pinged.
 * Clients may not choose their routing id: whoever took over the id of a connection that is gone would get the answers
 * meant for it. Ids of another shape than ROUTER's own are refused; one of that shape had to be guessed, from 32 random
 * bits, by somebody enrolled, in the seconds before the old session ends; and its first message ends that session. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "proto/peer.h"
#include "proto/zap.h"

#define ROUTING_BYTES 5 /* of an id that ROUTER chose: a zero byte and a number */
/* Connections of one key at a time: bounds what a single principal, gone mad, takes up. */
#define SESSIONS_PER_KEY 256

struct session {
    struct wire_peer peer;
    struct wire_server *server;
    struct idmap_node node;
    TAILQ_ENTRY(session) link;
    uint8_t key[KEY_BYTES];
    unsigned silent_ticks;
    bool lost; /* a send has failed: ends at the next turn */
    struct backlog *backlog;
};
TAILQ_HEAD(sessions, session);

struct wire_server {
    struct wire *wire;
    struct wire_options options;
    struct zsock *zsock;
    uv_timer_t tick;
    struct idmap by_routing;
    struct sessions sessions;
    struct sessions ended; /* freed at the next turn: somebody up the stack may still look at them */
    char address[WIRE_ADDRESS_MAX];
    bool closed, any_lost;
};

/* Where a message came from. */
struct sender {
    uint8_t routing[ROUTING_BYTES];
    uint64_t routing_key;
    uint8_t key[KEY_BYTES];
    struct principal principal;
    const char *address;
};

static struct session *peer_session(struct wire_peer *peer)
{
    return (struct session *)(void *)((char *)peer - offsetof(struct session, peer));
}

static uint64_t routing_number(const uint8_t routing[ROUTING_BYTES])
{
    return (uint64_t)routing[1] << 24 | (uint64_t)routing[2] << 16 | (uint64_t)routing[3] << 8 | routing[4];
}

static void routing_bytes(uint64_t number, uint8_t out[ROUTING_BYTES])
{
    out[0] = 0;
    for (int i = 1; i < ROUTING_BYTES; i++)
        out[i] = (uint8_t)(number >> (8 * (ROUTING_BYTES - 1 - i)));
}

/* `backlog` NULL: somebody without a session, who is told a few bytes. */
static enum peer_sent server_send(
    struct wire_server *server, uint64_t routing, const struct frame *frame, struct backlog *backlog)
{
    uint8_t id[ROUTING_BYTES];
    routing_bytes(routing, id);
    void *socket = zsock_socket(server->zsock);
    int rc;
    do
        rc = zmq_send(socket, id, sizeof id, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return errno == EAGAIN ? PEER_FULL : PEER_GONE;
    zmq_msg_t message;
    wire_encode(server->wire, frame, backlog, &message);
    do
        rc = zmq_msg_send(&message, socket, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc >= 0)
        return PEER_SENT;
    zmq_msg_close(&message);
    return PEER_GONE;
}

static void session_lose(struct session *session)
{
    session->lost = session->server->any_lost = true;
    zsock_kick(session->server->zsock);
}

static enum peer_sent session_send(struct wire_peer *peer, const struct frame *frame)
{
    struct session *session = peer_session(peer);
    struct wire_server *server = session->server;
    if (session->lost)
        return PEER_GONE;
    bool room = backlog_bytes(session->backlog) < WIRE_QUEUE_BYTES;
    enum peer_sent sent = room ? server_send(server, session->node.key, frame, session->backlog) : PEER_FULL;
    if (sent == PEER_SENT)
        peer->sent++;
    /* A peer that does not take its answers waits for them in vain: a new session tells it so. */
    if (sent == PEER_GONE || (sent == PEER_FULL && frame->kind == DROVER__FRAME_KIND__FRAME_REPLY))
        session_lose(session);
    return sent;
}

/* Finds out whether the connection is there. */
static void session_probe(struct session *session)
{
    struct frame ping = {.kind = DROVER__FRAME_KIND__FRAME_PING, .id = session->peer.sent + 1};
    (void)session_send(&session->peer, &ping);
}

/* --- beginning and end of sessions --- */

static void session_end(struct session *session, const char *why)
{
    struct wire_server *server = session->server;
    struct wire_peer *peer = &session->peer;
    ENSURE(!peer->ended);
    peer->ended = true;
    idmap_remove(&server->by_routing, &session->node);
    TAILQ_REMOVE(&server->sessions, session, link);
    TAILQ_INSERT_TAIL(&server->ended, session, link);
    zsock_kick(server->zsock);
    peer_reset(peer);
    log_event(LOG_DEBUG, "wire.session-ended", "peer=%s why=%s", LOG_QUOTE(peer->principal.name), LOG_QUOTE(why));
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "connection to %s lost: %s", peer->principal.name, why);
    peer_fail_calls(peer, true, &err);
    if (!server->closed && server->options.on_peer)
        server->options.on_peer(server->options.user, peer, false);
}

static void sessions_free(struct sessions *sessions)
{
    struct session *session;
    while ((session = TAILQ_FIRST(sessions)) != NULL) {
        TAILQ_REMOVE(sessions, session, link);
        backlog_drop(session->backlog);
        free(session);
    }
}

static void server_end_lost(struct wire_server *server)
{
    while (server->any_lost && !server->closed) {
        struct session *session;
        TAILQ_FOREACH(session, &server->sessions, link)
        if (session->lost)
            break;
        if (session)
            session_end(session, "connection lost");
        else
            server->any_lost = false;
    }
}

/* Ends what is left of earlier connections of a key, so that whoever reconnects goes before it comes again. Returns how
 * many sessions of the key there are. */
static size_t server_probe_key(struct wire_server *server, const uint8_t key[KEY_BYTES])
{
    size_t count = 0;
    struct session *session;
    TAILQ_FOREACH(session, &server->sessions, link)
    {
        if (memcmp(session->key, key, KEY_BYTES) != 0)
            continue;
        session_probe(session);
        count += !session->lost;
    }
    server_end_lost(server);
    return count;
}

static struct session *server_begin(
    struct wire_server *server, const struct sender *from, const struct frame_hello *hello)
{
    struct session *session = mem_zalloc(sizeof *session);
    session->server = server;
    session->backlog = backlog_new();
    memcpy(session->key, from->key, KEY_BYTES);
    peer_init(&session->peer, server->wire, &server->options, "");
    session->peer.principal = from->principal;
    snprintf(session->peer.ip, sizeof session->peer.ip, "%s", from->address);
    session->peer.send = session_send;
    if (hello->max_message < session->peer.max_message)
        session->peer.max_message = hello->max_message;
    idmap_add(&server->by_routing, from->routing_key, &session->node);
    TAILQ_INSERT_TAIL(&server->sessions, session, link);
    log_event(LOG_DEBUG, "wire.session-began", "peer=%s program=%s address=%s", LOG_QUOTE(from->principal.name),
        LOG_QUOTE(hello->program), LOG_QUOTE(from->address));
    return session;
}

/* Why a well-formed hello gets no session; false: nothing is against it. */
static bool server_refuses(struct wire_server *server, const struct sender *from, const struct frame_hello *hello,
    size_t key_sessions, struct err *why)
{
    if (hello->protocol_max < WIRE_PROTOCOL_MIN || hello->protocol_min > WIRE_PROTOCOL_MAX)
        err_set(why, ERR_PROTOCOL, "%s speaks protocol %u to %u, %s speaks %d to %d: upgrade the older one",
            hello->program, hello->protocol_min, hello->protocol_max, server->wire->program, WIRE_PROTOCOL_MIN,
            WIRE_PROTOCOL_MAX);
    else if (key_sessions >= SESSIONS_PER_KEY)
        err_set(why, ERR_BUSY, "%s has %d connections already", from->principal.name, SESSIONS_PER_KEY);
    else
        return false;
    return true;
}

static void server_hello(
    struct wire_server *server, const struct sender *from, struct session *old, const Drover__Frame *frame)
{
    struct err err;
    struct frame_hello hello;
    if (old)
        session_end(old, "it says hello again");
    size_t key_sessions = server->closed ? 0 : server_probe_key(server, from->key);
    if (server->closed)
        return;
    if (frame_decode_hello(frame, &err, &hello) < 0) {
        wire_rejected(server->wire, from->principal.name, err.message);
        return;
    }
    Drover__Hello body;
    struct frame welcome;
    wire_hello(server->wire, &server->options, DROVER__FRAME_KIND__FRAME_WELCOME, frame->id, &body, &welcome);
    if (server_refuses(server, from, &hello, key_sessions, &err)) {
        welcome.error = &err;
        (void)server_send(server, from->routing_key, &welcome, NULL);
        wire_rejected(server->wire, from->principal.name, err.message);
        return;
    }
    struct session *session = server_begin(server, from, &hello);
    if (session_send(&session->peer, &welcome) != PEER_SENT)
        session_lose(session);
    if (server->options.on_peer)
        server->options.on_peer(server->options.user, &session->peer, true);
}

/* --- incoming messages --- */

/* Fills `out`; false: nobody we talk to. */
static bool server_identify(struct wire_server *server, zmq_msg_t *routing, zmq_msg_t *message, struct sender *out)
{
    struct err err;
    const char *user_id = zmq_msg_gets(message, "User-Id");
    const char *address = zmq_msg_gets(message, "Peer-Address");
    const uint8_t *id = zmq_msg_data(routing);
    out->address = address ? address : "unknown";
    if (zmq_msg_size(routing) != ROUTING_BYTES || id[0] != 0) {
        wire_rejected(server->wire, out->address, "routing id of the client's own choice");
        return false;
    }
    memcpy(out->routing, id, ROUTING_BYTES);
    out->routing_key = routing_number(id);
    if (!user_id || key_parse(user_id, &err, out->key) < 0 ||
        !wire_authorize(server->wire, out->key, &out->principal)) {
        wire_rejected(server->wire, out->address, "key unknown or revoked");
        struct idmap_node *node = idmap_find(&server->by_routing, out->routing_key);
        if (node)
            session_end(IDMAP_ENTRY(node, struct session, node), "its key was revoked");
        return false;
    }
    return true;
}

static void server_handle(struct wire_server *server, const struct sender *from, const Drover__Frame *frame)
{
    struct err err;
    struct idmap_node *node = idmap_find(&server->by_routing, from->routing_key);
    struct session *session = node ? IDMAP_ENTRY(node, struct session, node) : NULL;
    if (session && memcmp(session->key, from->key, KEY_BYTES) != 0) {
        wire_rejected(server->wire, from->principal.name, "routing id of another's session");
        session_end(session, "its routing id was taken over");
        return;
    }
    if (frame->kind == DROVER__FRAME_KIND__FRAME_HELLO) {
        server_hello(server, from, session, frame);
    } else if (!session) {
        struct frame reset = {.kind = DROVER__FRAME_KIND__FRAME_RESET};
        wire_rejected(server->wire, from->principal.name, "message without a session");
        (void)server_send(server, from->routing_key, &reset, NULL);
    } else {
        session->silent_ticks = 0;
        session->peer.principal = from->principal;
        if (!peer_dispatch(&session->peer, frame, &err)) {
            wire_rejected(server->wire, from->principal.name, err.message);
            session_end(session, err.message);
        }
    }
}

static void server_malformed(struct wire_server *server, const struct sender *from, const char *why)
{
    wire_rejected(server->wire, from->principal.name, why);
    struct idmap_node *node = idmap_find(&server->by_routing, from->routing_key);
    struct session *session = node ? IDMAP_ENTRY(node, struct session, node) : NULL;
    if (session && memcmp(session->key, from->key, KEY_BYTES) == 0)
        session_end(session, why);
}

static void server_receive(struct wire_server *server, zmq_msg_t *routing, zmq_msg_t *message, bool whole)
{
    struct sender from;
    struct err err;
    Drover__Frame *frame;
    server->wire->counters.messages_in++;
    server->wire->counters.bytes_in += zmq_msg_size(message);
    if (!server_identify(server, routing, message, &from))
        return;
    if (!whole) {
        server_malformed(server, &from, "message of several parts");
    } else if (frame_decode(zmq_msg_data(message), zmq_msg_size(message), server->options.max_message, &err, &frame) <
               0) {
        server_malformed(server, &from, err.message);
    } else {
        server_handle(server, &from, frame);
        frame_free(frame);
    }
}

/* One message: its routing id and the frame. False: there is none. */
static bool server_receive_one(struct wire_server *server)
{
    zmq_msg_t routing, message;
    if (zsock_receive(server->zsock, &routing) < 0)
        return false;
    if (zmq_msg_more(&routing) && zsock_receive(server->zsock, &message) == 0) {
        bool whole = !zsock_skip_rest(server->zsock, &message);
        server_receive(server, &routing, &message, whole);
        zmq_msg_close(&message);
    }
    zmq_msg_close(&routing);
    return true;
}

static bool server_turn(void *user, bool readable, bool writable)
{
    struct wire_server *server = user;
    (void)readable;
    (void)writable;
    sessions_free(&server->ended);
    server_end_lost(server);
    for (int i = 0; i < WIRE_TURN_MESSAGES && !server->closed; i++)
        if (!server_receive_one(server))
            return false;
    return true;
}

/* --- liveness --- */

static void session_tick(struct session *session)
{
    session->silent_ticks++;
    if (session->silent_ticks >= WIRE_SERVER_LOST_TICKS)
        session_lose(session);
    else if (session->silent_ticks >= WIRE_SERVER_PROBE_TICKS)
        session_probe(session);
}

static void server_tick(uv_timer_t *timer)
{
    struct wire_server *server = timer->data;
    struct session *session;
    TAILQ_FOREACH(session, &server->sessions, link)
    session_tick(session);
}

/* --- opening and closing --- */

static int server_bind(struct wire_server *server, const char *address, struct err *err)
{
    struct zsock *zsock = server->zsock;
    wire_socket_setup(server->wire, zsock, &server->options);
    /* Answers to a full queue of requests, and as many messages of our own. */
    zsock_set(zsock, ZMQ_SNDHWM, (int)server->options.queue_messages * 2);
    zsock_set(zsock, ZMQ_ROUTER_MANDATORY, 1);
    zsock_set(zsock, ZMQ_CURVE_SERVER, 1);
    ENSURE(zmq_setsockopt(zsock_socket(zsock), ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, strlen(ZAP_DOMAIN)) == 0);
    int enforce = 1;
    if (zmq_setsockopt(zsock_socket(zsock), ZAP_ENFORCE_DOMAIN, &enforce, sizeof enforce) < 0)
        return err_set(err, ERR_UNSUPPORTED, "this libzmq cannot enforce authentication: %s", zmq_strerror(errno));
    if (strchr(address, '['))
        zsock_set(zsock, ZMQ_IPV6, 1);
    if (zmq_bind(zsock_socket(zsock), address) < 0)
        return err_set(
            err, errno == EADDRINUSE ? ERR_BUSY : ERR_INVALID, "cannot listen at %s: %s", address, zmq_strerror(errno));
    size_t size = sizeof server->address;
    if (zmq_getsockopt(zsock_socket(zsock), ZMQ_LAST_ENDPOINT, server->address, &size) < 0)
        return err_set(err, ERR_INVALID, "address too long: %s", address);
    return 0;
}

int wire_server_open(struct wire *wire, const char *address, const struct wire_options *options, struct err *err,
    struct wire_server **out)
{
    ENSURE(options->handler != NULL);
    if (wire_address_check(address, 0, err) < 0)
        return -1;
    struct wire_server *server = mem_zalloc(sizeof *server);
    server->wire = wire;
    server->options = wire_options_fill(options);
    TAILQ_INIT(&server->sessions);
    TAILQ_INIT(&server->ended);
    if (zsock_open(wire->loop, wire->zmq, ZMQ_ROUTER, err, &server->zsock) < 0 ||
        server_bind(server, address, err) < 0) {
        zsock_close(server->zsock);
        free(server);
        return -1;
    }
    wire->sockets++;
    uv_timer_init(wire->loop, &server->tick);
    server->tick.data = server;
    uv_timer_start(&server->tick, server_tick, wire->tick_ms, wire->tick_ms);
    zsock_start(server->zsock, server_turn, server);
    *out = server;
    return 0;
}

const char *wire_server_address(const struct wire_server *server)
{
    return server->address;
}

void wire_server_drop(struct wire_server *server, const struct principal *principal)
{
    struct session *session = TAILQ_FIRST(&server->sessions);
    while (session && !server->closed) {
        const struct principal *who = &session->peer.principal;
        if (who->kind == principal->kind && strcmp(who->name, principal->name) == 0) {
            session_end(session, "it was dropped");
            session = TAILQ_FIRST(&server->sessions); /* a callback may have changed the list */
        } else {
            session = TAILQ_NEXT(session, link);
        }
    }
}

static void server_freed(uv_handle_t *handle)
{
    struct wire_server *server = handle->data;
    sessions_free(&server->ended);
    free(server);
}

void wire_server_close(struct wire_server *server)
{
    if (!server || server->closed)
        return;
    server->closed = true;
    struct err err;
    err_set(&err, ERR_CANCELLED, "the server at %s was closed", server->address);
    struct session *session;
    while ((session = TAILQ_FIRST(&server->sessions)) != NULL) {
        TAILQ_REMOVE(&server->sessions, session, link);
        TAILQ_INSERT_TAIL(&server->ended, session, link);
        idmap_remove(&server->by_routing, &session->node);
        session->peer.ended = true;
        peer_reset(&session->peer);
        peer_fail_calls(&session->peer, true, &err);
    }
    idmap_free(&server->by_routing);
    zsock_close(server->zsock);
    server->wire->sockets--;
    uv_close((uv_handle_t *)&server->tick, server_freed);
}
