/* Freed pages of a RAM file that another mapping, in QEMU's place, writes, frees and reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "migrate/holes.h"
#include "tests/unit/migrate/memory_file.h"

#define PAGES 20000u /* more than one read of the page map */

struct fixture {
    struct ram ram;
    volatile uint8_t *guest;
    struct holes *holes;
    struct bitmap pages, freed;
    struct err err;
};

static struct fixture fixture;

static int setup(void **state)
{
    struct fixture *f = &fixture;
    *f = (struct fixture){.ram = memory_file(PAGES), .pages = bitmap_new(PAGES), .freed = bitmap_new(PAGES)};
    f->guest = mmap(NULL, f->ram.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram.fd, 0);
    for (size_t page = 0; page < PAGES / 2; page++)
        f->guest[page * PAGE_BYTES] = 1;
    bitmap_set_range(&f->pages, 0, PAGES);
    *state = f;
    return holes_open(&f->ram, &f->err, &f->holes);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    holes_close(f->holes);
    munmap((void *)f->guest, f->ram.bytes);
    ram_close(&f->ram);
    bitmap_free(&f->pages);
    bitmap_free(&f->freed);
    return 0;
}

static void watch(struct fixture *f)
{
    assert_int_equal(holes_watch(f->holes, &f->pages, &f->err), 0);
}

static size_t scan(struct fixture *f)
{
    bitmap_clear(&f->freed);
    assert_int_equal(holes_scan(f->holes, &f->err, &f->freed), 0);
    return bitmap_count(&f->freed);
}

static void punch(struct fixture *f, size_t page, size_t count)
{
    assert_int_equal(ram_punch(&f->ram, page, count, &f->err), 0);
}

static void test_watching_allocates_nothing(void **state)
{
    struct fixture *f = *state;
    watch(f);
    assert_true(ram_is_hole(&f->ram, PAGES / 2, PAGES / 2));
    assert_int_equal(scan(f), 0);
}

static void test_finds_what_was_freed(void **state)
{
    struct fixture *f = *state;
    watch(f);
    punch(f, 7, 2);
    punch(f, 9000, 1);
    punch(f, PAGES - 5, 5); /* holes already */
    assert_int_equal(scan(f), 3);
    assert_true(bitmap_test(&f->freed, 7) && bitmap_test(&f->freed, 8) && bitmap_test(&f->freed, 9000));
    assert_int_equal(scan(f), 0);
}

/* Looking for holes would not find it: it is allocated again, and zero. */
static void test_finds_what_was_freed_and_touched_again(void **state)
{
    struct fixture *f = *state;
    watch(f);
    punch(f, 7, 1);
    assert_int_equal(f->guest[7 * PAGE_BYTES], 0);
    assert_false(ram_is_hole(&f->ram, 7, 1));
    assert_int_equal(scan(f), 1);
    watch(f); /* as before it is sent again */
    assert_int_equal(scan(f), 0);
    punch(f, 7, 1);
    assert_int_equal(scan(f), 1);
}

static void test_writing_is_not_freeing(void **state)
{
    struct fixture *f = *state;
    watch(f);
    punch(f, 7, 1); /* so that it looks at all */
    f->guest[9 * PAGE_BYTES] = 2;
    f->guest[(PAGES - 1) * PAGE_BYTES] = 2;
    assert_int_equal(scan(f), 1);
}

static void test_what_is_not_watched_does_not_count(void **state)
{
    struct fixture *f = *state;
    bitmap_clear(&f->pages);
    bitmap_set_range(&f->pages, 100, 200);
    watch(f);
    punch(f, 50, 100);
    assert_int_equal(scan(f), 50);
}

/* Watching its neighbour must not have it look as if it had stayed. */
static void test_a_new_neighbour_hides_nothing(void **state)
{
    struct fixture *f = *state;
    punch(f, 12, 1);
    watch(f);
    assert_int_equal(scan(f), 0);
    punch(f, 7, 1);
    assert_int_equal(f->guest[7 * PAGE_BYTES], 0); /* there again, zero */
    f->guest[12 * PAGE_BYTES] = 1;
    watch(f);
    assert_int_equal(scan(f), 1);
    assert_true(bitmap_test(&f->freed, 7));
}

/* The content of memory is the guest's alone. */
static void test_watching_changes_nothing(void **state)
{
    struct fixture *f = *state;
    char before[RAM_HASH_TEXT], after[RAM_HASH_TEXT];
    assert_int_equal(ram_hash(&f->ram, &f->err, before), 0);
    watch(f);
    assert_int_equal(ram_hash(&f->ram, &f->err, after), 0);
    assert_string_equal(before, after);
}

#define KEPT 1000u /* the last of the allocated pages, which the balloon leaves alone */

struct balloon {
    struct fixture *fixture;
    atomic_bool started, stop;
};

static void *inflate(void *arg)
{
    struct balloon *b = arg;
    struct err err;
    atomic_store(&b->started, true);
    for (size_t page = 0; page < PAGES / 2 - KEPT && !atomic_load(&b->stop); page++)
        (void)!ram_punch(&b->fixture->ram, page, 1, &err);
    return NULL;
}

/* A balloon that inflates meanwhile frees pages between one look and the next, also the one just looked at. */
static void test_watches_all_while_pages_are_freed(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 40; i++) {
        struct balloon balloon = {.fixture = f};
        pthread_t thread;
        for (size_t page = 0; page < PAGES / 2; page++)
            f->guest[page * PAGE_BYTES] = 1;
        assert_int_equal(pthread_create(&thread, NULL, inflate, &balloon), 0);
        while (!atomic_load(&balloon.started))
            ;
        watch(f);
        atomic_store(&balloon.stop, true);
        pthread_join(thread, NULL);
        (void)scan(f); /* what the balloon has taken */
        punch(f, PAGES / 2 - KEPT, KEPT);
        assert_int_equal(scan(f), KEPT);
        /* What is watched is there, so what is freed now is told. */
        size_t watched = bitmap_count(holes_watched(f->holes));
        punch(f, 0, PAGES);
        assert_int_equal(scan(f), watched);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_watching_allocates_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finds_what_was_freed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finds_what_was_freed_and_touched_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writing_is_not_freeing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_watched_does_not_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_new_neighbour_hides_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watching_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watches_all_while_pages_are_freed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
