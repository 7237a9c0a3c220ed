/* What members of the log send each other. The first byte says which decoder gets the rest. What is let through must
 * survive being encoded and decoded again, and hold what libraft takes for granted. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "raft/assembly.h"
#include "raft/codec.h"
#include "raft/member.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_entries(const struct raft_append_entries *args)
{
    ENSURE((args->prev_log_index == 0) == (args->prev_log_term == 0));
    for (unsigned i = 0; i < args->n_entries; i++) {
        ENSURE(args->entries[i].buf.len > 0 && args->entries[i].buf.len % 8 == 0);
        ENSURE(args->entries[i].term > 0 && args->entries[i].term <= args->term);
        ENSURE(args->entries[i].type != RAFT_CHANGE || i == 0);
        ENSURE(args->entries[i].batch == args->entries[0].buf.base);
    }
}

static void check_again(const struct raft_message *message)
{
    struct codec_outgoing outgoing = {0};
    struct raft_message again;
    struct err err;
    size_t count = message->type == RAFT_APPEND_ENTRIES ? message->append_entries.n_entries : 0;
    codec_encode(message, 0, count, &outgoing);
    size_t len = drover__raft_message__get_packed_size(&outgoing.message);
    uint8_t *packed = mem_alloc(len);
    drover__raft_message__pack(&outgoing.message, packed);
    ENSURE(codec_decode(packed, len, &err, &again) == 0);
    ENSURE(again.type == message->type);
    codec_message_free(&again);
    codec_outgoing_free(&outgoing);
    free(packed);
}

static void fuzz_message(const uint8_t *data, size_t size)
{
    struct raft_message message;
    struct err err;
    if (codec_decode(data, size, &err, &message))
        return;
    if (message.type == RAFT_APPEND_ENTRIES)
        check_entries(&message.append_entries);
    check_again(&message);
    codec_message_free(&message);
}

static void fuzz_chunk(const uint8_t *data, size_t size)
{
    struct assembly assembly = {0};
    struct raft_message message;
    struct err err;
    uint64_t next;
    Drover__RaftChunk *chunk = drover__raft_chunk__unpack(NULL, size, data);
    if (!chunk)
        return;
    if (assembly_take(&assembly, "c1", chunk, &err, &next) == 0) {
        ENSURE(next <= chunk->total_bytes);
        ENSURE(assembly_take(&assembly, "c1", chunk, &err, &next) == 0); /* again: as if the answer had been lost */
    }
    if (assembly_complete(&assembly)) {
        assembly_release(&assembly, &message);
        ENSURE(message.install_snapshot.data.len > 0 && message.install_snapshot.conf.n > 0);
        codec_message_free(&message);
    }
    assembly_clear(&assembly);
    drover__raft_chunk__free_unpacked(chunk, NULL);
}

static void fuzz_member(const uint8_t *data, size_t size)
{
    struct replica_member member = {.role = REPLICA_VOTER};
    char again[MEMBER_TEXT_MAX], *text = mem_alloc(size + 1);
    struct err err;
    memcpy(text, data, size);
    text[size] = '\0';
    if (member_parse(text, &err, &member) == 0) {
        ENSURE(member_format(&member, &err, again) == 0);
        ENSURE(strcmp(again, text) == 0);
    }
    member_name(text, again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 'm')
        fuzz_message(data + 1, size - 1);
    else if (data[0] == 's')
        fuzz_chunk(data + 1, size - 1);
    else
        fuzz_member(data + 1, size - 1);
    return 0;
}
