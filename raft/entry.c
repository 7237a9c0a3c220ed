#include "raft/entry.h"

#include <endian.h>
#include <string.h>

#include "base/ensure.h"

#define ENTRY_MAGIC 0x31727644u /* "Dvr1" */

struct entry_header {
    uint32_t magic_le;
    uint32_t length_le;
};
_Static_assert(sizeof(struct entry_header) == ENTRY_HEADER, "the header has a fixed size");

static size_t wrapped_size(size_t len)
{
    return ENTRY_HEADER + (len + ENTRY_ALIGN - 1) / ENTRY_ALIGN * ENTRY_ALIGN;
}

struct raft_buffer entry_wrap(const uint8_t *data, size_t len)
{
    ENSURE(len <= REPLICA_ENTRY_MAX);
    struct entry_header header = {.magic_le = htole32(ENTRY_MAGIC), .length_le = htole32((uint32_t)len)};
    struct raft_buffer out = {.len = wrapped_size(len)};
    uint8_t *bytes = out.base = raft_calloc(1, out.len);
    ENSURE(bytes);
    memcpy(bytes, &header, sizeof header);
    if (len)
        memcpy(bytes + sizeof header, data, len);
    return out;
}

bool entry_unwrap(const struct raft_buffer *entry, const uint8_t **data, size_t *len)
{
    struct entry_header header;
    if (entry->len < sizeof header || entry->len > ENTRY_WRAPPED_MAX)
        return false;
    memcpy(&header, entry->base, sizeof header);
    size_t length = le32toh(header.length_le);
    if (le32toh(header.magic_le) != ENTRY_MAGIC || length > REPLICA_ENTRY_MAX || wrapped_size(length) != entry->len)
        return false;
    *data = (const uint8_t *)entry->base + sizeof header;
    *len = length;
    return true;
}
