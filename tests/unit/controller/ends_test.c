/* What is remembered of partitions that ended by themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "controller/fleet/ends.h"

static void test_the_last_end_of_a_vm_is_remembered(void **state)
{
    static struct ends ends;
    (void)state;
    assert_null(ends_find(&ends, "a"));
    assert_null(ends_find(&ends, ""));
    ends_note(&ends, "a", "h1", "QEMU was ended by signal 7", 1);
    ends_note(&ends, "a", "h2", "the guest shut down", 2);
    const struct end *end = ends_find(&ends, "a");
    assert_string_equal(end->host, "h2");
    assert_string_equal(end->why, "the guest shut down");
    assert_int_equal(end->at_ms, 2);
}

static void test_the_oldest_makes_room(void **state)
{
    static struct ends ends;
    (void)state;
    for (int i = 0; i <= ENDS_MAX; i++) {
        char id[16];
        snprintf(id, sizeof id, "vm-%d", i);
        ends_note(&ends, id, "h1", "", i);
    }
    assert_null(ends_find(&ends, "vm-0"));
    for (int i = 1; i <= ENDS_MAX; i++) {
        char id[16];
        snprintf(id, sizeof id, "vm-%d", i);
        assert_int_equal(ends_find(&ends, id)->at_ms, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_end_of_a_vm_is_remembered),
        cmocka_unit_test(test_the_oldest_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
