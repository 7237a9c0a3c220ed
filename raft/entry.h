/* How our bytes lie in an entry of the log: a header of 8 bytes (magic, length), the bytes, zeros up to a multiple of
 * 8, which libraft asks of every entry. The checksum is the log's own. */
#ifndef RAFT_ENTRY_H
#define RAFT_ENTRY_H

#include <raft.h>
#include <stdbool.h>

#include "raft/replica.h"

#define ENTRY_HEADER 8u
#define ENTRY_ALIGN  8u
/* The longest entry, wrapped. */
#define ENTRY_WRAPPED_MAX (ENTRY_HEADER + REPLICA_ENTRY_MAX)

/* Wraps a copy of `len` bytes (at most REPLICA_ENTRY_MAX) into memory from raft_malloc(), which the caller takes. */
struct raft_buffer entry_wrap(const uint8_t *data, size_t len);
/* The bytes in a wrapped entry, lent; false when it is not one. */
bool entry_unwrap(const struct raft_buffer *entry, const uint8_t **data, size_t *len);

#endif
