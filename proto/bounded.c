#include "proto/bounded.h"

#include <stdbool.h>
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

static bool sound(const ProtobufCMessage *message);

/* A field that holds a message, or several. */
static bool field_sound(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const void *value = (const char *)message + field->offset;
    const void *quantifier = (const char *)message + field->quantifier_offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        ProtobufCMessage *const *list = *(ProtobufCMessage *const *const *)value;
        size_t count = *(const size_t *)quantifier;
        while (count > 0 && sound(list[count - 1]))
            count--;
        return count == 0;
    }
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && *(const uint32_t *)quantifier != field->id)
        return true; /* another one of the same place */
    const ProtobufCMessage *inner = *(const ProtobufCMessage *const *)value;
    return !inner || sound(inner);
}

/* protobuf-c 1.4 refuses a field of number 0, unless the number is written in more bytes than it needs: it is kept as
 * one that this program does not know, packed again in one byte, and then refused by whoever reads that. */
static bool sound(const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    for (unsigned i = 0; i < message->n_unknown_fields; i++)
        if (message->unknown_fields[i].tag == 0)
            return false;
    for (unsigned i = 0; i < type->n_fields; i++)
        if (type->fields[i].type == PROTOBUF_C_TYPE_MESSAGE && !field_sound(message, &type->fields[i]))
            return false;
    return true;
}

void *bounded_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len)
{
    struct allowance allowance = {len * BOUNDED_RATIO + BOUNDED_BYTES_MIN};
    ProtobufCAllocator allocator = {allowance_take, allowance_give, &allowance};
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, len, data);
    if (!message || sound(message))
        return message;
    protobuf_c_message_free_unpacked(message, NULL);
    return NULL;
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
