#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "migrate/delta.h"
#include "migrate/ram.h"

static unsigned seed = 1;

static unsigned random_next(void)
{
    seed = seed * 1103515245u + 12345u;
    return seed >> 16;
}

static void random_page(uint8_t *page)
{
    for (size_t i = 0; i < PAGE_BYTES; i++)
        page[i] = (uint8_t)random_next();
}

/* Encodes, applies, compares; returns the length. */
static size_t round_trip(const uint8_t *base, const uint8_t *page)
{
    uint8_t delta[PAGE_BYTES * 2], made[PAGE_BYTES];
    size_t len = 0;
    struct err err;
    assert_true(delta_encode(base, page, delta, sizeof delta, &len));
    memcpy(made, base, PAGE_BYTES);
    assert_int_equal(delta_apply(delta, len, &err, made), 0);
    assert_memory_equal(made, page, PAGE_BYTES);
    assert_int_equal(delta_apply(delta, len, &err, made), 0); /* twice does no harm */
    assert_memory_equal(made, page, PAGE_BYTES);
    return len;
}

static void test_same_page(void **unused)
{
    (void)unused;
    uint8_t page[PAGE_BYTES];
    random_page(page);
    assert_int_equal(round_trip(page, page), 0);
}

static void test_one_byte_anywhere(void **unused)
{
    (void)unused;
    uint8_t base[PAGE_BYTES], page[PAGE_BYTES];
    random_page(base);
    for (size_t at = 0; at < PAGE_BYTES; at++) {
        memcpy(page, base, PAGE_BYTES);
        page[at] ^= 0x40;
        assert_true(round_trip(base, page) <= 4);
    }
}

static void test_random_changes(void **unused)
{
    (void)unused;
    uint8_t base[PAGE_BYTES], page[PAGE_BYTES];
    for (unsigned round = 0; round < 5000; round++) {
        random_page(base);
        memcpy(page, base, PAGE_BYTES);
        for (unsigned k = random_next() % 50; k > 0; k--) {
            size_t at = random_next() % PAGE_BYTES, run = random_next() % 60;
            for (; run > 0 && at < PAGE_BYTES; run--, at++)
                page[at] = (uint8_t)random_next();
        }
        round_trip(base, page);
    }
    random_page(base);
    random_page(page);
    round_trip(base, page);
}

static void test_never_more_than_allowed(void **unused)
{
    (void)unused;
    uint8_t base[PAGE_BYTES], page[PAGE_BYTES], delta[PAGE_BYTES];
    for (size_t max = 0; max < 300; max++) {
        size_t len = 0;
        random_page(base);
        memcpy(page, base, PAGE_BYTES);
        for (unsigned k = 0; k < 12; k++)
            page[random_next() % PAGE_BYTES] ^= 1;
        memset(delta, 0xee, sizeof delta);
        if (delta_encode(base, page, delta, max, &len))
            assert_true(len <= max);
        for (size_t i = max; i < sizeof delta; i++)
            assert_int_equal(delta[i], 0xee);
    }
}

/* Whatever bytes come, nothing beyond the page is read or written (the sanitizers watch). */
static void test_garbage(void **unused)
{
    (void)unused;
    uint8_t delta[300], page[PAGE_BYTES] = {0};
    unsigned refused = 0;
    for (unsigned round = 0; round < 50000; round++) {
        size_t len = random_next() % sizeof delta;
        for (size_t i = 0; i < len; i++)
            delta[i] = (uint8_t)(round % 2 ? random_next() : random_next() % 8);
        struct err err;
        if (delta_apply(delta, len, &err, page) < 0) {
            assert_int_equal(err.code, ERR_PROTOCOL);
            refused++;
        }
    }
    assert_true(refused > 0);
}

static void test_runs_beyond_the_page_are_refused(void **unused)
{
    (void)unused;
    uint8_t page[PAGE_BYTES] = {0};
    struct err err;
    const uint8_t end[] = {0xff, 0x1f, 1, 7};         /* 4095 equal bytes, one changed */
    const uint8_t beyond[] = {0x80, 0x20, 1, 7};      /* 4096 equal bytes, one changed */
    const uint8_t missing[] = {0, 5, 1, 2};           /* five changed, two there */
    const uint8_t third[] = {0x80, 0x80, 1, 1, 0, 0}; /* a number of three bytes */
    assert_int_equal(delta_apply(end, sizeof end, &err, page), 0);
    assert_int_equal(page[PAGE_BYTES - 1], 7);
    assert_int_equal(delta_apply(beyond, sizeof beyond, &err, page), -1);
    assert_int_equal(delta_apply(missing, sizeof missing, &err, page), -1);
    assert_int_equal(delta_apply(third, sizeof third, &err, page), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_page),
        cmocka_unit_test(test_one_byte_anywhere),
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test(test_never_more_than_allowed),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_runs_beyond_the_page_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
