/* The filler with this very process in QEMU's place: it opens a userfaultfd as the shim does, maps a RAM file, and
 * threads of it read and write that mapping as a guest would, while pages come in any order and more than once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ensure.h"
#include "base/loop.h"
#include "migrate/filler.h"
#include "migrate/tracker.h"
#include "tests/unit/migrate/memory_file.h"

#define PAGES   1024u /* the upper half is stale */
#define WORDS   (PAGES / 64)
#define WAIT_MS 60000u

struct fixture {
    uv_loop_t loop;
    struct loop_timer *bound;
    struct ram ram;
    volatile uint8_t *guest;
    struct filler *filler;
    struct err err;
    int uffd;
    unsigned wishes, completions;
    bool late;
};

static struct fixture fixture;

static void on_wanted(void *user)
{
    struct fixture *f = user;
    f->wishes++;
    uv_stop(&f->loop);
}

static void on_complete(void *user)
{
    struct fixture *f = user;
    f->completions++;
    uv_stop(&f->loop);
}

static void on_failed(void *user, const struct err *err)
{
    struct fixture *f = user;
    f->err = *err;
    uv_stop(&f->loop);
}

static void on_late(void *user)
{
    struct fixture *f = user;
    f->late = true;
    uv_stop(&f->loop);
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    *f = (struct fixture){.ram = memory_file(PAGES)};
    uv_loop_init(&f->loop);
    f->bound = loop_timer_new(&f->loop, on_late, f);
    f->guest = mmap(NULL, f->ram.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram.fd, 0);
    f->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    *state = f;
    return f->guest == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->filler)
        filler_release(f->filler);
    filler_close(f->filler);
    loop_timer_free(f->bound);
    while (uv_run(&f->loop, UV_RUN_DEFAULT) != 0)
        continue;
    uv_loop_close(&f->loop);
    munmap((void *)f->guest, f->ram.bytes);
    ram_close(&f->ram);
    if (f->uffd >= 0)
        close(f->uffd);
    return 0;
}

/* A page's content on the source. */
static uint8_t content(size_t page)
{
    return (uint8_t)(page % 251 + 1);
}

static void fill(struct fixture *f, size_t page, uint8_t byte)
{
    uint8_t data[PAGE_BYTES];
    memset(data, byte, sizeof data);
    assert_int_equal(filler_fill(f->filler, page, 1, data, &f->err), 0);
}

/* Every page holds old content; then the upper half becomes stale. Skips by name where the machine has no
 * userfaultfd for faults of the kernel. */
static void open_or_skip(struct fixture *f)
{
    uint8_t old[PAGE_BYTES];
    uint64_t words[WORDS / 2];
    memset(old, 0xee, sizeof old);
    memset(words, 0xff, sizeof words);
    for (size_t page = 0; page < PAGES; page++)
        assert_int_equal(ram_write(&f->ram, page, 1, old, &f->err), 0);
    const struct filler_options options = {.pid = getpid(),
        .ram = &f->ram,
        .on_wanted = on_wanted,
        .on_complete = on_complete,
        .on_failed = on_failed,
        .user = f};
    if (filler_open(&f->loop, &options, &f->err, &f->filler) < 0) {
        print_message("skipped: %s\n", f->err.message);
        skip();
    }
    assert_int_equal(f->guest[0], 0xee); /* the page that was used to try is as it was */
    assert_int_equal(filler_stale(f->filler, WORDS / 2, words, WORDS / 2, &f->err), 0);
    assert_int_equal(f->guest[5 * PAGE_BYTES], 0xee); /* what is not stale is there */
}

static void run_until_woken(struct fixture *f)
{
    loop_timer_start(f->bound, WAIT_MS, 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_timer_stop(f->bound);
    assert_false(f->late);
    assert_int_equal(f->err.code, ERR_NONE);
}

static void *read_one(void *page)
{
    return (void *)(uintptr_t) * (volatile uint8_t *)page;
}

static void test_a_stale_page_waits_for_its_content(void **state)
{
    struct fixture *f = *state;
    pthread_t reader;
    void *seen;
    uint32_t wanted[FILLER_WANTED_MAX];
    open_or_skip(f);
    filler_seal(f->filler);
    pthread_create(&reader, NULL, read_one, (void *)(f->guest + 600 * PAGE_BYTES));
    while (f->wishes == 0)
        run_until_woken(f);
    assert_int_equal(filler_take_wanted(f->filler, false, wanted), 1);
    assert_int_equal(wanted[0], 600);
    assert_int_equal(filler_take_wanted(f->filler, false, wanted), 0);
    assert_int_equal(filler_take_wanted(f->filler, true, wanted), 1); /* asked for again after a lost connection */
    fill(f, 600, 42);
    pthread_join(reader, &seen);
    assert_int_equal((uintptr_t)seen, 42);
    assert_int_equal(filler_take_wanted(f->filler, true, wanted), 0);
    struct filler_stats stats;
    filler_stats(f->filler, &stats);
    assert_int_equal(stats.waits.count, 1);
    assert_int_equal(stats.stale, PAGES / 2);
}

static void test_a_late_copy_overwrites_nothing(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    filler_seal(f->filler);
    fill(f, 700, 7);
    f->guest[700 * PAGE_BYTES + 9] = 99; /* the guest goes on */
    fill(f, 700, 7);
    assert_int_equal(f->guest[700 * PAGE_BYTES + 9], 99);
    fill(f, 3, 7); /* a page that never was stale */
    assert_int_equal(f->guest[3 * PAGE_BYTES], 0xee);
    struct filler_stats stats;
    filler_stats(f->filler, &stats);
    assert_int_equal(stats.late_copies, 2);
}

static void test_zero_pages_and_holes(void **state)
{
    struct fixture *f = *state;
    uint64_t missing[WORDS];
    open_or_skip(f);
    filler_seal(f->filler);
    assert_int_equal(filler_fill(f->filler, 512, 64, NULL, &f->err), 0);
    for (size_t page = 512; page < 576; page++)
        assert_int_equal(f->guest[page * PAGE_BYTES], 0);
    filler_missing(f->filler, 0, WORDS, missing);
    assert_int_equal(missing[8], 0);
    assert_int_equal(missing[9], UINT64_MAX);
    assert_int_equal(missing[0], 0);
    /* A hole that is not stale reads as zeros at once, though nobody sends it. */
    assert_int_equal(ram_punch(&f->ram, 20, 1, &f->err), 0);
    assert_int_equal(f->guest[20 * PAGE_BYTES], 0);
}

struct writer {
    int pipe;
    const volatile uint8_t *page;
    ssize_t rc;
};

static void *write_from_guest(void *arg)
{
    struct writer *w = arg;
    w->rc = write(w->pipe, (const void *)w->page, 10);
    return NULL;
}

/* As QEMU's disk I/O: the kernel itself touches a page that is missing. */
static void test_system_calls_wait_too(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    int pipes[2];
    uint8_t got[10];
    open_or_skip(f);
    filler_seal(f->filler);
    assert_int_equal(pipe(pipes), 0);
    struct writer writer = {.pipe = pipes[1], .page = f->guest + 801 * PAGE_BYTES};
    pthread_create(&thread, NULL, write_from_guest, &writer);
    while (f->wishes == 0)
        run_until_woken(f);
    fill(f, 801, 9);
    pthread_join(thread, NULL);
    assert_int_equal(writer.rc, 10);
    assert_int_equal(read(pipes[0], got, sizeof got), 10);
    assert_int_equal(got[0], 9);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_bad_names_are_refused(void **state)
{
    struct fixture *f = *state;
    uint64_t word = 1;
    open_or_skip(f);
    assert_int_equal(filler_stale(f->filler, WORDS, &word, 1, &f->err), -1);
    assert_int_equal(filler_stale(f->filler, SIZE_MAX, &word, 1, &f->err), -1);
    filler_seal(f->filler);
    assert_int_equal(filler_stale(f->filler, 0, &word, 1, &f->err), -1); /* too late */
    f->err.code = ERR_NONE;
}

/* While pages are missing nobody else may watch this memory: that would let the guest read zeros. */
static void test_unfinished_memory_is_not_taken(void **state)
{
    struct fixture *f = *state;
    struct tracker *tracker;
    struct err err;
    open_or_skip(f);
    filler_seal(f->filler);
    assert_int_equal(tracker_open(TRACKER_AUTO, getpid(), &f->ram, &err, &tracker), -1);
    assert_int_equal(err.code, ERR_WRONG_STATE);
    assert_int_equal(filler_fill(f->filler, PAGES / 2, PAGES / 2, NULL, &f->err), 0);
    while (f->completions == 0)
        run_until_woken(f);
    filler_release(f->filler);
    assert_int_equal(
        tracker_open(TRACKER_AUTO, getpid(), &f->ram, &err, &tracker), 0); /* it came by post-copy and may leave */
    tracker_close(tracker);
}

/* Guests increment a counter in every stale page, again and again, while two threads bring all pages twice. */
struct runner {
    struct fixture *fixture;
    size_t first;
};

static void *bring_all(void *arg)
{
    struct runner *r = arg;
    uint8_t data[4 * PAGE_BYTES];
    struct err err;
    for (size_t i = 0; i < PAGES / 2; i += 4) {
        size_t page = PAGES / 2 + (r->first ? PAGES / 2 - 4 - i : i);
        for (size_t k = 0; k < 4; k++)
            memset(data + k * PAGE_BYTES, content(page + k), PAGE_BYTES);
        ENSURE(filler_fill(r->fixture->filler, page, 4, data, &err) == 0);
    }
    return NULL;
}

static void *run_guest(void *arg)
{
    struct runner *r = arg;
    for (int round = 0; round < 20; round++)
        for (size_t page = PAGES / 2; page < PAGES; page++)
            r->fixture->guest[page * PAGE_BYTES + r->first] += 1;
    return NULL;
}

static void test_guests_race_with_pages(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[5];
    struct runner runners[5];
    open_or_skip(f);
    filler_seal(f->filler);
    for (size_t i = 0; i < 5; i++) {
        runners[i] = (struct runner){f, i < 3 ? i + 100 : i - 3};
        pthread_create(&threads[i], NULL, i < 3 ? run_guest : bring_all, &runners[i]);
    }
    while (f->completions == 0)
        run_until_woken(f);
    for (size_t i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    for (size_t page = PAGES / 2; page < PAGES; page++) {
        assert_int_equal(f->guest[page * PAGE_BYTES], content(page));
        for (size_t i = 100; i < 103; i++)
            assert_int_equal(f->guest[page * PAGE_BYTES + i], (uint8_t)(content(page) + 20));
    }
    assert_true(filler_complete(f->filler));
    assert_int_equal(f->completions, 1);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_a_stale_page_waits_for_its_content),
        CASE(test_a_late_copy_overwrites_nothing),
        CASE(test_zero_pages_and_holes),
        CASE(test_system_calls_wait_too),
        CASE(test_bad_names_are_refused),
        CASE(test_unfinished_memory_is_not_taken),
        CASE(test_guests_race_with_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
