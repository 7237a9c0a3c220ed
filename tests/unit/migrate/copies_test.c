#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "migrate/copies.h"
#include "migrate/ram.h"

#define PAGES  1000u
#define PLACES 50u

static int setup(void **state)
{
    *state = copies_new(PAGES, PLACES * PAGE_BYTES);
    return 0;
}

static int teardown(void **state)
{
    copies_free(*state);
    return 0;
}

/* Admits `page` and marks its copy. */
static bool admit(struct copies *c, uint32_t page)
{
    uint8_t *copy = copies_admit(c, page);
    if (copy)
        memset(copy, (int)(page % 251), PAGE_BYTES);
    return copy != NULL;
}

static bool has(struct copies *c, uint32_t page)
{
    const uint8_t *copy = copies_find(c, page);
    if (copy)
        for (size_t i = 0; i < PAGE_BYTES; i++)
            assert_int_equal(copy[i], page % 251);
    return copy != NULL;
}

static void test_bound(void **state)
{
    struct copies *c = *state;
    for (uint32_t page = 0; page < PAGES; page++) {
        assert_false(has(c, page));
        assert_int_equal(admit(c, page), page < PLACES);
    }
    for (uint32_t page = 0; page < PAGES; page++)
        assert_int_equal(has(c, page), page < PLACES);
}

static void test_no_memory_at_all(void **unused)
{
    (void)unused;
    struct copies *none = copies_new(PAGES, PAGE_BYTES - 1);
    assert_null(copies_admit(none, 3));
    assert_null(copies_find(none, 3));
    copies_free(none);
}

static void test_pages_that_are_written_keep_their_places(void **state)
{
    struct copies *c = *state;
    for (uint32_t page = 0; page < PLACES; page++)
        assert_true(admit(c, page));
    for (unsigned pass = 0; pass < 10; pass++) {
        copies_next_pass(c);
        for (uint32_t page = 0; page < PLACES; page++)
            assert_true(has(c, page));
        assert_false(admit(c, 500 + pass));
    }
}

static void test_idle_pages_give_theirs_up(void **state)
{
    struct copies *c = *state;
    for (uint32_t page = 0; page < PLACES; page++)
        assert_true(admit(c, page));
    for (unsigned pass = 0; pass < 3; pass++) {
        copies_next_pass(c);
        for (uint32_t page = 0; page < PLACES; page += 2)
            assert_true(has(c, page));
    }
    for (uint32_t page = 0; page < PLACES / 2; page++)
        assert_true(admit(c, 500 + page));
    for (uint32_t page = 0; page < PLACES; page++)
        assert_int_equal(has(c, page), page % 2 == 0);
    for (uint32_t page = 0; page < PLACES / 2; page++)
        assert_true(has(c, 500 + page));
}

static void test_useless_and_dropped_places(void **state)
{
    struct copies *c = *state;
    for (uint32_t page = 0; page < PLACES; page++)
        assert_true(admit(c, page));
    copies_useless(c, 7);
    assert_true(has(c, 7)); /* nobody needed its place so far; being found counts as being of use */
    copies_useless(c, 7);
    copies_drop(c, 8);
    copies_drop(c, 900);
    copies_useless(c, 900);
    assert_false(has(c, 8));
    unsigned admitted = 0;
    for (uint32_t page = 500; page < 520; page++)
        admitted += admit(c, page);
    assert_int_equal(admitted, 2);
    assert_false(has(c, 7));
}

static void test_tried_places_go_first(void **state)
{
    struct copies *c = *state;
    uint32_t tried = 0;
    for (uint32_t page = 0; page < PAGES; page++) {
        uint8_t *copy = copies_try(c, page);
        if (!copy)
            continue;
        memset(copy, (int)(page % 251), PAGE_BYTES);
        copies_useless(c, page);
        tried++;
    }
    assert_int_equal(tried, PLACES);
    copies_next_pass(c);
    for (uint32_t page = 500; page < 500 + PLACES; page++)
        assert_true(admit(c, page));
    assert_false(admit(c, 600));
    for (uint32_t page = 0; page < PLACES; page++)
        assert_false(has(c, page));
}

/* Threads that share the copies, each with pages of its own, never get each other's places. */
struct writer {
    struct copies *copies;
    uint32_t first;
};

static void *write_pages(void *arg)
{
    struct writer *w = arg;
    for (unsigned round = 0; round < 200; round++)
        for (uint32_t page = w->first; page < w->first + PLACES; page++) {
            if (!has(w->copies, page))
                admit(w->copies, page);
            if ((page + round) % 3 == 0)
                copies_useless(w->copies, page);
            if ((page + round) % 7 == 0)
                copies_drop(w->copies, page);
        }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[4];
    struct writer writers[4];
    for (uint32_t i = 0; i < 4; i++) {
        writers[i] = (struct writer){*state, i * 100};
        assert_int_equal(pthread_create(&threads[i], NULL, write_pages, &writers[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bound, setup, teardown),
        cmocka_unit_test(test_no_memory_at_all),
        cmocka_unit_test_setup_teardown(test_pages_that_are_written_keep_their_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_pages_give_theirs_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_useless_and_dropped_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tried_places_go_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
