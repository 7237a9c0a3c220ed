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

static unsigned random_next(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

/* A batch of `count` pages of all kinds, full ones with `noise` bits of randomness a byte. */
static void fill(struct batch *b, uint32_t count, unsigned noise, unsigned seed)
{
    uint8_t content[PAGE_BYTES];
    batch_begin(b);
    for (uint32_t i = 0, page = seed % 100; i < count; i++, page += i % 4 ? 1 : 6) {
        assert_true(batch_has_room(b, 1));
        for (size_t k = 0; k < PAGE_BYTES; k++)
            content[k] = (uint8_t)(random_next(&seed) & ((1u << noise) - 1));
        if (i % 5 == 1)
            batch_add_zero(b, page);
        else if (i % 5 == 3)
            batch_add_reused(b, page);
        else if (i % 5 == 2)
            batch_add_delta(b, page, content, seed % (BATCH_DELTA_MAX + 1));
        else
            batch_add_full(b, page, content);
    }
}

static void round_trip(struct fixture *f, uint32_t count, unsigned noise)
{
    fill(&f->in, count, noise, count + noise);
    size_t len = batch_encode(&f->in, f->message);
    assert_true(len <= BATCH_BYTES_MAX);
    assert_int_equal(batch_decode(f->message, len, PAGES, &f->err, &f->out), 0);
    assert_int_equal(f->out.runs, f->in.runs);
    assert_int_equal(f->out.full_bytes, f->in.full_bytes);
    assert_int_equal(f->out.delta_bytes, f->in.delta_bytes);
    for (uint32_t i = 0; i < f->in.runs; i++) {
        assert_int_equal(f->out.run[i].first, f->in.run[i].first);
        assert_int_equal(f->out.run[i].kind, f->in.run[i].kind);
        assert_int_equal(f->out.run[i].pages, f->in.run[i].pages);
        if (f->in.run[i].kind != BATCH_ZERO)
            assert_int_equal(f->out.run[i].at, f->in.run[i].at);
    }
    assert_memory_equal(f->out.pages, f->in.full, f->in.full_bytes);
    assert_memory_equal(f->out.delta, f->in.deltas, f->in.delta_bytes);
}

static void test_round_trip(void **state)
{
    for (uint32_t count = 0; count <= 60; count++)
        for (unsigned noise = 0; noise <= 8; noise += 4)
            round_trip(*state, count, noise);
}

static void test_neighbours_of_a_kind_are_one_run(void **state)
{
    struct fixture *f = *state;
    batch_begin(&f->in);
    for (uint32_t page = 0; page < BATCH_RUN_PAGES + 10; page++)
        batch_add_zero(&f->in, page);
    assert_int_equal(f->in.runs, 2);
    assert_int_equal(f->in.run[0].pages, BATCH_RUN_PAGES);
    assert_int_equal(f->in.run[1].pages, 10);
    batch_add_zero(&f->in, 500);
    assert_int_equal(f->in.runs, 3);
}

static void test_room_is_there_for_any_kind(void **state)
{
    struct fixture *f = *state;
    uint8_t content[PAGE_BYTES] = {1};
    for (int kind = BATCH_ZERO; kind < BATCH_KINDS; kind++) {
        uint32_t pages = 0;
        for (batch_begin(&f->in); batch_has_room(&f->in, 1); pages++) /* aborts when it does not fit */
            if (kind == BATCH_ZERO)
                batch_add_zero(&f->in, pages * 2);
            else if (kind == BATCH_REUSED)
                batch_add_reused(&f->in, pages * 2);
            else if (kind == BATCH_FULL)
                batch_add_full(&f->in, pages * 2, content);
            else
                batch_add_delta(&f->in, pages * 2, content, BATCH_DELTA_MAX);
        assert_true(pages > 60);
        assert_true(batch_encode(&f->in, f->message) <= BATCH_BYTES_MAX);
    }
}

/* What cannot be compressed takes no more than 3 % on top of itself: it is stored. */
static void test_incompressible_is_stored(void **state)
{
    struct fixture *f = *state;
    uint8_t content[PAGE_BYTES];
    unsigned seed = 1;
    batch_begin(&f->in);
    for (uint32_t page = 0; page < BATCH_FULL_PAGES; page++) {
        for (size_t k = 0; k < PAGE_BYTES; k++)
            content[k] = (uint8_t)random_next(&seed);
        batch_add_full(&f->in, page * 3, content);
    }
    size_t len = batch_encode(&f->in, f->message);
    assert_int_equal(f->in.packed_bytes, f->in.full_bytes);
    assert_int_equal(len, BATCH_HEADER + BATCH_FULL_PAGES * BATCH_RUN_BYTES + f->in.full_bytes);
    assert_true(len * 100 <= f->in.full_bytes * 103ul);
}

/* Words that repeat the one before are left out; what stays of them is stored if LZ4 makes nothing of it. */
static void test_repeated_words_are_folded(void **state)
{
    struct fixture *f = *state;
    uint8_t content[PAGE_BYTES];
    unsigned seed = 5;
    for (unsigned kept = 0; kept <= PAGE_BYTES; kept += 512) {
        batch_begin(&f->in);
        for (uint32_t page = 0; page < BATCH_FULL_PAGES; page++) {
            for (size_t k = 0; k < PAGE_BYTES; k++)
                content[k] = k < kept ? (uint8_t)random_next(&seed) : 7;
            batch_add_full(&f->in, page, content);
        }
        size_t len = batch_encode(&f->in, f->message);
        assert_int_equal(f->in.folded_bytes < f->in.full_bytes, kept <= PAGE_BYTES / 4 * 3 - 8);
        assert_int_equal(batch_decode(f->message, len, PAGES, &f->err, &f->out), 0);
        assert_int_equal(f->out.full_bytes, BATCH_FULL_BYTES);
        assert_memory_equal(f->out.pages, f->in.full, BATCH_FULL_BYTES);
    }
}

static uint32_t packed_size(struct fixture *f, unsigned noise, unsigned seed)
{
    uint8_t content[PAGE_BYTES];
    batch_begin(&f->in);
    for (uint32_t page = 0; page < BATCH_FULL_PAGES; page++) {
        for (size_t k = 0; k < PAGE_BYTES; k++)
            content[k] = (uint8_t)(random_next(&seed) & ((1u << noise) - 1));
        batch_add_full(&f->in, page, content);
    }
    batch_encode(&f->in, f->message);
    return f->in.packed_bytes;
}

/* Blocks that do not shrink do not keep those behind them from being packed. */
static void test_packing_is_tried_again(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(packed_size(f, 8, i), BATCH_FULL_BYTES);
    assert_true(packed_size(f, 1, 1) < BATCH_FULL_BYTES / 2);
    assert_int_equal(packed_size(f, 8, 4), BATCH_FULL_BYTES);
    assert_true(packed_size(f, 1, 1) < BATCH_FULL_BYTES / 2);
}

static void test_every_truncation_is_refused(void **state)
{
    struct fixture *f = *state;
    fill(&f->in, 6, 3, 9);
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
    batch_begin(&f->in);
    for (uint32_t page = PAGES - 3; page <= PAGES; page++)
        batch_add_zero(&f->in, page);
    size_t len = batch_encode(&f->in, f->message);
    assert_int_equal(batch_decode(f->message, len, PAGES, &f->err, &f->out), -1);
    assert_int_equal(batch_decode(f->message, len, PAGES + 1, &f->err, &f->out), 0);
    assert_int_equal(batch_decode(f->message, len, 2, &f->err, &f->out), -1);
}

/* Whatever bytes come, decoding must neither crash nor write beyond its bounds (the sanitizers watch), and what it
 * accepts must be within the limits. */
static void test_damaged_messages(void **state)
{
    struct fixture *f = *state;
    unsigned seed = 42, accepted = 0;
    fill(&f->in, 20, 3, 5);
    size_t len = batch_encode(&f->in, f->message);
    uint8_t *copy = malloc(len);
    for (int round = 0; round < 20000; round++) {
        memcpy(copy, f->message, len);
        for (int k = 0; k < 4; k++) {
            unsigned where = random_next(&seed);
            copy[where % (round % 2 ? len : BATCH_HEADER + 80)] = (uint8_t)random_next(&seed);
        }
        if (batch_decode(copy, len, PAGES, &f->err, &f->out) < 0)
            continue;
        accepted++;
        assert_true(f->out.runs <= BATCH_RUNS);
        for (uint32_t i = 0; i < f->out.runs; i++) {
            const struct batch_run *run = &f->out.run[i];
            assert_true(run->first + run->pages <= PAGES && run->kind < BATCH_KINDS);
            if (run->kind == BATCH_FULL)
                assert_true(run->at + run->pages * PAGE_BYTES <= f->out.full_bytes);
            uint32_t at = run->at;
            for (uint32_t k = 0; run->kind == BATCH_DELTA && k < run->pages; k++) {
                size_t size;
                const uint8_t *delta = batch_delta(&f->out, &at, &size);
                assert_true(size <= BATCH_DELTA_MAX && delta + size <= f->out.delta + f->out.delta_bytes);
            }
        }
    }
    assert_true(accepted > 0);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neighbours_of_a_kind_are_one_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room_is_there_for_any_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_incompressible_is_stored, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeated_words_are_folded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_packing_is_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_truncation_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_beyond_ram_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_messages, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
