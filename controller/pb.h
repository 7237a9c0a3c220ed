/* Protobuf messages as values on the heap: made, filled, copied and freed the same way wherever they come from. A
 * string field is either the shared empty string or memory of its own, so that every message can go through pb_free().
 */
#ifndef CONTROLLER_PB_H
#define CONTROLLER_PB_H

#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "proto/wire.pb-c.h"

/* A new message with every field at its default. Take: pb_free(), or hand it to the field of another message. */
void *pb_new(const ProtobufCMessageDescriptor *type);
/* Frees the message and everything in it; NULL is fine. */
void pb_free(void *message);
/* Take. NULL in, NULL out. */
void *pb_copy(const void *message);
/* Of what a controller has packed: the log, the state. What comes from elsewhere: proto/bounded.h. NULL when the bytes
 * are no such message. Take. */
void *pb_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len);
/* Appends the packed message. */
void pb_pack(const void *message, struct buf *out);
/* Replaces a string field by a copy of `value`. */
void pb_string(char **field, const char *value);
/* Replaces a bytes field by a copy. */
void pb_bytes(ProtobufCBinaryData *field, const void *data, size_t len);

/* An error as a message: take; and back, cut to fit. */
Drover__ErrorInfo *pb_error(const struct err *err);
void pb_error_get(const Drover__ErrorInfo *info, struct err *out);

/* Appends `item` (taken) to the repeated message or string field `field` of `message`. */
#define PB_ADD(message, field, item)                                                                                   \
    do {                                                                                                               \
        (message)->field = mem_realloc((message)->field, ((message)->n_##field + 1) * sizeof *(message)->field);       \
        (message)->field[(message)->n_##field++] = (item);                                                             \
    } while (0)

static inline void cleanup_pb_fn(void *p)
{
    pb_free(*(void **)p);
}
#define cleanup_pb __attribute__((cleanup(cleanup_pb_fn)))

#endif
