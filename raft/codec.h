/* libraft's messages to and from proto/raft.proto.
 *
 * Encoding never fails: what it is given comes from libraft. Decoding trusts nothing: libraft was built without its
 * assertions, so everything it takes for granted in a message is checked here, and a message that breaks a rule is an
 * ERR_PROTOCOL that leaves nothing to be freed.
 *
 * Two rules are ours. A message holds at most CODEC_PART_BYTES of entries (one longer entry aside). And a configuration
 * entry is the first of its message: libraft 0.22.1 notes the index of a message's first new entry as that of the
 * configuration, and would later neither commit nor replace it (replicationAppend() and
 * replicationApplyConfigurationChange()). */
#ifndef RAFT_CODEC_H
#define RAFT_CODEC_H

#include <raft.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/raft.pb-c.h"

#define CODEC_PART_BYTES   (1u << 20)
#define CODEC_PART_ENTRIES 4096u
#define CODEC_MESSAGE_MAX  (CODEC_PART_BYTES + (128u << 10)) /* on the wire: 14 bytes an entry, and what goes before */
/* Bound of a snapshot, whole. */
#define CODEC_SNAPSHOT_MAX (1ull << 30)

/* A message ready for the wire, and the memory it stands on. Zero-initialize; codec_outgoing_free(). */
struct codec_outgoing {
    Drover__RaftMessage message;
    union {
        Drover__RaftAppend append;
        Drover__RaftAppendResult append_result;
        Drover__RaftVote vote;
        Drover__RaftVoteResult vote_result;
        Drover__RaftTimeoutNow timeout_now;
    };
    uint64_t *terms;
    uint32_t *types, *lengths;
    struct buf data;
};

/* How many of the entries from `first` on go into one message; at least one if there is one. */
size_t codec_part(const struct raft_append_entries *args, size_t first);
/* Encodes a message, any kind but a snapshot's; of its entries only `count` from `first` on, as the message an
 * unlucky network would have delivered had the rest been lost. */
void codec_encode(const struct raft_message *in, size_t first, size_t count, struct codec_outgoing *out);
void codec_outgoing_free(struct codec_outgoing *out);

/* Decodes. `server_id` and `server_address` are the caller's to fill: they are the sender's, who is known from
 * elsewhere. Memory of entries is made as libraft takes it (one array, one batch); if libraft does not get it:
 * codec_message_free(). */
MUST_CHECK int codec_decode(const uint8_t *body, size_t len, struct err *err, struct raft_message *out);
void codec_message_free(struct raft_message *message);

/* The head of a snapshot: `out` lends `servers`, an array of `conf.n` entries with pointers to them, to the message. */
struct codec_snapshot {
    Drover__RaftSnapshot message;
    Drover__RaftServer *servers;
    Drover__RaftServer **pointers;
};
void codec_encode_snapshot(const struct raft_install_snapshot *in, struct codec_snapshot *out);
void codec_snapshot_free(struct codec_snapshot *out);
/* Makes an InstallSnapshot message without data; its configuration is codec_message_free()'s or libraft's. */
MUST_CHECK int codec_decode_snapshot(const Drover__RaftSnapshot *in, struct err *err, struct raft_message *out);

#endif
