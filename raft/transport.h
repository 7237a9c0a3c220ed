/* What carries libraft's messages between members: wire.
 *
 * One server takes messages at the member's address, another one snapshots at the port after it; one client per other
 * member of the configuration sends. A member that is in no configuration yet (it joins) answers over the session the
 * leader opened to it. The sender of a message is the principal of its connection; whoever is not a controller gets
 * nothing in.
 *
 * A message that cannot be sent is lost, which Raft expects. Very long runs of entries are sent in parts, and beyond
 * TRANSPORT_BURST_BYTES the rest counts as lost: Raft goes on from where the follower stands. */
#ifndef RAFT_TRANSPORT_H
#define RAFT_TRANSPORT_H

#include <raft.h>

#include "raft/disk.h"
#include "raft/replica.h"

#define TRANSPORT_BURST_BYTES (8u << 20)

struct transport;

struct transport_options {
    struct wire *wire;
    uv_loop_t *loop;
    const char *name;   /* of this member; lent for the transport's life */
    const char *listen; /* lent for the call */
    /* The last word before libraft gets a message; false drops it. May mend it. */
    bool (*admit)(void *user, const char *from, struct raft_message *message);
    /* The term this member leads, or 0. */
    raft_term (*leading)(void *user);
    bool (*may_install)(void *user);
    /* A message of another method, from a controller. */
    void (*other)(void *user, raft_id from, uint32_t method, const uint8_t *body, size_t len);
    void *user;
};

/* Binds both servers. Take: transport_free(). */
MUST_CHECK int transport_new(const struct transport_options *options, struct err *err, struct transport **out);
void transport_free(struct transport *transport);
/* How the disk hands libraft's messages over. */
struct disk_network transport_network(struct transport *transport);

/* No message is delivered any more; what is sent still goes out. */
void transport_mute(struct transport *transport);

/* The members of the present configuration: connects to new ones, lets old ones go. Not from inside a callback of wire.
 */
void transport_set_members(struct transport *transport, const struct replica_member *members, size_t count);
/* Sends a one-way message; false: it was not sent. */
bool transport_note(struct transport *transport, raft_id to, uint32_t method, const ProtobufCMessage *message);
bool transport_reaches(const struct transport *transport, raft_id id);
/* Delivers what had to wait. */
void transport_poll(struct transport *transport);

#endif
