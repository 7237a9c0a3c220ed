/* A snapshot being put together from its chunks. Pure: no sockets, no clock.
 *
 * There is one assembly at a time: a chunk at offset 0 of another transfer begins anew. Whatever comes, the answer says
 * where the sender has to go on, so that lost, repeated and reordered chunks, and a restart of either side, need no
 * case of their own. Memory grows with the bytes that came, never with the size a peer announced. */
#ifndef RAFT_ASSEMBLY_H
#define RAFT_ASSEMBLY_H

#include <raft.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/raft.pb-c.h"
#include "raft/replica.h"

#define ASSEMBLY_CHUNK_MAX   (512u << 10)
#define ASSEMBLY_MESSAGE_MAX (ASSEMBLY_CHUNK_MAX + (64u << 10)) /* on the wire: with all members */

/* Zero-initialize; assembly_clear() frees it. */
struct assembly {
    bool active;
    char from[WIRE_PRINCIPAL_MAX];
    uint64_t transfer, total;
    struct buf data;
    struct raft_message message; /* the snapshot's head */
};

/* Takes a chunk from the member `from`. `*next` is the offset it wants next; the total when it has all. ERR_PROTOCOL
 * for what no honest sender sends, with nothing changed. */
MUST_CHECK int assembly_take(
    struct assembly *assembly, const char *from, const Drover__RaftChunk *chunk, struct err *err, uint64_t *next);
bool assembly_complete(const struct assembly *assembly);
/* Hands over the complete snapshot as the message libraft takes, all memory with it; the assembly is cleared. */
void assembly_release(struct assembly *assembly, struct raft_message *out);
void assembly_clear(struct assembly *assembly);

#endif
