/* What is folded comes back as it was; what was never folded is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/fold.h"

#define WORDS (PAGE_BYTES / sizeof(uint64_t))

struct fixture {
    uint64_t pages[FOLD_PAGES_MAX][WORDS];
    uint8_t folded[FOLD_PAGES_MAX * PAGE_BYTES], back[FOLD_PAGES_MAX * PAGE_BYTES];
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

static uint64_t random_next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return *seed >> 24;
}

/* `fresh` of 64 words differ from the one before; what they repeat is zero in every other page. */
static void fill(struct fixture *f, size_t pages, unsigned fresh, uint64_t seed)
{
    for (size_t p = 0; p < pages; p++)
        for (size_t i = 0; i < WORDS; i++) {
            bool is_fresh = random_next(&seed) % 64 < fresh;
            f->pages[p][i] = is_fresh ? random_next(&seed) | 1 : p % 2 || i == 0 ? 0 : f->pages[p][i - 1];
        }
}

static void test_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;
    unsigned shorter = 0;
    for (unsigned fresh = 0; fresh <= 64; fresh += 4)
        for (size_t pages = 1; pages <= FOLD_PAGES_MAX; pages += pages < 4 ? 1 : 20) {
            fill(f, pages, fresh, fresh * 100 + pages);
            size_t len = fold((const uint8_t *)f->pages, pages, f->folded);
            if (len == 0)
                continue;
            shorter++;
            assert_true(len < pages * PAGE_BYTES);
            memset(f->back, 0x5a, sizeof f->back);
            assert_int_equal(unfold(f->folded, len, pages, f->back), 0);
            assert_memory_equal(f->back, f->pages, pages * PAGE_BYTES);
        }
    assert_true(shorter > 30);
}

/* A page that repeats nothing stays whole between others that do. */
static void test_pages_of_both_kinds(void **state)
{
    struct fixture *f = *state;
    fill(f, FOLD_PAGES_MAX, 10, 7);
    for (size_t p = 0; p < FOLD_PAGES_MAX; p += 3)
        for (size_t i = 0; i < WORDS; i++)
            f->pages[p][i] = i + 1;
    size_t len = fold((const uint8_t *)f->pages, FOLD_PAGES_MAX, f->folded);
    assert_true(len > 22 * PAGE_BYTES && len < 45 * PAGE_BYTES);
    assert_int_equal(unfold(f->folded, len, FOLD_PAGES_MAX, f->back), 0);
    assert_memory_equal(f->back, f->pages, sizeof f->pages);
}

static void test_what_repeats_nothing_stays(void **state)
{
    struct fixture *f = *state;
    fill(f, FOLD_PAGES_MAX, 64, 1);
    assert_int_equal(fold((const uint8_t *)f->pages, FOLD_PAGES_MAX, f->folded), 0);
}

static void test_what_does_not_add_up_is_refused(void **state)
{
    struct fixture *f = *state;
    const size_t pages = 5;
    fill(f, pages, 20, 3);
    size_t len = fold((const uint8_t *)f->pages, pages, f->folded);
    assert_true(len > 0);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(unfold(f->folded, cut, pages, f->back), -1);
    assert_int_equal(unfold(f->folded, len + 1, pages, f->back), -1);
    assert_int_equal(unfold(f->folded, len, pages - 1, f->back), -1);
    assert_int_equal(unfold(f->folded, len, pages + 1, f->back), -1);
    assert_int_equal(unfold(f->folded, len, FOLD_PAGES_MAX + 1, f->back), -1);
    f->folded[7] |= 0x80; /* page 63 of 5 is folded, too */
    assert_int_equal(unfold(f->folded, len, pages, f->back), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_back_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_of_both_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_repeats_nothing_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_does_not_add_up_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
