/* Frames: what goes in comes out, and nothing else gets in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "proto/frame.h"

#define BODY_MAX 4096

static struct err err;
static Drover__Frame *decoded;

static uint8_t *encode(const struct frame *frame, size_t *len)
{
    *len = frame_size(frame);
    uint8_t *data = mem_alloc(*len);
    frame_encode(frame, data);
    return data;
}

static int round_trip(const struct frame *frame)
{
    size_t len;
    uint8_t *data = encode(frame, &len);
    int rc = frame_decode(data, len, BODY_MAX, &err, &decoded);
    free(data);
    return rc;
}

static void test_request(void **state)
{
    (void)state;
    Drover__ErrorInfo body = DROVER__ERROR_INFO__INIT;
    body.code = (char *)"busy";
    struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_REQUEST,
        .id = 1ull << 40,
        .method = 7,
        .deadline_ms = 2000,
        .body = &body.base};
    assert_int_equal(round_trip(&frame), 0);
    assert_int_equal(decoded->kind, DROVER__FRAME_KIND__FRAME_REQUEST);
    assert_true(decoded->id == 1ull << 40);
    assert_int_equal(decoded->method, 7);
    assert_int_equal(decoded->deadline_ms, 2000);
    assert_null(decoded->error);
    Drover__ErrorInfo *back = drover__error_info__unpack(NULL, decoded->body.len, decoded->body.data);
    assert_non_null(back);
    assert_string_equal(back->code, "busy");
    drover__error_info__free_unpacked(back, NULL);
    frame_free(decoded);
}

static void test_body_of_every_length(void **state)
{
    (void)state;
    static uint8_t packed[BODY_MAX + 1];
    for (size_t i = 0; i < sizeof packed; i++)
        packed[i] = (uint8_t)(i * 7);
    for (size_t len = 0; len <= BODY_MAX; len++) {
        struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_NOTE, .method = 1, .packed = packed, .packed_len = len};
        assert_int_equal(round_trip(&frame), 0);
        assert_int_equal(decoded->body.len, len);
        if (len)
            assert_memory_equal(decoded->body.data, packed, len);
        frame_free(decoded);
    }
    struct frame frame = {
        .kind = DROVER__FRAME_KIND__FRAME_NOTE, .method = 1, .packed = packed, .packed_len = BODY_MAX + 1};
    assert_int_equal(round_trip(&frame), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
}

static void test_error(void **state)
{
    (void)state;
    struct err out, in;
    err_set(&in, ERR_CAPACITY, "no host has %d\n\x1b[31mMiB", 64);
    struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_REPLY, .id = 3, .error = &in};
    assert_int_equal(round_trip(&frame), 0);
    frame_error(decoded, &out);
    assert_int_equal(out.code, ERR_CAPACITY);
    assert_string_equal(out.message, "no host has 64??[31mMiB"); /* nobody's terminal is driven by a peer */
    frame_free(decoded);
}

static void test_longest_error_fits_the_envelope(void **state)
{
    (void)state;
    struct err in = {.code = ERR_CONVERGENCE}, out;
    memset(in.message, 'x', sizeof in.message - 1);
    struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_REPLY, .id = UINT64_MAX, .error = &in};
    assert_true(frame_size(&frame) <= FRAME_ENVELOPE_MAX);
    assert_int_equal(round_trip(&frame), 0);
    frame_error(decoded, &out);
    assert_string_equal(out.message, in.message);
    frame_free(decoded);
}

/* A peer's error is an error, whatever it calls it; and its length is bounded. */
static void test_strange_errors(void **state)
{
    (void)state;
    static char text[700];
    static const char *const codes[] = {"none", "", "no-such-code"};
    memset(text, 'y', sizeof text - 1);
    for (size_t i = 0; i < 3; i++) {
        struct err out;
        Drover__ErrorInfo info = DROVER__ERROR_INFO__INIT;
        Drover__Frame frame = DROVER__FRAME__INIT;
        info.code = (char *)codes[i];
        info.message = text;
        frame.error = &info;
        frame_error(&frame, &out);
        assert_int_equal(out.code, ERR_INTERNAL);
        assert_int_equal(strlen(out.message), ERR_MESSAGE_MAX - 1);
    }
}

static void test_refuses_fields_out_of_place(void **state)
{
    (void)state;
    static const uint8_t body[] = {8, 1};
    struct err failure = {.code = ERR_BUSY, .message = "busy"};
    enum { I = 1, M = 2, E = 4, B = 8 };
    /* For each kind: the sets of fields that are allowed; all others must be refused. */
    static const struct {
        Drover__FrameKind kind;
        int must, may;
    } rules[] = {
        {DROVER__FRAME_KIND__FRAME_HELLO, I | B, 0},
        {DROVER__FRAME_KIND__FRAME_WELCOME, I | B, E},
        {DROVER__FRAME_KIND__FRAME_REQUEST, I | M, B},
        {DROVER__FRAME_KIND__FRAME_REPLY, I, E | B},
        {DROVER__FRAME_KIND__FRAME_NOTE, M, B},
        {DROVER__FRAME_KIND__FRAME_RESET, 0, 0},
        {DROVER__FRAME_KIND__FRAME_PING, I, 0},
        {DROVER__FRAME_KIND__FRAME_PONG, I, 0},
    };
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++) {
        for (int set = 0; set < 16; set++) {
            struct frame frame = {.kind = rules[k].kind,
                .id = set & I ? 1 : 0,
                .method = set & M ? 1 : 0,
                .error = set & E ? &failure : NULL,
                .packed = body,
                .packed_len = set & B ? sizeof body : 0};
            bool good = (set & rules[k].must) == rules[k].must && (set & ~(rules[k].must | rules[k].may)) == 0;
            if (rules[k].kind == DROVER__FRAME_KIND__FRAME_REPLY && (set & E) && (set & B))
                good = false;
            assert_int_equal(round_trip(&frame), good ? 0 : -1);
            if (good)
                frame_free(decoded);
        }
    }
    for (int kind = -2; kind < 12; kind++) {
        struct frame frame = {.kind = (Drover__FrameKind)kind, .id = 1};
        if (kind < 1 || kind > 8)
            assert_int_equal(round_trip(&frame), -1);
    }
}

static void test_refuses_truncation(void **state)
{
    (void)state;
    Drover__Hello hello = DROVER__HELLO__INIT;
    hello.protocol_min = 1;
    hello.protocol_max = 3;
    hello.max_message = 1u << 20;
    hello.program = (char *)"program 1.2.3";
    struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_HELLO, .id = 300, .body = &hello.base};
    size_t len;
    uint8_t *data = encode(&frame, &len);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *part = mem_alloc(cut); /* of its exact size, for the sanitizer to see a read beyond it */
        memcpy(part, data, cut);
        assert_int_equal(frame_decode(part, cut, BODY_MAX, &err, &decoded), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
        free(part);
    }
    assert_int_equal(frame_decode(data, len, BODY_MAX, &err, &decoded), 0);
    frame_free(decoded);
    free(data);
}

static void test_refuses_size_before_anything_else(void **state)
{
    (void)state;
    size_t len = BODY_MAX + FRAME_ENVELOPE_MAX + 1;
    uint8_t *data = mem_zalloc(len);
    assert_int_equal(frame_decode(data, len, BODY_MAX, &err, &decoded), -1);
    assert_non_null(strstr(err.message, "allowed"));
    free(data);
}

static void test_hello(void **state)
{
    (void)state;
    static const struct {
        uint32_t min, max, max_message;
        bool good;
    } hellos[] = {{1, 1, 1u << 20, true}, {2, 9, 1024, true}, {0, 1, 1u << 20, false}, {3, 2, 1u << 20, false},
        {1, 1, 100, false}, {1, 1, 0, false}};
    for (size_t i = 0; i < sizeof hellos / sizeof *hellos; i++) {
        struct frame_hello out;
        Drover__Hello hello = DROVER__HELLO__INIT;
        hello.protocol_min = hellos[i].min;
        hello.protocol_max = hellos[i].max;
        hello.max_message = hellos[i].max_message;
        hello.program = (char *)"a program with a name that is much longer than what is kept of it, and a \t in it";
        struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_HELLO, .id = 1, .body = &hello.base};
        assert_int_equal(round_trip(&frame), 0);
        assert_int_equal(frame_decode_hello(decoded, &err, &out), hellos[i].good ? 0 : -1);
        if (hellos[i].good)
            assert_int_equal(strlen(out.program), FRAME_PROGRAM_MAX - 1);
        frame_free(decoded);
    }
    struct frame_hello out;
    struct frame frame = {
        .kind = DROVER__FRAME_KIND__FRAME_HELLO, .id = 1, .packed = (const uint8_t *)"\xff\xff", .packed_len = 2};
    assert_int_equal(round_trip(&frame), 0);
    assert_int_equal(frame_decode_hello(decoded, &err, &out), -1);
    frame_free(decoded);
}

/* What a later version may add is skipped, not refused. */
static void test_unknown_fields_are_skipped(void **state)
{
    (void)state;
    static const uint8_t data[] = {0x08, 7, 0x10, 9, 0xa2, 0x06, 3, 'n', 'e', 'w'}; /* PING, id 9, field 100 */
    assert_int_equal(frame_decode(data, sizeof data, BODY_MAX, &err, &decoded), 0);
    assert_int_equal(decoded->id, 9);
    frame_free(decoded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_body_of_every_length),
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_longest_error_fits_the_envelope),
        cmocka_unit_test(test_strange_errors),
        cmocka_unit_test(test_refuses_fields_out_of_place),
        cmocka_unit_test(test_refuses_truncation),
        cmocka_unit_test(test_refuses_size_before_anything_else),
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_unknown_fields_are_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
