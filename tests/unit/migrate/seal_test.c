#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "migrate/ack.h"
#include "migrate/seal.h"

static const uint8_t key[SEAL_KEY_BYTES] = {1, 2, 3};

static void test_messages_in_order_open(void **state)
{
    (void)state;
    struct seal *out = seal_new(key, SEAL_TO_DESTINATION, 3), *in = seal_new(key, SEAL_TO_DESTINATION, 3);
    struct err err;
    for (int i = 0; i < 100; i++) {
        uint8_t text[64], sealed[64 + SEAL_OVERHEAD], opened[64];
        memset(text, i, sizeof text);
        assert_int_equal(seal_close(out, text, sizeof text, sealed), sizeof sealed);
        assert_int_equal(seal_open(in, sealed, sizeof sealed, &err, opened), 0);
        assert_memory_equal(text, opened, sizeof text);
    }
    seal_free(out);
    seal_free(in);
}

/* Opens `sealed` with a fresh receiver of the given key, direction and stripe. */
static int open_with(
    const uint8_t *with, enum seal_direction direction, uint32_t stripe, const uint8_t *sealed, size_t len)
{
    struct seal *in = seal_new(with, direction, stripe);
    struct err err;
    uint8_t opened[256];
    int rc = seal_open(in, sealed, len, &err, opened);
    if (rc < 0)
        assert_int_equal(err.code, ERR_PROTOCOL);
    seal_free(in);
    return rc;
}

static void test_only_the_right_receiver_opens(void **state)
{
    (void)state;
    static const uint8_t other[SEAL_KEY_BYTES] = {9};
    struct seal *out = seal_new(key, SEAL_TO_DESTINATION, 1);
    uint8_t sealed[5 + SEAL_OVERHEAD];
    size_t len = seal_close(out, (const uint8_t *)"hello", 5, sealed);
    assert_int_equal(open_with(key, SEAL_TO_DESTINATION, 1, sealed, len), 0);
    assert_int_equal(open_with(other, SEAL_TO_DESTINATION, 1, sealed, len), -1);
    assert_int_equal(open_with(key, SEAL_TO_SOURCE, 1, sealed, len), -1);
    assert_int_equal(open_with(key, SEAL_TO_DESTINATION, 2, sealed, len), -1);
    seal_free(out);
}

static void test_any_changed_bit_is_noticed(void **state)
{
    (void)state;
    struct seal *out = seal_new(key, SEAL_TO_SOURCE, 0);
    uint8_t sealed[20 + SEAL_OVERHEAD];
    size_t len = seal_close(out, (const uint8_t *)"twenty bytes exactly", 20, sealed);
    for (size_t bit = 0; bit < len * 8; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(open_with(key, SEAL_TO_SOURCE, 0, sealed, len), -1);
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(open_with(key, SEAL_TO_SOURCE, 0, sealed, cut), -1);
    assert_int_equal(open_with(key, SEAL_TO_SOURCE, 0, sealed, len), 0);
    seal_free(out);
}

static void test_replays_and_gaps_are_refused(void **state)
{
    (void)state;
    struct seal *out = seal_new(key, SEAL_TO_DESTINATION, 0), *in = seal_new(key, SEAL_TO_DESTINATION, 0);
    struct err err;
    uint8_t first[1 + SEAL_OVERHEAD], second[1 + SEAL_OVERHEAD], opened[1];
    seal_close(out, (const uint8_t *)"1", 1, first);
    seal_close(out, (const uint8_t *)"2", 1, second);
    assert_int_equal(seal_open(in, second, sizeof second, &err, opened), -1);
    assert_int_equal(seal_open(in, first, sizeof first, &err, opened), 0);
    assert_int_equal(seal_open(in, first, sizeof first, &err, opened), -1);
    assert_int_equal(seal_open(in, second, sizeof second, &err, opened), 0);
    seal_free(out);
    seal_free(in);
}

static void test_acknowledgement(void **state)
{
    (void)state;
    uint8_t body[ACK_BODY_BYTES];
    ack_encode(UINT64_C(0x0123456789abcdef), body);
    assert_int_equal(body[0], 0xef);
    assert_true(ack_decode(body) == UINT64_C(0x0123456789abcdef));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_in_order_open),
        cmocka_unit_test(test_only_the_right_receiver_opens),
        cmocka_unit_test(test_any_changed_bit_is_noticed),
        cmocka_unit_test(test_replays_and_gaps_are_refused),
        cmocka_unit_test(test_acknowledgement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
