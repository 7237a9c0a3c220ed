/* Snapshots between members, in chunks over a connection of their own, so that they never delay heartbeats.
 *
 * The sender asks "take this chunk", the receiver answers with the offset it wants next, and so on: one chunk is under
 * way at a time. A lost connection or a restart of the receiver only sets the offset back. The last chunk is answered
 * once the snapshot has been handed to libraft. */
#ifndef RAFT_CHUNKS_H
#define RAFT_CHUNKS_H

#include <raft.h>

#include "raft/replica.h"

struct chunk_sender;

struct chunk_sender_options {
    struct wire *wire;
    uv_loop_t *loop;
    const struct replica_member *to;              /* copied */
    const struct raft_install_snapshot *snapshot; /* lent until `done` */
    bool (*wanted)(void *user, raft_term term);   /* asked between chunks; false ends the transfer */
    void (*done)(
        void *user, int status); /* 0 or a code of libraft; the sender is gone then. Never from inside a call. */
    void *user;
};

MUST_CHECK int chunk_sender_new(const struct chunk_sender_options *options, struct err *err, struct chunk_sender **out);
/* Stops at once; `done` is not called. NULL is fine. */
void chunk_sender_free(struct chunk_sender *sender);

struct chunk_receiver;

struct chunk_receiver_options {
    struct wire *wire;
    uv_loop_t *loop;
    const char *address; /* to bind */
    bool (*may_deliver)(void *user);
    /* A complete snapshot from the controller `from`: take the message's memory. */
    void (*deliver)(void *user, const char *from, struct raft_message *message);
    void *user;
};

MUST_CHECK int chunk_receiver_new(
    const struct chunk_receiver_options *options, struct err *err, struct chunk_receiver **out);
/* Delivers a complete snapshot that had to wait. */
void chunk_receiver_poll(struct chunk_receiver *receiver);
void chunk_receiver_free(struct chunk_receiver *receiver);

#endif
