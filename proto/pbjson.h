/* Any protobuf message as JSON, by its descriptor: field names as in the .proto file, enum values as their names
 * without the enum's common prefix in lower case with '-' (JOB_SUCCEEDED -> "succeeded"), bytes as base64, 64-bit
 * numbers as JSON integers. Fields at their default are written too, so that scripts need not guess. */
#ifndef PROTO_PBJSON_H
#define PROTO_PBJSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

/* Take: json_decref(). */
json_t *pbjson(const ProtobufCMessage *message);
/* The text pbjson() gives an enum's value; "unknown" when the number is not in the enum. Lent from a static table or
 * `out`. */
const char *pbjson_enum(const ProtobufCEnumDescriptor *type, int value, char out[static 64]);

#endif
