#include "proto/pbjson.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/ensure.h"

/* --- enums --- */

/* Length of what all names of the enum begin with, up to and including a '_'. */
static size_t enum_prefix(const ProtobufCEnumDescriptor *type)
{
    if (type->n_values < 2)
        return 0;
    const char *first = type->values[0].name;
    size_t common = strlen(first);
    for (unsigned i = 1; i < type->n_values; i++) {
        size_t n = 0;
        while (n < common && type->values[i].name[n] == first[n])
            n++;
        common = n;
    }
    /* A name that is nothing but the prefix would become empty: the '_' must have something behind it everywhere. */
    while (common > 0 && first[common - 1] != '_')
        common--;
    for (unsigned i = 0; i < type->n_values; i++)
        if (type->values[i].name[common] == '\0')
            return 0;
    return common;
}

const char *pbjson_enum(const ProtobufCEnumDescriptor *type, int value, char out[static 64])
{
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(type, value);
    if (!found)
        return "unknown";
    const char *name = found->name + enum_prefix(type);
    size_t i = 0;
    for (; name[i] && i < 63; i++)
        out[i] = name[i] == '_' ? '-' : (char)tolower((unsigned char)name[i]);
    out[i] = '\0';
    return out;
}

/* --- values --- */

static json_t *value_string(const char *text)
{
    if (!text)
        text = "";
    json_t *value = json_string(text);
    if (value)
        return value;
    /* Not UTF-8: whoever reads the JSON must get valid text all the same. */
    cleanup_free char *plain = mem_strdup(text);
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    return json_string(plain);
}

static json_t *value_bytes(const ProtobufCBinaryData *bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    cleanup_buf struct buf text = {0};
    for (size_t i = 0; i < bytes->len; i += 3) {
        size_t left = bytes->len - i;
        uint32_t group = (uint32_t)bytes->data[i] << 16 | (left > 1 ? (uint32_t)bytes->data[i + 1] << 8 : 0) |
                         (left > 2 ? bytes->data[i + 2] : 0);
        char four[4] = {digits[group >> 18], digits[group >> 12 & 63], left > 1 ? digits[group >> 6 & 63] : '=',
            left > 2 ? digits[group & 63] : '='};
        buf_append(&text, four, sizeof four);
    }
    return json_string(buf_str(&text));
}

/* JSON integers end at INT64_MAX here; what is beyond is written in decimal as text rather than wrongly. */
static json_t *value_u64(uint64_t number)
{
    if (number <= INT64_MAX)
        return json_integer((json_int_t)number);
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    return json_string(text);
}

static json_t *value_real(double number)
{
    json_t *value = json_real(number);
    return value ? value : json_null(); /* not a number, or infinite: JSON has no word for it */
}

/* What the switches below end in for a type that protobuf-c has not got today. */
static const bool field_type_known = false;

/* Size of one value in a message or an array. */
static size_t value_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return sizeof(uint32_t);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_FLOAT:
        return sizeof(float);
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(double);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return sizeof(int);
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(char *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(ProtobufCMessage *);
    }
    ENSURE(field_type_known);
    return 0;
}

static json_t *value_json(const ProtobufCFieldDescriptor *field, const void *at)
{
    char name[64];
    const ProtobufCMessage *message;
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_integer(*(const int64_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return value_u64(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FLOAT:
        return value_real((double)*(const float *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return value_real(*(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)at);
    case PROTOBUF_C_TYPE_ENUM:
        return json_string(pbjson_enum(field->descriptor, *(const int *)at, name));
    case PROTOBUF_C_TYPE_STRING:
        return value_string(*(const char *const *)at);
    case PROTOBUF_C_TYPE_BYTES:
        return value_bytes(at);
    case PROTOBUF_C_TYPE_MESSAGE:
        message = *(const ProtobufCMessage *const *)at;
        return message ? pbjson(message) : json_null();
    }
    ENSURE(field_type_known);
    return NULL;
}

/* --- messages --- */

static json_t *field_list(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *base = (const char *)message;
    size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    const char *items = *(const char *const *)(const void *)(base + field->offset);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, value_json(field, items + i * value_size(field)));
    return list;
}

/* Whether the field has a value at all; one that may be absent and is shows as null. */
static bool field_present(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *base = (const char *)message;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)(const void *)(base + field->quantifier_offset) == field->id;
    if (field->label != PROTOBUF_C_LABEL_OPTIONAL)
        return true;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE || field->type == PROTOBUF_C_TYPE_STRING) {
        const void *pointer = *(const void *const *)(const void *)(base + field->offset);
        return pointer != NULL && pointer != field->default_value;
    }
    return *(const protobuf_c_boolean *)(const void *)(base + field->quantifier_offset);
}

json_t *pbjson(const ProtobufCMessage *message)
{
    json_t *object = json_object();
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        json_t *value;
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            value = field_list(message, field);
        else if (field_present(message, field))
            value = value_json(field, (const char *)message + field->offset);
        else
            value = json_null();
        json_object_set_new(object, field->name, value);
    }
    return object;
}
