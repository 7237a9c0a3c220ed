/* wire: authenticated requests between programs, over ZeroMQ on a libuv loop. It knows nothing of VMs.
 *
 * Every connection is encrypted and authenticated with CURVE: the client knows the server's public key, the server asks
 * its auth function who a client's key belongs to. An unknown key gets nothing, not even an error. A server binds a
 * ROUTER socket, a client connects a DEALER socket; once the hello with the protocol versions is done, either side may
 * call the other. The sender of a message is who ZAP says it is (the User-Id property), never what the message says.
 *
 *   wire_client_open -> (hello) -> wire_call(wire_client_peer(c), METHOD, &message, 2000, done, user)
 *                                      `-> done(user, NULL, body, len)   or   done(user, &err, NULL, 0)   exactly once
 *
 * Failure modes: a lost connection is reconnected with back-off. A call made on a client without a session waits for
 * one; if none comes by its deadline it ends with ERR_UNAVAILABLE and was never sent. A call that was sent ends with
 * ERR_TIMEOUT at its deadline, or with ERR_UNAVAILABLE when the session ends before: nobody knows then whether it was
 * carried out. A server that speaks another protocol version ends calls at once (ERR_PROTOCOL). A malformed, oversized,
 * replayed or unexpected message is dropped and counted, and costs its sender its session (its peer is forgotten until
 * it says hello again). README.md has the life of a session with its times.
 *
 * Memory: what one connection can make its other end hold is bounded in bytes, whatever it does. Received and not
 * looked at yet: WIRE_QUEUE_BYTES, then its TCP waits. Sent by a server and not taken by its client: as much, and one
 * message, then calls and notes fail and an answer that finds no room ends the session. What a handler unpacks of a
 * body takes BOUNDED_RATIO times its length (proto/bounded.h). A key has 256 sessions at most. Only the parts of a
 * message of several parts are beyond all counting in ZeroMQ, until the last has come: such a message ends its session,
 * but somebody enrolled who never sends the last part can fill memory.
 *
 * Everything runs on the loop's thread; no callback is made from inside the call that caused it. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "proto/keys.h"

#define WIRE_PROTOCOL_MIN  1
#define WIRE_PROTOCOL_MAX  1
#define WIRE_MESSAGE_MAX   (2u << 20)  /* default bound of one message; both sides check it */
#define WIRE_QUEUE_BYTES   (32u << 20) /* what may wait at one connection, each way */
#define WIRE_PRINCIPAL_MAX 64
#define WIRE_ADDRESS_MAX   128
#define WIRE_IP_MAX        64 /* an IPv6 address with its interface */

enum principal_kind { PRINCIPAL_CONTROLLER, PRINCIPAL_HOST, PRINCIPAL_USER };

struct principal {
    enum principal_kind kind;
    char name[WIRE_PRINCIPAL_MAX];
};

/* Who a public key belongs to; false: nobody we know. Called for every new connection and again for every message, so
 * that a revoked key is out at once. Must be quick and must not call back into wire. */
typedef bool (*wire_auth_fn)(void *user, const uint8_t public_key[KEY_BYTES], struct principal *out);

struct wire; /* the context: ZeroMQ, our key, the ZAP handler */
struct wire_server;
struct wire_client;
struct wire_peer;    /* the other end of one connection, as something to call */
struct wire_request; /* one incoming request: to be answered exactly once */

/* Makes the context. `key` is copied. Without `auth` nobody may connect to a server of this context.
 * `program` ("drover-hostd 0.1.0") is sent in hellos; copied. Take: wire_free(), after all servers and clients are
 * closed. */
MUST_CHECK int wire_new(uv_loop_t *loop, const struct key_pair *key, const char *program, wire_auth_fn auth, void *user,
    struct err *err, struct wire **out);
void wire_free(struct wire *wire);

/* Handler of an incoming request. `body` is lent for the duration of the call. It must see to it that exactly one of
 * wire_reply() and wire_reply_error() is called for `request`, now or later. For FRAME_NOTE messages `request` is NULL.
 */
typedef void (*wire_handler_fn)(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len);
/* Told when a peer's session begins (hello done) and ends (`up` false: heartbeats missed, connection lost, or
 * misbehaved). On a server the peer is freed after that call and must not be used again; on a client it is the same one
 * for ever. A principal may have several sessions at once, each with a peer of its own. One that reconnects is reported
 * down before it is up again if the loss of its old connection is known by then, else a few seconds after. May be NULL.
 */
typedef void (*wire_peer_fn)(void *user, struct wire_peer *peer, bool up);

struct wire_options {
    wire_handler_fn handler; /* required for servers; NULL on a client that is never called */
    wire_peer_fn on_peer;
    void *user;
    uint32_t max_message;    /* 0: WIRE_MESSAGE_MAX */
    uint32_t queue_messages; /* requests and notes under way at most; 0: 1000. On a client further calls wait their
                              * turn, on a server they fail; further notes fail on both */
};

/* Binds `address` (tcp://IP:PORT; port 0: any). Take: wire_server_close(). */
MUST_CHECK int wire_server_open(struct wire *wire, const char *address, const struct wire_options *options,
    struct err *err, struct wire_server **out);
/* Where it is bound. Lent. */
const char *wire_server_address(const struct wire_server *server);
/* Ends all sessions (on_peer is not called); calls in flight to its peers end with ERR_CANCELLED before this returns.
 * Requests not answered yet are still to be answered, into nothing: that frees them. NULL is fine. */
void wire_server_close(struct wire_server *server);
/* Ends the sessions of a principal, e.g. once its key is revoked; others of that name, but of another kind, stay. */
void wire_server_drop(struct wire_server *server, const struct principal *principal);

/* Connects to a server whose public key is known; returns at once, connects in the background, for ever. on_peer tells
 * when it is up. Take: wire_client_close(). */
MUST_CHECK int wire_client_open(struct wire *wire, const char *address, const uint8_t server_key[KEY_BYTES],
    const struct wire_options *options, struct err *err, struct wire_client **out);
/* The server's end; valid as long as the client is open, also while not connected. */
struct wire_peer *wire_client_peer(struct wire_client *client);
bool wire_client_connected(const struct wire_client *client);
/* Calls in flight end with ERR_CANCELLED before this returns. NULL is fine. */
void wire_client_close(struct wire_client *client);

/* Who the peer is: what auth said of its key; on a client: kind PRINCIPAL_CONTROLLER and the server's address. */
const struct principal *wire_peer_principal(const struct wire_peer *peer);
/* The IP that a server's peer has connected from, as its network sees it; empty on a client. Lent. */
const char *wire_peer_ip(const struct wire_peer *peer);
/* For the owner's own use, e.g. a session. */
void wire_peer_set_data(struct wire_peer *peer, void *data);
void *wire_peer_data(const struct wire_peer *peer);

/* Outcome of a call: `err` NULL and the reply's body (lent for the call), or an error. Exactly once, never from inside
 * wire_call(). */
typedef void (*wire_reply_fn)(void *user, const struct err *err, const uint8_t *body, size_t len);
/* Sends a request; `deadline_ms` must be positive. When the peer goes away its calls end with ERR_UNAVAILABLE. */
void wire_call(struct wire_peer *peer, uint32_t method, const ProtobufCMessage *request, uint32_t deadline_ms,
    wire_reply_fn fn, void *user);
/* Sends a one-way message. ERR_UNAVAILABLE: not connected or queue full; nothing was sent. */
MUST_CHECK int wire_note(struct wire_peer *peer, uint32_t method, const ProtobufCMessage *message, struct err *err);

/* Answers; both take the request. The peer may be gone by then: the answer is dropped. */
void wire_reply(struct wire_request *request, const ProtobufCMessage *reply);
void wire_reply_error(struct wire_request *request, const struct err *err);
/* Who asked; lent as long as the request. */
const struct principal *wire_request_principal(const struct wire_request *request);

/* Messages dropped because they were malformed, oversized, forged or unexpected, and connections refused. For metrics.
 */
struct wire_counters {
    uint64_t messages_in, messages_out, bytes_in, bytes_out, rejected, refused;
};
void wire_counters(const struct wire *wire, struct wire_counters *out);

#endif
