/* The first decoder that sees a peer's bytes. What it lets through must survive being encoded again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "proto/frame.h"
#include "proto/pbjson.h"

#define BODY_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const Drover__Frame *decoded)
{
    struct err err, error;
    struct frame frame = {.kind = decoded->kind,
        .id = decoded->id,
        .method = decoded->method,
        .deadline_ms = decoded->deadline_ms,
        .packed = decoded->body.data,
        .packed_len = decoded->body.len};
    if (decoded->error) {
        frame_error(decoded, &error);
        ENSURE(error.code != ERR_NONE);
        ENSURE(memchr(error.message, '\0', sizeof error.message) != NULL);
        frame.error = &error;
    }
    size_t len = frame_size(&frame);
    uint8_t *packed = mem_alloc(len);
    frame_encode(&frame, packed);
    Drover__Frame *again;
    ENSURE(frame_decode(packed, len, BODY_MAX, &err, &again) == 0);
    ENSURE(again->kind == decoded->kind && again->id == decoded->id && again->method == decoded->method);
    ENSURE(again->deadline_ms == decoded->deadline_ms && again->body.len == decoded->body.len);
    ENSURE(again->body.len == 0 || memcmp(again->body.data, decoded->body.data, again->body.len) == 0);
    frame_free(again);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    struct frame_hello hello;
    Drover__Frame *frame;
    if (frame_decode(data, size, BODY_MAX, &err, &frame) < 0)
        return 0;
    ENSURE(frame->body.len <= BODY_MAX);
    check_again(frame);
    if (frame_decode_hello(frame, &err, &hello) == 0)
        ENSURE(hello.protocol_min >= 1 && hello.protocol_min <= hello.protocol_max);
    json_t *json = pbjson(&frame->base);
    char *text = json_dumps(json, JSON_COMPACT);
    ENSURE(text != NULL);
    free(text);
    json_decref(json);
    frame_free(frame);
    return 0;
}
