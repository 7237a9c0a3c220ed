/* Bodies of messages, as every program unpacks them: the first byte says which message the rest is. What is taken keeps
 * within the memory that its length allows, and survives being copied and shown. */
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/ensure.h"
#include "proto/api.pb-c.h"
#include "proto/bounded.h"
#include "proto/engine.pb-c.h"
#include "proto/host.pb-c.h"
#include "proto/pbjson.h"
#include "proto/raft.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const types[] = {
    &drover__host_hello_request__descriptor,
    &drover__heartbeat_request__descriptor,
    &drover__host_hello_reply__descriptor,
    &drover__partition_start_request__descriptor,
    &drover__migrate_check_reply__descriptor,
    &drover__vm_create_request__descriptor,
    &drover__vm_list_reply__descriptor,
    &drover__raft_message__descriptor,
    &drover__raft_chunk__descriptor,
    &drover__engine_hello__descriptor,
    &drover__engine_demand__descriptor,
};

/* The allocator's own needs, and what it has put aside, may double what was asked for. */
static size_t memory_allowed(size_t len)
{
    return 2 * (len * BOUNDED_RATIO + BOUNDED_BYTES_MIN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *type = types[data[0] % (sizeof types / sizeof *types)];
    size_t before = mallinfo2().uordblks;
    ProtobufCMessage *message = bounded_unpack(type, data + 1, size - 1);
    ENSURE(mallinfo2().uordblks <= before + memory_allowed(size - 1));
    if (!message)
        return 0;
    ProtobufCMessage *copy = bounded_copy(message);
    json_t *json = pbjson(copy);
    ENSURE(json != NULL);
    json_decref(json);
    protobuf_c_message_free_unpacked(copy, NULL);
    protobuf_c_message_free_unpacked(message, NULL);
    return 0;
}
