/* Private to proto/: the context behind `struct wire`, which its servers, clients and peers share. */
#ifndef PROTO_CONTEXT_H
#define PROTO_CONTEXT_H

#include "proto/backlog.h"
#include "proto/frame.h"
#include "proto/idmap.h"
#include "proto/wire.h"
#include "proto/zsock.h"

#define WIRE_QUEUE_MESSAGES 1000 /* default of wire_options.queue_messages */
#define WIRE_QUEUE_MIN      4    /* messages taken in at least, however long they may be */
#define WIRE_TURN_MESSAGES  256  /* received in one turn of a socket, before others of the loop get theirs */

/* Liveness. TCP finds a dead machine or network, pings of ours a program that hangs or has forgotten us. Silence is
 * counted in ticks of a timer, not in time: a program that was stopped for a while and goes on must not take its own
 * silence for that of its peers. */
#define WIRE_TICK_MS            1000
#define WIRE_PING_TICKS         2
#define WIRE_CLIENT_LOST_TICKS  8  /* a client that hears nothing for so long begins anew */
#define WIRE_SERVER_PROBE_TICKS 3  /* a server that hears nothing for so long tries whether the connection is there */
#define WIRE_SERVER_LOST_TICKS  10 /* and after so long forgets the peer */
#define WIRE_HELLO_TICKS        2  /* a hello without answer is repeated */
#define WIRE_REFUSED_TICKS      5  /* and one that was refused: somebody may have upgraded the server */
#define WIRE_TCP_TIMEOUT_MS     4000
#define WIRE_HANDSHAKE_MS       3000 /* a stranger holds a socket for so long, and is not told why */
#define WIRE_CONNECT_MS         3000
#define WIRE_RECONNECT_MS       50
#define WIRE_RECONNECT_MAX_MS   1000
#define WIRE_LINGER_MS          100 /* for the last replies to leave when a socket is closed */

struct zap;

struct wire {
    uv_loop_t *loop;
    void *zmq;
    struct zap *zap;
    struct key_pair key;
    char program[FRAME_PROGRAM_MAX];
    wire_auth_fn auth; /* may be NULL: nobody is known */
    void *auth_user;
    struct idmap calls; /* of all peers, by id */
    uint64_t last_id;   /* of calls and hellos: never reused, so that nothing late is taken for something new */
    struct wire_counters counters;
    uint64_t logged_ms, unlogged; /* of rejections: at most one line a second */
    unsigned sockets;             /* servers and clients that are open */
    uint64_t tick_ms;             /* WIRE_TICK_MS; tests that wait for silence set less */
};

/* Who a key belongs to now; false: nobody. */
bool wire_authorize(const struct wire *wire, const uint8_t key[KEY_BYTES], struct principal *out);
/* Counts something foreign that was dropped, and logs it unless there was such a line just now. */
void wire_rejected(struct wire *wire, const char *from, const char *why);
void wire_refused(struct wire *wire, const char *from, const char *key);
/* Options with the defaults filled in. */
struct wire_options wire_options_fill(const struct wire_options *options);
/* Whether the address is tcp://IP:PORT. ZeroMQ would take a port modulo 65536, and inproc, which knows no CURVE. */
MUST_CHECK int wire_address_check(const char *address, unsigned port_min, struct err *err);
/* Settings every socket of ours has. */
void wire_socket_setup(struct wire *wire, struct zsock *zsock, const struct wire_options *options);
/* The frame as a message to be sent; counted as sent, and in `backlog` unless that is NULL. */
void wire_encode(struct wire *wire, const struct frame *frame, struct backlog *backlog, zmq_msg_t *out);
/* Hello of this side. `out` and `body` are filled; `body` must live as long as `out`. */
void wire_hello(struct wire *wire, const struct wire_options *options, Drover__FrameKind kind, uint64_t id,
    Drover__Hello *body, struct frame *out);

#endif
