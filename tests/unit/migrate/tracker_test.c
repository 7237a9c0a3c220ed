/* The tracker against this very process in QEMU's place: it opens userfaultfds as the shim does and maps a RAM file.
 * Every test runs over both back ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate/tracker.h"
#include "tests/lib/until.h"
#include "tests/unit/migrate/memory_file.h"

#define PAGES      4096u
#define DEADLINE_S 300 /* a writer that nobody lets through waits for ever */
#define UFFDS      2
#define WRITERS    2

struct writer {
    pthread_t thread;
    struct fixture *fixture;
    size_t index;
    atomic_bool stop;
    atomic_size_t writes;
};

struct fixture {
    enum tracker_kind kind;
    struct ram ram;
    volatile uint8_t *guest;
    struct tracker *tracker;
    struct bitmap written;
    struct err err;
    int uffds[UFFDS];
    struct writer writers[WRITERS];
    bool writing;
};

static struct fixture fixture;
enum { ASYNC, SYNC };
static enum tracker_kind kinds[] = {[ASYNC] = TRACKER_WP_ASYNC, [SYNC] = TRACKER_WP_SYNC};

static int setup(void **state)
{
    struct fixture *f = &fixture;
    enum tracker_kind kind = *(enum tracker_kind *)*state;
    *f = (struct fixture){.kind = kind, .ram = memory_file(PAGES), .written = bitmap_new(PAGES)};
    f->guest = mmap(NULL, f->ram.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram.fd, 0);
    for (size_t i = 0; i < UFFDS; i++)
        f->uffds[i] = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    for (size_t page = 0; page < PAGES / 2; page++)
        f->guest[page * PAGE_BYTES] = 1;
    alarm(DEADLINE_S);
    *state = f;
    return f->guest == MAP_FAILED ? -1 : 0;
}

static void writers_stop(struct fixture *f)
{
    for (size_t i = 0; i < WRITERS && f->writing; i++) {
        atomic_store(&f->writers[i].stop, true);
        pthread_join(f->writers[i].thread, NULL);
    }
    f->writing = false;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    tracker_close(f->tracker);
    writers_stop(f); /* of a test that failed */
    munmap((void *)f->guest, f->ram.bytes);
    ram_close(&f->ram);
    bitmap_free(&f->written);
    for (size_t i = 0; i < UFFDS; i++)
        if (f->uffds[i] >= 0)
            close(f->uffds[i]);
    alarm(0);
    return 0;
}

/* Skips by name where the machine has no such write protection. */
static void open_or_skip(struct fixture *f)
{
    if (tracker_open(f->kind, getpid(), &f->ram, &f->err, &f->tracker) == 0)
        return;
    print_message("skipped: %s\n", f->err.message);
    skip();
}

static size_t scan(struct fixture *f)
{
    bitmap_clear(&f->written);
    assert_int_equal(tracker_scan(f->tracker, &f->err, &f->written), 0);
    return bitmap_count(&f->written);
}

static void test_sees_exactly_what_is_written(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    assert_int_equal(scan(f), 0);
    static const size_t pages[] = {0, 5, 6, PAGES / 2 - 1, PAGES / 2, PAGES - 1}; /* allocated and not */
    for (size_t i = 0; i < 6; i++)
        f->guest[pages[i] * PAGE_BYTES + i] = 9;
    (void)f->guest[17 * PAGE_BYTES]; /* reading is not writing */
    assert_int_equal(scan(f), 6);
    for (size_t i = 0; i < 6; i++)
        assert_true(bitmap_test(&f->written, pages[i]));
    assert_int_equal(scan(f), 0);
    f->guest[5 * PAGE_BYTES] = 10; /* protected again: seen again */
    assert_int_equal(scan(f), 1);
}

static void test_sees_writes_of_the_kernel(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    assert_int_equal(scan(f), 0);
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, (void *)(f->guest + 9 * PAGE_BYTES), 2 * PAGE_BYTES), 2 * PAGE_BYTES);
    close(fd);
    assert_int_equal(scan(f), 2);
    assert_true(bitmap_test(&f->written, 9) && bitmap_test(&f->written, 10));
}

static void test_many_ranges_take_the_wide_path(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    for (size_t page = 0; page < PAGES; page += 2)
        f->guest[page * PAGE_BYTES] = 3;
    assert_int_equal(scan(f), PAGES / 2);
    assert_int_equal(scan(f), 0);
}

/* A page that is freed goes on being watched: holes.h sees that it reads as zeros, and this what is written then. */
static void test_sees_writes_to_freed_pages(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    assert_int_equal(ram_punch(&f->ram, 4, 8, &f->err), 0);
    (void)f->guest[5 * PAGE_BYTES];
    scan(f);
    f->guest[5 * PAGE_BYTES] = 3;
    f->guest[7 * PAGE_BYTES] = 3;
    assert_int_equal(scan(f), 2);
    assert_true(bitmap_test(&f->written, 5) && bitmap_test(&f->written, 7));
}

static void test_can_be_opened_again(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    f->guest[0] = 4;
    tracker_close(f->tracker);
    f->tracker = NULL;
    f->guest[PAGE_BYTES] = 4; /* not protected now */
    assert_int_equal(tracker_open(f->kind, getpid(), &f->ram, &f->err, &f->tracker), 0);
    assert_int_equal(scan(f), 0);
    f->guest[0] = 5;
    assert_int_equal(scan(f), 1);
}

static void test_without_the_shim_it_says_so(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < UFFDS; i++) {
        close(f->uffds[i]);
        f->uffds[i] = -1;
    }
    assert_int_equal(tracker_open(f->kind, getpid(), &f->ram, &f->err, &f->tracker), -1);
    assert_int_equal(f->err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(f->err.message, "libdrover-shim.so"));
}

static void test_has_its_name(void **state)
{
    struct fixture *f = *state;
    enum tracker_kind kind;
    open_or_skip(f);
    assert_true(tracker_kind_parse(tracker_name(f->tracker), &kind));
    assert_int_equal(kind, f->kind);
    assert_true(tracker_kind_parse("auto", &kind));
    assert_false(tracker_kind_parse("soft-dirty", &kind));
}

static void test_there_is_one_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct tracker *second;
    open_or_skip(f);
    assert_int_equal(tracker_open(f->kind, getpid(), &f->ram, &f->err, &second), -1);
    assert_int_equal(f->err.code, ERR_BUSY);
    f->guest[0] = 8; /* the first goes on */
    assert_int_equal(scan(f), 1);
}

/* A userfaultfd agrees on its features once; the next migration of the same guest may want others. */
static void test_one_after_the_other(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < 4; i++) {
        f->kind = kinds[i % 2];
        open_or_skip(f);
        f->guest[3 * PAGE_BYTES] = (uint8_t)i;
        assert_int_equal(scan(f), 1);
        tracker_close(f->tracker);
        f->tracker = NULL;
    }
    f->guest[3 * PAGE_BYTES] = 77; /* nobody watches, nobody waits */
}

/* ---- writers at work ---- */

#define ROUNDS 60

static void *write_on(void *arg)
{
    struct writer *w = arg;
    for (uint32_t random = 12345 + (uint32_t)w->index; !atomic_load(&w->stop); atomic_fetch_add(&w->writes, 1)) {
        random = random * 1664525 + 1013904223;
        size_t page = random / 65536 % PAGES;
        w->fixture->guest[page * PAGE_BYTES + 8 + w->index]++;
    }
    return NULL;
}

static void writers_start(struct fixture *f)
{
    for (size_t i = 0; i < WRITERS; i++) {
        f->writers[i] = (struct writer){.fixture = f, .index = i};
        assert_int_equal(pthread_create(&f->writers[i].thread, NULL, write_on, &f->writers[i]), 0);
    }
    f->writing = true;
}

/* Returns once each has written so often again: none of them waits. */
static void writers_go_on(struct fixture *f, size_t writes)
{
    for (size_t i = 0; i < WRITERS; i++) {
        size_t from = atomic_load(&f->writers[i].writes);
        UNTIL(atomic_load(&f->writers[i].writes) - from >= writes);
    }
}

/* A migration in small: rounds of scan and copy while the guest writes, one more when it stands still; then both are
 * equal. */
static void test_no_write_is_lost(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    uint8_t *copy = malloc(f->ram.bytes);
    assert_non_null(copy);
    bitmap_set_range(&f->written, 0, PAGES);
    writers_start(f);
    for (size_t round = 0; round <= ROUNDS; round++) {
        if (round == ROUNDS)
            writers_stop(f);
        if (round > 0)
            scan(f);
        for (size_t page = 0; page < PAGES; page++)
            if (bitmap_test(&f->written, page))
                assert_int_equal(ram_read(&f->ram, page, 1, &f->err, copy + page * PAGE_BYTES), 0);
    }
    assert_memory_equal(copy, (const void *)f->guest, f->ram.bytes);
    free(copy);
}

/* The same with a late look: what is found right before a part is read, and read then, is not for the next round; what
 * is found and not read is. */
static void test_no_write_is_lost_by_looking_late(void **state)
{
    struct fixture *f = *state;
    struct bitmap late = bitmap_new(PAGES), next = bitmap_new(PAGES);
    open_or_skip(f);
    uint8_t *copy = malloc(f->ram.bytes);
    assert_non_null(copy);
    bitmap_set_range(&f->written, 0, PAGES);
    writers_start(f);
    size_t spared = 0;
    for (size_t round = 0; round <= ROUNDS; round++) {
        if (round == ROUNDS)
            writers_stop(f);
        else
            writers_go_on(f, 2); /* of two at least one began after the scan, however busy the machine is */
        bitmap_clear(&late);
        for (size_t part = 0; part < PAGES; part += 1024) {
            assert_int_equal(tracker_rescan(f->tracker, part, 1024, &f->err, &late), 0);
            for (size_t page = part; page < part + 1024; page++)
                if (bitmap_test(&f->written, page) && (round < ROUNDS || !bitmap_test(&late, page)))
                    assert_int_equal(ram_read(&f->ram, page, 1, &f->err, copy + page * PAGE_BYTES), 0);
        }
        bitmap_clear(&next);
        for (size_t page = 0; page < PAGES; page++) {
            bool read = bitmap_test(&f->written, page) && round < ROUNDS;
            spared += read && bitmap_test(&late, page);
            if (bitmap_test(&late, page) && !read)
                bitmap_set(&next, page);
        }
        scan(f);
        bitmap_add(&f->written, &next);
    }
    for (size_t page = 0; page < PAGES; page++) /* the guest stands still: the rest */
        if (bitmap_test(&f->written, page))
            assert_int_equal(ram_read(&f->ram, page, 1, &f->err, copy + page * PAGE_BYTES), 0);
    assert_memory_equal(copy, (const void *)f->guest, f->ram.bytes);
    assert_true(spared > 0);
    bitmap_free(&late);
    bitmap_free(&next);
    free(copy);
}

static void test_a_part_is_looked_at_alone(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    static const size_t pages[] = {63, 64, 70, 127, 128};
    for (size_t i = 0; i < 5; i++)
        f->guest[pages[i] * PAGE_BYTES] = 7;
    assert_int_equal(tracker_rescan(f->tracker, 64, 64, &f->err, &f->written), 0);
    assert_int_equal(bitmap_count(&f->written), 3);
    assert_int_equal(scan(f), 2); /* the others, and not those again */
    assert_true(bitmap_test(&f->written, 63) && bitmap_test(&f->written, 128));
}

/* ---- engines that die ---- */

/* An engine in a process of its own. Returns its id once it tracks; -1: it cannot. */
static pid_t engine_start(struct fixture *f)
{
    int ready[2];
    char word = 0;
    pid_t parent = getpid();
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bool open = tracker_open(f->kind, parent, &f->ram, &f->err, &f->tracker) == 0;
        (void)!write(ready[1], open ? "y" : "n", 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &word, 1), 1);
    close(ready[0]);
    if (word == 'y')
        return pid;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return -1;
}

/* How many threads wait for somebody to let their write through. */
static size_t waiting(const struct fixture *f)
{
    size_t sum = 0;
    for (size_t i = 0; i < UFFDS; i++) {
        char path[64], line[128];
        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", f->uffds[i]);
        FILE *info = fopen(path, "re");
        size_t total;
        while (info && fgets(line, sizeof line, info))
            if (sscanf(line, "total: %zu", &total) == 1)
                sum += total;
        if (info)
            fclose(info);
    }
    return sum;
}

/* The first child of a process's first thread; 0: none. */
static long child_of(pid_t pid)
{
    char path[64];
    long child = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *children = fopen(path, "re");
    if (children && fscanf(children, "%ld", &child) != 1)
        child = 0;
    if (children)
        fclose(children);
    return child;
}

/* A killed engine's guardian has to go first. */
static bool opened_after_the_guardian(struct fixture *f)
{
    if (tracker_open(f->kind, getpid(), &f->ram, &f->err, &f->tracker) == 0)
        return true;
    assert_int_equal(f->err.code, ERR_BUSY);
    return false;
}

/* The engine is killed at the worst moment: while the guest waits for it. */
static void test_the_guest_outlives_a_killed_engine(void **state)
{
    struct fixture *f = *state;
    pid_t engine = engine_start(f);
    if (engine < 0)
        skip();
    kill(engine, SIGSTOP);
    assert_int_equal(waitpid(engine, NULL, WUNTRACED), engine);
    writers_start(f);
    UNTIL(f->kind != TRACKER_WP_SYNC || waiting(f) == WRITERS);
    kill(engine, SIGKILL);
    assert_int_equal(waitpid(engine, NULL, 0), engine);
    writers_go_on(f, 100000);
    writers_stop(f);
    assert_int_equal(waiting(f), 0);
    UNTIL(opened_after_the_guardian(f));
    f->guest[2 * PAGE_BYTES] = 20;
    assert_int_equal(scan(f), 1);
}

/* Both are killed while the guest waits: it goes on once somebody else has ended their watch. */
static void test_the_guest_is_let_go_when_the_guardian_dies_too(void **state)
{
    struct fixture *f = *state;
    pid_t engine = engine_start(f);
    if (engine < 0)
        skip();
    kill(engine, SIGSTOP);
    assert_int_equal(waitpid(engine, NULL, WUNTRACED), engine);
    long guardian = child_of(engine);
    assert_int_equal(guardian != 0, f->kind == TRACKER_WP_SYNC);
    writers_start(f);
    UNTIL(f->kind != TRACKER_WP_SYNC || waiting(f) == WRITERS);
    if (guardian)
        kill((pid_t)guardian, SIGKILL);
    kill(engine, SIGKILL);
    assert_int_equal(waitpid(engine, NULL, 0), engine);
    assert_int_equal(tracker_release(getpid(), &f->ram, &f->err), 0);
    writers_go_on(f, 100000);
    writers_stop(f);
    assert_int_equal(waiting(f), 0);
    open_or_skip(f); /* nothing of them is left */
    f->guest[2 * PAGE_BYTES] = 20;
    assert_int_equal(scan(f), 1);
}

/* Without its guardian an engine must not go on tracking, for it might be killed next. */
static void test_the_guardian_is_guarded(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    long guardian = child_of(getpid());
    assert_int_equal(guardian != 0, f->kind == TRACKER_WP_SYNC);
    if (!guardian)
        return;
    writers_start(f);
    kill((pid_t)guardian, SIGKILL);
    UNTIL(tracker_scan(f->tracker, &f->err, &f->written) < 0);
    assert_int_equal(f->err.code, ERR_UNAVAILABLE);
    writers_go_on(f, 100000);
    writers_stop(f);
}

#define OVER(test, kind)                                                                                               \
    (struct CMUnitTest)                                                                                                \
    {                                                                                                                  \
#test " over " #kind, test, setup, teardown, &kinds[kind]                                                      \
    }
#define OVER_BOTH(test) OVER(test, ASYNC), OVER(test, SYNC)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OVER_BOTH(test_sees_exactly_what_is_written),
        OVER_BOTH(test_sees_writes_of_the_kernel),
        OVER_BOTH(test_many_ranges_take_the_wide_path),
        OVER_BOTH(test_sees_writes_to_freed_pages),
        OVER_BOTH(test_can_be_opened_again),
        OVER_BOTH(test_without_the_shim_it_says_so),
        OVER_BOTH(test_has_its_name),
        OVER_BOTH(test_there_is_one_at_a_time),
        OVER_BOTH(test_one_after_the_other),
        OVER_BOTH(test_no_write_is_lost),
        OVER_BOTH(test_no_write_is_lost_by_looking_late),
        OVER_BOTH(test_a_part_is_looked_at_alone),
        OVER_BOTH(test_the_guest_outlives_a_killed_engine),
        OVER_BOTH(test_the_guest_is_let_go_when_the_guardian_dies_too),
        OVER_BOTH(test_the_guardian_is_guarded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
