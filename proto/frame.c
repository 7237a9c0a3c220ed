#include "proto/frame.h"

#include <stdio.h>
#include <string.h>

#include "base/ensure.h"
#include "proto/bounded.h"

#define FRAME_BODY_TAG ((6 << 3) | 2) /* field `body`, length-delimited */

static size_t varint_write(size_t value, uint8_t out[10])
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

size_t frame_body_size(const struct frame *frame)
{
    return frame->body ? protobuf_c_message_get_packed_size(frame->body) : frame->packed_len;
}

/* The envelope without its body. Protobuf lets a message be the concatenation of its fields, so the body follows as is.
 */
struct frame_envelope {
    Drover__Frame frame;
    Drover__ErrorInfo error;
};

static void frame_envelope_fill(const struct frame *frame, struct frame_envelope *out)
{
    drover__frame__init(&out->frame);
    out->frame.kind = frame->kind;
    out->frame.id = frame->id;
    out->frame.method = frame->method;
    out->frame.deadline_ms = frame->deadline_ms;
    if (frame->error) {
        drover__error_info__init(&out->error);
        out->error.code = (char *)err_name(frame->error->code);
        out->error.message = (char *)frame->error->message;
        out->frame.error = &out->error;
    }
}

size_t frame_size(const struct frame *frame)
{
    struct frame_envelope envelope;
    frame_envelope_fill(frame, &envelope);
    size_t size = drover__frame__get_packed_size(&envelope.frame);
    size_t body = frame_body_size(frame);
    uint8_t varint[10];
    return body == 0 ? size : size + 1 + varint_write(body, varint) + body;
}

void frame_encode(const struct frame *frame, uint8_t *out)
{
    struct frame_envelope envelope;
    frame_envelope_fill(frame, &envelope);
    out += drover__frame__pack(&envelope.frame, out);
    size_t body = frame_body_size(frame);
    if (body == 0)
        return;
    *out++ = FRAME_BODY_TAG;
    out += varint_write(body, out);
    if (frame->body)
        protobuf_c_message_pack(frame->body, out);
    else
        memcpy(out, frame->packed, body);
}

/* What goes with each kind. */
enum field { NEVER, ALWAYS, MAYBE };
static const struct {
    enum field id, method, error, body;
} frame_rules[] = {
    [DROVER__FRAME_KIND__FRAME_HELLO] = {ALWAYS, NEVER, NEVER, ALWAYS},
    [DROVER__FRAME_KIND__FRAME_WELCOME] = {ALWAYS, NEVER, MAYBE, ALWAYS},
    [DROVER__FRAME_KIND__FRAME_REQUEST] = {ALWAYS, ALWAYS, NEVER, MAYBE},
    [DROVER__FRAME_KIND__FRAME_REPLY] = {ALWAYS, NEVER, MAYBE, MAYBE},
    [DROVER__FRAME_KIND__FRAME_NOTE] = {NEVER, ALWAYS, NEVER, MAYBE},
    [DROVER__FRAME_KIND__FRAME_RESET] = {NEVER, NEVER, NEVER, NEVER},
    [DROVER__FRAME_KIND__FRAME_PING] = {ALWAYS, NEVER, NEVER, NEVER},
    [DROVER__FRAME_KIND__FRAME_PONG] = {ALWAYS, NEVER, NEVER, NEVER},
};

static bool field_fits(enum field rule, bool present)
{
    return rule == MAYBE || present == (rule == ALWAYS);
}

static int frame_check(const Drover__Frame *frame, size_t body_max, struct err *err)
{
    unsigned kind = (unsigned)frame->kind;
    if (kind == 0 || kind >= sizeof frame_rules / sizeof *frame_rules)
        return err_set(err, ERR_PROTOCOL, "frame of unknown kind %d", (int)frame->kind);
    if (!field_fits(frame_rules[kind].id, frame->id != 0) ||
        !field_fits(frame_rules[kind].method, frame->method != 0) ||
        !field_fits(frame_rules[kind].error, frame->error != NULL) ||
        !field_fits(frame_rules[kind].body, frame->body.len != 0))
        return err_set(err, ERR_PROTOCOL, "frame of kind %u with fields missing or out of place", kind);
    if (frame->kind == DROVER__FRAME_KIND__FRAME_REPLY && frame->error && frame->body.len)
        return err_set(err, ERR_PROTOCOL, "reply with both an error and a body");
    if (frame->body.len > body_max)
        return err_set(err, ERR_PROTOCOL, "frame of %zu bytes, %zu allowed", frame->body.len, body_max);
    return 0;
}

int frame_decode(const void *data, size_t len, size_t body_max, struct err *err, Drover__Frame **out)
{
    if (len == 0)
        return err_set(err, ERR_PROTOCOL, "empty frame");
    if (len > body_max + FRAME_ENVELOPE_MAX)
        return err_set(err, ERR_PROTOCOL, "frame of %zu bytes, %zu allowed", len, body_max + FRAME_ENVELOPE_MAX);
    Drover__Frame *frame = bounded_unpack(&drover__frame__descriptor, data, len);
    if (!frame)
        return err_set(err, ERR_PROTOCOL, "%zu bytes that are no frame", len);
    if (frame_check(frame, body_max, err) < 0) {
        frame_free(frame);
        return -1;
    }
    *out = frame;
    return 0;
}

void frame_free(Drover__Frame *frame)
{
    if (frame)
        drover__frame__free_unpacked(frame, NULL);
}

/* Foreign text that will be shown on terminals and in logs: cut to fit, control characters replaced. */
static void text_take(const char *text, size_t size, char *out)
{
    size_t i = 0;
    for (; text[i] && i + 1 < size; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    out[i] = '\0';
}

void frame_error(const Drover__Frame *frame, struct err *out)
{
    ENSURE(frame->error != NULL);
    out->code = err_from_name(frame->error->code);
    if (out->code == ERR_NONE)
        out->code = ERR_INTERNAL;
    text_take(frame->error->message, sizeof out->message, out->message);
}

int frame_decode_hello(const Drover__Frame *frame, struct err *err, struct frame_hello *out)
{
    Drover__Hello *hello = bounded_unpack(&drover__hello__descriptor, frame->body.data, frame->body.len);
    if (!hello)
        return err_set(err, ERR_PROTOCOL, "hello that cannot be read");
    int rc = 0;
    if (hello->protocol_min == 0 || hello->protocol_min > hello->protocol_max)
        rc = err_set(
            err, ERR_PROTOCOL, "hello with protocol versions %u to %u", hello->protocol_min, hello->protocol_max);
    else if (hello->max_message < FRAME_ENVELOPE_MAX)
        rc = err_set(err, ERR_PROTOCOL, "hello that takes messages of %u bytes only", hello->max_message);
    if (rc == 0) {
        out->protocol_min = hello->protocol_min;
        out->protocol_max = hello->protocol_max;
        out->max_message = hello->max_message;
        text_take(hello->program, sizeof out->program, out->program);
    }
    drover__hello__free_unpacked(hello, NULL);
    return rc;
}
