/* Page states of post-copy: each transition, and threads that race for every page. Run it under the thread sanitizer,
 * too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "migrate/bitmap.h"
#include "migrate/latency.h"
#include "migrate/pages.h"

#define PAGES   20000u
#define THREADS 4u

static void test_a_page_goes_its_way(void **state)
{
    (void)state;
    struct pages pages;
    pages_init(&pages, 100);
    assert_int_equal(pages_add_stale(&pages, 1, 0x5), 0x5);
    assert_int_equal(pages_add_stale(&pages, 1, 0x7), 0x2); /* only what is new */
    assert_false(pages_claim(&pages, 64));                  /* not before all are named */
    pages_seal(&pages);
    assert_false(pages_complete(&pages));
    assert_true(pages_is_stale(&pages, 64));
    assert_false(pages_is_stale(&pages, 0));
    assert_false(pages_claim(&pages, 0)); /* fresh: nobody may touch it */

    assert_true(pages_claim(&pages, 64));
    assert_false(pages_claim(&pages, 64)); /* a second copy of it is not used */
    pages_unclaim(&pages, 64);
    assert_true(pages_claim(&pages, 64));
    assert_int_equal(pages_missing_word(&pages, 1), 0x7); /* claimed is not here */
    assert_false(pages_finish(&pages, 64));
    assert_int_equal(pages_missing_word(&pages, 1), 0x6);
    assert_false(pages_claim(&pages, 64));
    assert_false(pages_want(&pages, 64)); /* it is here */

    assert_true(pages_want(&pages, 65));
    assert_false(pages_want(&pages, 65)); /* wanted already */
    assert_true(pages_claim(&pages, 65));
    assert_true(pages_finish(&pages, 65)); /* somebody waits */
    assert_true(pages_claim(&pages, 66));
    assert_false(pages_finish(&pages, 66));
    assert_true(pages_complete(&pages));
    pages_free(&pages);
}

static void test_nothing_stale_is_complete_once_sealed(void **state)
{
    (void)state;
    struct pages pages;
    pages_init(&pages, 64);
    assert_false(pages_complete(&pages));
    pages_seal(&pages);
    assert_true(pages_complete(&pages));
    pages_free(&pages);
}

struct racer {
    struct pages *pages;
    pthread_barrier_t *start;
    uint64_t *content; /* not atomic on purpose: only the one who claimed a page may write it */
    size_t placed, woken;
};

static void *race_to_place(void *arg)
{
    struct racer *r = arg;
    pthread_barrier_wait(r->start);
    for (size_t page = 0; page < PAGES; page++) {
        if (!pages_claim(r->pages, page))
            continue;
        r->content[page]++;
        if (page % 7 == 0 && r->content[page] == 1) { /* the first try fails */
            pages_unclaim(r->pages, page);
            page--;
            continue;
        }
        r->placed++;
        r->woken += pages_finish(r->pages, page);
    }
    return NULL;
}

/* Wants every page; a page that it has to wait for must be reported as wanted by whoever brings it. */
static void *race_to_want(void *arg)
{
    struct racer *r = arg;
    pthread_barrier_wait(r->start);
    for (size_t page = PAGES; page-- > 0;)
        r->woken += pages_want(r->pages, page);
    return NULL;
}

static void test_threads_place_each_page_once_and_miss_no_wish(void **state)
{
    (void)state;
    struct pages pages;
    pthread_t threads[THREADS + 1];
    pthread_barrier_t start;
    struct racer racers[THREADS + 1];
    uint64_t *content = mem_zalloc(PAGES * sizeof *content);
    pages_init(&pages, PAGES);
    for (size_t word = 0; word < PAGES / 64; word++)
        pages_add_stale(&pages, word, UINT64_MAX);
    pages_add_stale(&pages, PAGES / 64, (UINT64_C(1) << PAGES % 64) - 1);
    pages_seal(&pages);
    pthread_barrier_init(&start, NULL, THREADS + 1);
    for (size_t i = 0; i <= THREADS; i++) {
        racers[i] = (struct racer){.pages = &pages, .start = &start, .content = content};
        assert_int_equal(pthread_create(&threads[i], NULL, i < THREADS ? race_to_place : race_to_want, &racers[i]), 0);
    }
    size_t placed = 0, woken = 0;
    for (size_t i = 0; i <= THREADS; i++) {
        pthread_join(threads[i], NULL);
        placed += racers[i].placed;
        woken += i < THREADS ? racers[i].woken : 0;
    }
    assert_true(pages_complete(&pages));
    assert_int_equal(placed, PAGES);
    assert_true(woken >= racers[THREADS].woken); /* every wish that had to wait was seen */
    for (size_t page = 0; page < PAGES; page++)
        assert_int_equal(content[page], page % 7 == 0 ? 2 : 1);
    pthread_barrier_destroy(&start);
    pages_free(&pages);
    free(content);
}

static void test_runs_and_gaps(void **state)
{
    (void)state;
    struct bitmap map = bitmap_new(200);
    size_t first = 0, end = 0;
    assert_false(bitmap_next_run(&map, 0, &first, &end));
    bitmap_set_range(&map, 3, 5);
    bitmap_set_range(&map, 7, 140);
    bitmap_set(&map, 199);
    assert_true(bitmap_next_run(&map, 0, &first, &end) && first == 3 && end == 5);
    assert_true(bitmap_next_run(&map, end, &first, &end) && first == 7 && end == 140);
    assert_true(bitmap_next_run(&map, 63, &first, &end) && first == 63 && end == 140);
    assert_true(bitmap_next_run(&map, 140, &first, &end) && first == 199 && end == 200);
    assert_false(bitmap_next_run(&map, end, &first, &end));
    assert_int_equal(bitmap_close_gaps(&map, 1), 3);
    assert_int_equal(bitmap_count(&map), 136);
    assert_int_equal(bitmap_close_gaps(&map, 2), 2);
    assert_true(bitmap_test(&map, 5) && bitmap_test(&map, 6));
    assert_int_equal(bitmap_close_gaps(&map, 59), 1);
    assert_int_equal(bitmap_count(&map), 197);
    bitmap_free(&map);
}

static void test_latency_percentiles(void **state)
{
    (void)state;
    struct latency latency = {0};
    assert_int_equal(latency_percentile(&latency, 50), 0);
    for (uint64_t us = 1; us <= 10000; us++)
        latency_add(&latency, us);
    assert_in_range(latency_percentile(&latency, 50), 5000, 5000 * 113 / 100);
    assert_in_range(latency_percentile(&latency, 99), 9900, 10000);
    assert_int_equal(latency_percentile(&latency, 100), 10000);
    assert_int_equal(latency.max_us, 10000);
    for (uint32_t bucket = 0; bucket < LATENCY_BUCKETS; bucket++)
        assert_int_equal(latency_bucket(latency_floor(bucket)), bucket);
    latency_add(&latency, UINT64_MAX / 2); /* does not run over */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_page_goes_its_way),
        cmocka_unit_test(test_nothing_stale_is_complete_once_sealed),
        cmocka_unit_test(test_threads_place_each_page_once_and_miss_no_wish),
        cmocka_unit_test(test_runs_and_gaps),
        cmocka_unit_test(test_latency_percentiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
