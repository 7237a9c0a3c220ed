#include "proto/bounded.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/ensure.h"

struct allowance {
    size_t left;
};

static void *allowance_take(void *user, size_t size)
{
    struct allowance *allowance = user;
    if (size > allowance->left)
        return NULL;
    allowance->left -= size;
    return malloc(size);
}

static void allowance_give(void *user, void *memory)
{
    (void)user; /* what was taken for a moment only counts, too: it is a share of the rest */
    free(memory);
}

void *bounded_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len)
{
    struct allowance allowance = {len * BOUNDED_RATIO + BOUNDED_BYTES_MIN};
    ProtobufCAllocator allocator = {allowance_take, allowance_give, &allowance};
    return protobuf_c_message_unpack(type, &allocator, len, data);
}

void *bounded_copy(const void *message)
{
    const ProtobufCMessage *from = message;
    size_t len = protobuf_c_message_get_packed_size(from);
    uint8_t *packed = mem_alloc(len + 1);
    protobuf_c_message_pack(from, packed);
    void *copy = protobuf_c_message_unpack(from->descriptor, NULL, len, packed);
    free(packed);
    ENSURE(copy != NULL);
    return copy;
}
