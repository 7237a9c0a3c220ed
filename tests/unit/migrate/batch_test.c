#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "migrate/batch.h"

#define PAGES 1000u

struct fixture {
    struct batch in, out;
    uint8_t message[BATCH_BYTES_MAX + 8];
    struct err err;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

/* A batch of `count` pages, every third of them zero, filled by a generator with `noise` bits of randomness a byte. */
static void fill(struct batch *b, uint32_t count, unsigned noise, unsigned seed)
{
    b->count = count;
    b->raw_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        b->page[i] = (i * 7 + seed) % PAGES;
        if (i % 3 == 2) {
            b->page[i] |= BATCH_ZERO;
            continue;
        }
        for (size_t k = 0; k < PAGE_BYTES; k++) {
            seed = seed * 1103515245u + 12345u;
            b->data[b->raw_bytes + k] = (uint8_t)((seed >> 16) & ((1u << noise) - 1));
        }
        b->raw_bytes += PAGE_BYTES;
    }
}

static void round_trip(struct fixture *f, uint32_t count, unsigned noise)
{
    fill(&f->in, count, noise, count + noise);
    size_t len = batch_encode(&f->in, f->message);
    assert_true(len <= BATCH_BYTES_MAX);
    assert_int_equal(batch_decode(f->message, len, PAGES, &f->err, &f->out), 0);
    assert_int_equal(f->out.count, count);
    assert_int_equal(f->out.raw_bytes, f->in.raw_bytes);
    assert_memory_equal(f->out.page, f->in.page, count * sizeof *f->in.page);
    assert_memory_equal(f->out.data, f->in.data, f->in.raw_bytes);
}

static void test_round_trip(void **state)
{
    for (uint32_t count = 0; count <= BATCH_PAGES; count++)
        for (unsigned noise = 0; noise <= 8; noise += 4)
            round_trip(*state, count, noise);
}

static void test_incompressible_is_stored(void **state)
{
    struct fixture *f = *state;
    fill(&f->in, BATCH_PAGES, 8, 1);
    size_t len = batch_encode(&f->in, f->message);
    assert_int_equal(len, BATCH_HEADER + BATCH_PAGES * 4 + f->in.raw_bytes);
}

static void test_every_truncation_is_refused(void **state)
{
    struct fixture *f = *state;
    fill(&f->in, 5, 3, 9);
    size_t len = batch_encode(&f->in, f->message);
    for (size_t cut = 0; cut < len; cut++) {
        assert_int_equal(batch_decode(f->message, cut, PAGES, &f->err, &f->out), -1);
        assert_int_equal(f->err.code, ERR_PROTOCOL);
    }
    assert_int_equal(batch_decode(f->message, len + 1, PAGES, &f->err, &f->out), -1);
}

static void test_page_beyond_ram_is_refused(void **state)
{
    struct fixture *f = *state;
    fill(&f->in, 4, 2, 3);
    f->in.page[1] = PAGES;
    size_t len = batch_encode(&f->in, f->message);
    assert_int_equal(batch_decode(f->message, len, PAGES, &f->err, &f->out), -1);
    f->in.page[1] = PAGES - 1;
    len = batch_encode(&f->in, f->message);
    assert_int_equal(batch_decode(f->message, len, PAGES, &f->err, &f->out), 0);
}

/* Whatever bytes come, decoding must neither crash nor write beyond its bounds (the sanitizers watch), and what it
 * accepts must be within the limits. */
static void test_damaged_messages(void **state)
{
    struct fixture *f = *state;
    unsigned seed = 42;
    fill(&f->in, 20, 3, 5);
    size_t len = batch_encode(&f->in, f->message);
    uint8_t *copy = malloc(len);
    for (int round = 0; round < 20000; round++) {
        memcpy(copy, f->message, len);
        for (int k = 0; k < 4; k++) {
            seed = seed * 1103515245u + 12345u;
            copy[(seed >> 8) % (round % 2 ? len : BATCH_HEADER + 80)] = (uint8_t)(seed >> 24);
        }
        if (batch_decode(copy, len, PAGES, &f->err, &f->out) < 0)
            continue;
        assert_true(f->out.count <= BATCH_PAGES && f->out.raw_bytes <= f->out.count * PAGE_BYTES);
        for (uint32_t i = 0; i < f->out.count; i++)
            assert_true((f->out.page[i] & ~BATCH_ZERO) < PAGES);
    }
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incompressible_is_stored, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_truncation_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_beyond_ram_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_messages, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
