/* Whether one more guest fits into a host's memory, and what a host offers of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "hostd/options.h"
#include "hostd/partition/room.h"

#define MIB (1ull << 20)

static void test_a_guest_fits_into_capacity_and_file_system(void **state)
{
    static const struct {
        struct room room;
        uint64_t need;
        const char *refusal; /* NULL: it fits */
    } rows[] = {
        {{512 * MIB, false, 512 * MIB, 0}, 512 * MIB, NULL},
        {{512 * MIB, false, 1024 * MIB, 0}, 513 * MIB, "512 MiB are free for guests on this host"},
        {{100 * MIB, true, 100 * MIB, 0}, 101 * MIB, "start drover-hostd again"},
        {{2048 * MIB, false, 260 * MIB, 0}, 256 * MIB, NULL},
        /* What a guest has not touched yet is as good as used. */
        {{2048 * MIB, false, 180 * MIB, 176 * MIB}, 128 * MIB, "4.0 MiB that no guest was promised"},
        {{2048 * MIB, false, 10 * MIB, 300 * MIB}, 16 * MIB, "0 B that no guest was promised"},
        {{2048 * MIB, false, UINT64_MAX, 300 * MIB}, 1024 * MIB, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        int rc = room_check(&rows[i].room, rows[i].need, &err);
        assert_int_equal(rc, rows[i].refusal ? -1 : 0);
        if (!rows[i].refusal)
            continue;
        assert_int_equal(err.code, ERR_CAPACITY);
        if (!strstr(err.message, rows[i].refusal))
            fail_msg("'%s' says nothing of '%s'", err.message, rows[i].refusal);
    }
}

static void test_a_host_offers_no_more_than_its_directory_holds(void **state)
{
    char directory[] = "/dev/shm/drover";
    struct options options = {.memory_directory = directory, .memory_bytes = 2048 * MIB, .memory_given = true};
    (void)state;
    options_bound_memory(&options, UINT64_MAX);
    assert_int_equal(options.memory_bytes, 2048 * MIB);
    options_bound_memory(&options, 2048 * MIB);
    assert_int_equal(options.memory_bytes, 2048 * MIB);
    assert_false(options.memory_by_directory);
    options_bound_memory(&options, 260 * MIB);
    assert_int_equal(options.memory_bytes, 260 * MIB);
    assert_true(options.memory_by_directory);
}

static void test_a_directory_has_the_size_of_its_file_system(void **state)
{
    (void)state;
    uint64_t bytes = room_directory_bytes("/dev/shm");
    assert_true(bytes > 0);
    assert_true(room_directory_bytes("/nowhere at all") == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guest_fits_into_capacity_and_file_system),
        cmocka_unit_test(test_a_host_offers_no_more_than_its_directory_holds),
        cmocka_unit_test(test_a_directory_has_the_size_of_its_file_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
