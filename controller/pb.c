#include "controller/pb.h"

#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"
#include "proto/bounded.h"

void *pb_new(const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = mem_alloc(type->sizeof_message);
    protobuf_c_message_init(type, message);
    return message;
}

void pb_free(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

void *pb_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len)
{
    return protobuf_c_message_unpack(type, NULL, len, data);
}

void pb_pack(const void *message, struct buf *out)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    ENSURE(protobuf_c_message_pack(message, buf_reserve(out, len)) == len);
    out->len += len;
}

void *pb_copy(const void *message)
{
    return message ? bounded_copy(message) : NULL;
}

void pb_string(char **field, const char *value)
{
    char *copy = *value ? mem_strdup(value) : (char *)protobuf_c_empty_string;
    if (*field != protobuf_c_empty_string)
        free(*field);
    *field = copy;
}

void pb_bytes(ProtobufCBinaryData *field, const void *data, size_t len)
{
    free(field->data);
    *field = (ProtobufCBinaryData){0};
    if (len == 0)
        return;
    field->data = mem_alloc(len);
    field->len = len;
    memcpy(field->data, data, len);
}

Drover__ErrorInfo *pb_error(const struct err *err)
{
    Drover__ErrorInfo *info = pb_new(&drover__error_info__descriptor);
    pb_string(&info->code, err_name(err->code));
    pb_string(&info->message, err->message);
    return info;
}

void pb_error_get(const Drover__ErrorInfo *info, struct err *out)
{
    err_set(out, err_from_name(info->code), "%s", info->message);
}
