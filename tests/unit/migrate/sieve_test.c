/* What the sieve leaves out must be there already: a model of the destination takes its batches, pass by pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "migrate/delta.h"
#include "migrate/sieve.h"

#define PAGES 300u

struct fixture {
    uint8_t ram[PAGES][PAGE_BYTES], held[PAGES][PAGE_BYTES];
    uint8_t kept[PAGES][PAGE_BYTES]; /* of the guest's last visit */
    struct offer *offer;
    struct image_cipher *cipher;
    struct digests digests;
    struct sieve sieve;
    struct batch batch;
    uint8_t message[BATCH_BYTES_MAX];
    unsigned seed;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    digests_init(&f->digests, PAGES, 77, true);
    f->sieve.digests = &f->digests;
    f->sieve.silent = true;
    f->sieve.thorough = true;
    f->sieve.copies = copies_new(PAGES, 20 * PAGE_BYTES);
    f->seed = 1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    copies_free(f->sieve.copies);
    digests_free(&f->digests);
    image_cipher_free(f->cipher);
    offer_free(f->offer);
    free(f);
    return 0;
}

static unsigned random_next(struct fixture *f)
{
    f->seed = f->seed * 1103515245u + 12345u;
    return f->seed >> 16;
}

static void random_page(struct fixture *f, uint8_t *page)
{
    for (size_t i = 0; i < PAGE_BYTES; i++)
        page[i] = (uint8_t)random_next(f);
}

static void apply_run(struct fixture *f, const struct batch_run *run)
{
    struct err err;
    uint32_t at = run->at;
    for (uint32_t page = run->first; page < run->first + run->pages; page++) {
        if (run->kind == BATCH_ZERO) {
            memset(f->held[page], 0, PAGE_BYTES);
        } else if (run->kind == BATCH_REUSED) {
            memcpy(f->held[page], f->kept[page], PAGE_BYTES);
        } else if (run->kind == BATCH_FULL) {
            memcpy(f->held[page], f->batch.pages + at, PAGE_BYTES);
            at += PAGE_BYTES;
        } else {
            size_t len;
            const uint8_t *delta = batch_delta(&f->batch, &at, &len);
            assert_int_equal(delta_apply(delta, len, &err, f->held[page]), 0);
        }
    }
}

static void apply(struct fixture *f, size_t len)
{
    struct err err;
    assert_int_equal(batch_decode(f->message, len, PAGES, &err, &f->batch), 0);
    for (uint32_t i = 0; i < f->batch.runs; i++)
        apply_run(f, &f->batch.run[i]);
}

/* One pass over all pages; what it counted is in sieve.counts. Returns its bytes. */
static size_t pass(struct fixture *f)
{
    size_t bytes = 0;
    uint32_t page = 0;
    f->sieve.counts = (struct classes){0};
    if (f->sieve.copies)
        copies_next_pass(f->sieve.copies);
    while (page < PAGES) {
        sieve_begin(&f->sieve);
        while (page < PAGES && sieve_has_room(&f->sieve, 1)) {
            sieve_add(&f->sieve, page, f->ram[page]);
            page++;
        }
        size_t len = sieve_finish(&f->sieve, f->message);
        if (len)
            apply(f, len);
        bytes += len;
    }
    assert_memory_equal(f->held, f->ram, sizeof f->ram);
    return bytes;
}

static uint64_t pages_of(const struct fixture *f, enum page_class class)
{
    return f->sieve.counts.pages[class];
}

static void test_zeros_are_not_even_named_at_first(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(pass(f), 0);
    assert_int_equal(pages_of(f, CLASS_ZERO), PAGES);
}

static void test_silent_writes_are_not_sent(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < PAGES; i += 2)
        random_page(f, f->ram[i]);
    assert_true(pass(f) > PAGES / 2 * PAGE_BYTES);
    assert_int_equal(pages_of(f, CLASS_RAW), PAGES / 2);
    assert_int_equal(pass(f), 0);
    assert_int_equal(pages_of(f, CLASS_SILENT), PAGES / 2);
    f->ram[10][4095] ^= 1; /* the least there can be */
    pass(f);
    assert_int_equal(pages_of(f, CLASS_SILENT), PAGES / 2 - 1);
    assert_int_equal(classes_sent(&f->sieve.counts), 1);
}

static void test_becoming_zero_and_back(void **state)
{
    struct fixture *f = *state;
    uint8_t page[PAGE_BYTES];
    random_page(f, page);
    memcpy(f->ram[7], page, PAGE_BYTES);
    pass(f);
    memset(f->ram[7], 0, PAGE_BYTES);
    assert_true(pass(f) > 0);
    assert_int_equal(f->sieve.counts.bytes[CLASS_ZERO], BATCH_RUN_BYTES);
    memcpy(f->ram[7], page, PAGE_BYTES); /* as it was before it was zero */
    assert_true(pass(f) > 0);
    assert_int_equal(pages_of(f, CLASS_SILENT), 0);
}

/* In post-copy the destination has freed pages behind the digests' back. */
static void test_without_digests_all_is_sent(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < PAGES; i += 3)
        random_page(f, f->ram[i]);
    pass(f);
    f->sieve.digests = NULL;
    copies_free(f->sieve.copies);
    f->sieve.copies = NULL;
    memset(f->held, 0xaa, sizeof f->held);
    pass(f);
    assert_int_equal(pages_of(f, CLASS_RAW), PAGES / 3);
    assert_int_equal(pages_of(f, CLASS_ZERO), PAGES - PAGES / 3);
    assert_int_equal(pages_of(f, CLASS_SILENT), 0);
}

static void test_what_is_written_again_is_sent_as_delta(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < 10; i++)
        random_page(f, f->ram[i]);
    pass(f);
    for (unsigned round = 0; round < 5; round++) {
        for (size_t i = 0; i < 10; i++)
            f->ram[i][random_next(f) % PAGE_BYTES] ^= 0x10;
        size_t bytes = pass(f);
        assert_int_equal(pages_of(f, CLASS_DELTA), 10);
        assert_true(bytes < 100);
    }
    random_page(f, f->ram[3]); /* all of it changed */
    f->ram[4][0] ^= 1;
    pass(f);
    assert_int_equal(pages_of(f, CLASS_DELTA), 1);
    f->ram[3][0] ^= 1; /* its copy is what was sent, all the same */
    pass(f);
    assert_int_equal(pages_of(f, CLASS_DELTA), 1);
}

/* More pages than places: those that are written again take the places of those that are not. */
static void test_what_is_written_again_takes_the_places(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < 100; i++)
        random_page(f, f->ram[i]);
    pass(f);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 80; i < 90; i++)
            f->ram[i][round] ^= 1;
        pass(f);
        assert_int_equal(pages_of(f, CLASS_DELTA), round == 0 ? 0 : 10);
    }
}

static void test_zero_in_between_forgets_the_copy(void **state)
{
    struct fixture *f = *state;
    uint8_t page[PAGE_BYTES];
    random_page(f, page);
    for (unsigned round = 0; round < 3; round++) {
        page[round] ^= 1;
        memcpy(f->ram[5], page, PAGE_BYTES);
        pass(f);
    }
    assert_int_equal(pages_of(f, CLASS_DELTA), 1);
    memset(f->ram[5], 0, PAGE_BYTES);
    pass(f);
    memcpy(f->ram[5], page, PAGE_BYTES);
    pass(f);
    assert_int_equal(pages_of(f, CLASS_DELTA), 0);
}

static void test_silent_writes_are_sent_where_that_is_wanted(void **state)
{
    struct fixture *f = *state;
    f->sieve.silent = false;
    random_page(f, f->ram[0]);
    pass(f);
    assert_int_equal(f->sieve.counts.bytes[CLASS_ZERO] > 0, 1);
    pass(f);
    assert_int_equal(pages_of(f, CLASS_SILENT), 0);
    assert_int_equal(classes_sent(&f->sieve.counts), 1);
}

/* Where CPU time is dear no digest is made and no copy kept; what is known already is used, and stays right. */
static void test_quickly_looks_for_nothing(void **state)
{
    struct fixture *f = *state;
    struct digests without;
    digests_init(&without, PAGES, 77, false);
    f->sieve.digests = &without;
    f->sieve.thorough = false;
    for (size_t i = 0; i < 10; i++)
        random_page(f, f->ram[i]);
    pass(f);
    pass(f);
    assert_int_equal(classes_sent(&f->sieve.counts), 10); /* again, although it is there */
    assert_int_equal(pages_of(f, CLASS_ZERO), PAGES - 10);
    assert_int_equal(pages_of(f, CLASS_DELTA), 0);
    f->sieve.thorough = true;
    pass(f);
    assert_int_equal(classes_sent(&f->sieve.counts), 10); /* what is there is not known */
    pass(f);
    assert_int_equal(pages_of(f, CLASS_SILENT), 10);
    f->sieve.thorough = false;
    f->ram[3][7] ^= 1;
    pass(f);
    assert_int_equal(pages_of(f, CLASS_DELTA), 10); /* the copies are there, and nobody looked whether it changed */
    f->sieve.digests = &f->digests;
    digests_free(&without);
}

/* What is in `kept` is offered from now on. */
static void offer_kept(struct fixture *f)
{
    static const uint8_t key[IMAGE_KEY_BYTES] = {3};
    uint8_t tag[IMAGE_TAG_BYTES];
    struct err err;
    f->offer = offer_new(PAGES, key);
    f->cipher = offer_cipher(f->offer);
    for (uint32_t page = 0; page < PAGES; page++) {
        image_tag(f->cipher, page, f->kept[page], tag);
        if (!page_is_zero(f->kept[page]))
            assert_int_equal(offer_add(f->offer, page, tag, sizeof tag, &err), 0);
    }
    f->sieve.offer = f->offer;
    f->sieve.cipher = f->cipher;
}

static void test_what_is_there_from_the_last_visit_is_only_named(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < 200; i++)
        random_page(f, f->ram[i]);
    memcpy(f->kept, f->ram, sizeof f->kept);
    offer_kept(f);
    for (size_t i = 0; i < 200; i += 10)
        f->ram[i][i] ^= 1; /* written since */
    memset(f->ram[5], 0, PAGE_BYTES);
    pass(f);
    assert_int_equal(pages_of(f, CLASS_REUSED), 179);
    assert_int_equal(classes_sent(&f->sieve.counts), 20);
    assert_true(f->sieve.counts.bytes[CLASS_REUSED] <= 21 * BATCH_RUN_BYTES);
    f->ram[7][0] ^= 1; /* what was only named is a base for deltas like any other */
    pass(f);
    assert_int_equal(pages_of(f, CLASS_DELTA), 1);
    assert_int_equal(pages_of(f, CLASS_REUSED), 0);
}

static void test_random_histories(void **state)
{
    struct fixture *f = *state;
    for (unsigned round = 0; round < 120; round++) {
        f->sieve.thorough = round < 60 || random_next(f) % 2;
        for (unsigned k = random_next(f) % 200; k > 0; k--) {
            uint8_t *page = f->ram[random_next(f) % (k % 2 ? PAGES : 30)]; /* some are written often */
            if (random_next(f) % 4 == 0)
                memset(page, random_next(f) % 2 ? 0 : (int)(random_next(f) % 3), PAGE_BYTES);
            else if (random_next(f) % 3 == 0)
                random_page(f, page);
            else
                page[random_next(f) % PAGE_BYTES] ^= (uint8_t)(random_next(f) % 3);
        }
        size_t bytes = pass(f), classed = 0;
        for (size_t i = 0; i < CLASSES; i++)
            classed += f->sieve.counts.bytes[i];
        assert_true(classed <= bytes && bytes - classed <= 30 * BATCH_HEADER);
    }
}

static void test_random_histories_with_an_offer(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < PAGES; i += 2)
        random_page(f, f->kept[i]);
    memcpy(f->ram, f->kept, sizeof f->ram);
    offer_kept(f);
    test_random_histories(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_zeros_are_not_even_named_at_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_writes_are_not_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_becoming_zero_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_digests_all_is_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_written_again_is_sent_as_delta, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_written_again_takes_the_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zero_in_between_forgets_the_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_writes_are_sent_where_that_is_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quickly_looks_for_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_there_from_the_last_visit_is_only_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_histories_with_an_offer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_histories, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
