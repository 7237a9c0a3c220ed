/* Private to proto/: the other end of one connection, alike on servers and clients: the calls made to it and the
 * requests it made. How frames get to it is its connection's business (`send`).
 *
 *   wire_call ─> waiting ──> under way ──> done        waiting: only on clients, while there is no session or no credit
 *                   └───────────┴────────> failed      (deadline, peer gone, closed, could not be sent)
 *
 * A call ends exactly once, from the loop or from a closing function, never from inside wire_call(): what fails there
 * is failed by its own timer. A request outlives its peer: it is then answered into nothing. */
#ifndef PROTO_PEER_H
#define PROTO_PEER_H

#include <sys/queue.h>

#include "proto/context.h"

enum peer_sent {
    PEER_SENT,
    PEER_WAIT, /* not now: no session, or too much under way */
    PEER_FULL, /* the queue to it is full */
    PEER_GONE  /* there is no such connection any more */
};

struct peer_call;
TAILQ_HEAD(peer_calls, peer_call);
TAILQ_HEAD(peer_requests, wire_request);

struct wire_peer {
    struct wire *wire;
    const struct wire_options *options; /* of its server or client */
    struct principal principal;
    char ip[WIRE_IP_MAX]; /* servers: where it connects from */
    void *data;
    uint32_t max_message; /* what the other side takes */
    enum peer_sent (*send)(struct wire_peer *peer, const struct frame *frame);
    struct peer_calls waiting, calls, failing; /* failing: told at the loop's next turn, or when the peer ends */
    struct peer_requests requests;             /* of it, not answered yet */
    uint32_t request_count;
    uint64_t last_request_id; /* they grow: a lower one is a replay */
    uint64_t sent, arrived;   /* frames sent in this session, and how many of them have surely arrived */
    bool ended;               /* calls fail from now on */
    struct err refusal;       /* calls fail with it at once, unless it is ERR_NONE: a server that does not want us */
};

void peer_init(struct wire_peer *peer, struct wire *wire, const struct wire_options *options, const char *name);
/* Forgets what belonged to a session: its requests and numbers. */
void peer_reset(struct wire_peer *peer);
/* Handles a REQUEST, REPLY, NOTE, PING or PONG. False: it broke the rules, `err` says how. The peer may have ended
 * inside. */
MUST_CHECK bool peer_dispatch(struct wire_peer *peer, const Drover__Frame *frame, struct err *err);
/* Sends the calls that wait, as far as it goes. */
void peer_flush(struct wire_peer *peer);
/* Fails the calls under way; with `waiting_too` (the peer ends) those that wait or are about to fail as well. A
 * callback may end the peer: then nothing is left when that returns. */
void peer_fail_calls(struct wire_peer *peer, bool waiting_too, const struct err *err);

#endif
