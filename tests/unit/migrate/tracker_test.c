/* The tracker against this very process in QEMU's place: it opens a userfaultfd as the shim does and maps a RAM file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate/tracker.h"
#include "tests/unit/migrate/memory_file.h"

#define PAGES 4096u

struct fixture {
    struct ram ram;
    volatile uint8_t *guest;
    struct tracker *tracker;
    struct bitmap written;
    struct err err;
    int uffd;
};

static struct fixture fixture;

static int setup(void **state)
{
    struct fixture *f = &fixture;
    *f = (struct fixture){.ram = memory_file(PAGES), .written = bitmap_new(PAGES)};
    f->guest = mmap(NULL, f->ram.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram.fd, 0);
    f->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
    for (size_t page = 0; page < PAGES / 2; page++)
        f->guest[page * PAGE_BYTES] = 1;
    *state = f;
    return f->guest == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    tracker_close(f->tracker);
    munmap((void *)f->guest, f->ram.bytes);
    ram_close(&f->ram);
    bitmap_free(&f->written);
    if (f->uffd >= 0)
        close(f->uffd);
    return 0;
}

/* Skips by name where the machine has no asynchronous write protection. */
static void open_or_skip(struct fixture *f)
{
    if (tracker_open(getpid(), &f->ram, &f->err, &f->tracker) == 0)
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

static void test_can_be_opened_again(void **state)
{
    struct fixture *f = *state;
    open_or_skip(f);
    f->guest[0] = 4;
    tracker_close(f->tracker);
    f->tracker = NULL;
    f->guest[PAGE_BYTES] = 4; /* not protected now */
    assert_int_equal(tracker_open(getpid(), &f->ram, &f->err, &f->tracker), 0);
    assert_int_equal(scan(f), 0);
    f->guest[0] = 5;
    assert_int_equal(scan(f), 1);
}

static void test_without_the_shim_it_says_so(void **state)
{
    struct fixture *f = *state;
    close(f->uffd);
    f->uffd = -1;
    assert_int_equal(tracker_open(getpid(), &f->ram, &f->err, &f->tracker), -1);
    assert_int_equal(f->err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(f->err.message, "libdrover-shim.so"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sees_exactly_what_is_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sees_writes_of_the_kernel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_ranges_take_the_wide_path, setup, teardown),
        cmocka_unit_test_setup_teardown(test_can_be_opened_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_the_shim_it_says_so, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
