/* frame: the envelope of wire.proto as bytes. Pure.
 *
 * Encoding writes the envelope and the message inside it in one go, without a copy in between. Decoding is the border
 * where foreign bytes become checked structs: size first, then the fields that go with the kind (see frame_decode()).
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/wire.pb-c.h"

#define FRAME_ENVELOPE_MAX 1024 /* what the envelope may add to a body: numbers, and an error's code and message */
#define FRAME_PROGRAM_MAX  64

/* A frame to be sent; everything in it is lent. */
struct frame {
    Drover__FrameKind kind;
    uint64_t id;
    uint32_t method;
    uint32_t deadline_ms;
    const struct err *error;
    const ProtobufCMessage *body; /* or NULL */
    const uint8_t *packed;        /* a body that is packed already, when `body` is NULL */
    size_t packed_len;
};

size_t frame_body_size(const struct frame *frame);
size_t frame_size(const struct frame *frame);
/* Writes frame_size() bytes. */
void frame_encode(const struct frame *frame, uint8_t *out);

/* Decodes a frame whose body has at most `body_max` bytes. Refused with ERR_PROTOCOL: what is no Frame, an unknown
 * kind, a field that the kind must have and has not, or has and must not have. Take: frame_free(). */
MUST_CHECK int frame_decode(const void *data, size_t len, size_t body_max, struct err *err, Drover__Frame **out);
void frame_free(Drover__Frame *frame);
/* A frame's error as an error of ours: never ERR_NONE, and its text without control characters. */
void frame_error(const Drover__Frame *frame, struct err *out);

/* The body of a HELLO or WELCOME. */
struct frame_hello {
    uint32_t protocol_min, protocol_max;
    uint32_t max_message;
    char program[FRAME_PROGRAM_MAX];
};
MUST_CHECK int frame_decode_hello(const Drover__Frame *frame, struct err *err, struct frame_hello *out);

#endif
