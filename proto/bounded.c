#include "proto/bounded.h"

#include <stdlib.h>

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
