#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "migrate/digest.h"
#include "migrate/ram.h"

#define PAGES 1000u /* the last leaf is not full */

static struct digest of(const struct digests *digests, unsigned seed)
{
    uint8_t page[PAGE_BYTES];
    for (size_t i = 0; i < PAGE_BYTES; i++)
        page[i] = (uint8_t)((seed = seed * 1103515245u + 12345u) >> 16);
    return digests_make(digests, page);
}

static void test_digests_tell_pages_apart(void **unused)
{
    (void)unused;
    struct digests a, b;
    uint8_t page[PAGE_BYTES] = {1};
    digests_init(&a, PAGES, 1, true);
    digests_init(&b, PAGES, 2, true);
    struct digest whole = digests_make(&a, page);
    assert_true(digest_equal(whole, digests_make(&a, page)));
    assert_false(digest_equal(whole, digests_make(&b, page))); /* the seed counts */
    for (size_t bit = 0; bit < PAGE_BYTES * 8; bit += 997) {
        page[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_false(digest_equal(whole, digests_make(&a, page)));
        page[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    digests_free(&a);
    digests_free(&b);
}

static void test_receipt_depends_on_contents_alone(void **unused)
{
    (void)unused;
    struct digests a, b;
    char at[DIGEST_TEXT], bt[DIGEST_TEXT], empty[DIGEST_TEXT];
    digests_init(&a, PAGES, 5, true);
    digests_init(&b, PAGES, 5, true);
    digests_root(&a, empty);
    for (unsigned page = 0; page < PAGES; page++)
        digests_set(&a, page, of(&a, page));
    for (unsigned page = PAGES; page-- > 0;) { /* another order, and another past */
        digests_set(&b, page, of(&b, page + 77));
        digests_set(&b, page, (struct digest){0});
        digests_set(&b, page, of(&b, page));
    }
    digests_root(&a, at);
    digests_root(&b, bt);
    assert_string_equal(at, bt);
    assert_string_not_equal(at, empty);
    for (unsigned page = 0; page < PAGES; page++)
        digests_set(&a, page, (struct digest){0});
    digests_root(&a, at);
    assert_string_equal(at, empty);
    digests_free(&a);
    digests_free(&b);
}

static void test_receipt_shows_every_difference(void **unused)
{
    (void)unused;
    struct digests d;
    char before[DIGEST_TEXT], after[DIGEST_TEXT];
    digests_init(&d, PAGES, 5, true);
    for (unsigned page = 0; page < PAGES; page += 3)
        digests_set(&d, page, of(&d, page));
    digests_root(&d, before);
    for (unsigned page = 0; page < PAGES; page += 7) { /* one page lost, or one that should not be there */
        struct digest right = d.page[page];
        digests_set(&d, page, digest_is_zero(right) ? of(&d, 1) : (struct digest){0});
        digests_root(&d, after);
        assert_string_not_equal(before, after);
        digests_set(&d, page, right);
    }
    /* two pages exchanged, within a leaf and across leaves */
    for (unsigned other = 3; other <= 999; other += 996) {
        struct digest first = d.page[0], second = d.page[other];
        digests_set(&d, 0, second);
        digests_set(&d, other, first);
        digests_root(&d, after);
        assert_string_not_equal(before, after);
        digests_set(&d, 0, first);
        digests_set(&d, other, second);
    }
    digests_root(&d, after);
    assert_string_equal(before, after);
    digests_free(&d);
}

struct setter {
    struct digests *digests;
    unsigned first;
};

static void *set_pages(void *arg)
{
    struct setter *s = arg;
    for (unsigned round = 0; round < 50; round++)
        for (unsigned page = s->first; page < PAGES; page += 4)
            digests_set(s->digests, page, of(s->digests, round + page));
    return NULL;
}

static void test_threads_share_leaves(void **unused)
{
    (void)unused;
    struct digests together, alone;
    char expected[DIGEST_TEXT], got[DIGEST_TEXT];
    pthread_t threads[4];
    struct setter setters[4];
    digests_init(&together, PAGES, 5, true);
    digests_init(&alone, PAGES, 5, true);
    for (unsigned i = 0; i < 4; i++) {
        setters[i] = (struct setter){&together, i};
        assert_int_equal(pthread_create(&threads[i], NULL, set_pages, &setters[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (unsigned page = 0; page < PAGES; page++)
        digests_set(&alone, page, of(&alone, 49 + page));
    digests_root(&together, got);
    digests_root(&alone, expected);
    assert_string_equal(got, expected);
    digests_free(&together);
    digests_free(&alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests_tell_pages_apart),
        cmocka_unit_test(test_receipt_depends_on_contents_alone),
        cmocka_unit_test(test_receipt_shows_every_difference),
        cmocka_unit_test(test_threads_share_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
