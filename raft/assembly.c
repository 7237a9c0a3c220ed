#include "raft/assembly.h"

#include <stdio.h>
#include <string.h>

#include "base/ensure.h"
#include "raft/codec.h"

void assembly_clear(struct assembly *assembly)
{
    buf_free(&assembly->data);
    if (assembly->active)
        codec_message_free(&assembly->message);
    *assembly = (struct assembly){0};
}

bool assembly_complete(const struct assembly *assembly)
{
    return assembly->active && assembly->data.len == assembly->total;
}

static bool is_of_transfer(const struct assembly *assembly, const char *from, const Drover__RaftChunk *chunk)
{
    return assembly->active && assembly->transfer == chunk->transfer && strcmp(assembly->from, from) == 0;
}

static int check_chunk(const Drover__RaftChunk *chunk, struct err *err)
{
    if (chunk->total_bytes == 0 || chunk->total_bytes > CODEC_SNAPSHOT_MAX)
        return err_set(err, ERR_PROTOCOL, "snapshot chunk: the size of the snapshot is out of range");
    if (chunk->data.len == 0 || chunk->data.len > ASSEMBLY_CHUNK_MAX)
        return err_set(err, ERR_PROTOCOL, "snapshot chunk: its size is out of range");
    if (chunk->offset > chunk->total_bytes || chunk->data.len > chunk->total_bytes - chunk->offset)
        return err_set(err, ERR_PROTOCOL, "snapshot chunk: it goes beyond the end");
    if ((chunk->offset == 0) != (chunk->snapshot != NULL))
        return err_set(err, ERR_PROTOCOL, "snapshot chunk: the head belongs to the first one only");
    return 0;
}

static int begin(struct assembly *assembly, const char *from, const Drover__RaftChunk *chunk, struct err *err)
{
    struct raft_message message;
    if (codec_decode_snapshot(chunk->snapshot, err, &message))
        return -1;
    assembly_clear(assembly);
    assembly->active = true;
    assembly->message = message;
    assembly->transfer = chunk->transfer;
    assembly->total = chunk->total_bytes;
    snprintf(assembly->from, sizeof assembly->from, "%s", from);
    return 0;
}

int assembly_take(
    struct assembly *assembly, const char *from, const Drover__RaftChunk *chunk, struct err *err, uint64_t *next)
{
    if (check_chunk(chunk, err))
        return -1;
    if (!is_of_transfer(assembly, from, chunk)) {
        if (chunk->offset != 0) {
            *next = 0;
            return 0;
        }
        if (begin(assembly, from, chunk, err))
            return -1;
    }
    if (chunk->total_bytes != assembly->total)
        return err_set(err, ERR_PROTOCOL, "snapshot chunk: the size of the snapshot has changed");
    if (chunk->offset == assembly->data.len)
        buf_append(&assembly->data, chunk->data.data, chunk->data.len);
    *next = assembly->data.len;
    return 0;
}

void assembly_release(struct assembly *assembly, struct raft_message *out)
{
    ENSURE(assembly_complete(assembly));
    *out = assembly->message;
    /* raft_malloc() is malloc() as long as nobody replaces it, and nobody does. */
    out->install_snapshot.data = (struct raft_buffer){.base = assembly->data.data, .len = assembly->data.len};
    *assembly = (struct assembly){0};
}
