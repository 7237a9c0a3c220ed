/* Bytes are dear only where workers wait although cores are idle, and it takes more than a moment to say so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "migrate/pressure.h"

static void note(struct pressure *p, unsigned times, uint64_t work_us, uint64_t wait_us, double idle)
{
    for (unsigned i = 0; i < times; i++)
        pressure_note(p, work_us * 1000, wait_us * 1000, idle);
}

static void test_at_first_cpu_time_is_dear(void **state)
{
    (void)state;
    struct pressure p = {0};
    assert_false(p.bytes);
    note(&p, 1, 400, 20, 1);
    assert_false(p.bytes);
}

static void test_waiting_for_the_wire(void **state)
{
    (void)state;
    struct pressure p = {0};
    note(&p, 20, 400, 1000, 1);
    assert_true(p.bytes);
    note(&p, 20, 800, 600, 1); /* taking pains costs time, and some is left */
    assert_true(p.bytes);
    note(&p, 20, 800, 50, 1);
    assert_false(p.bytes);
}

static void test_waiting_for_a_core(void **state)
{
    (void)state;
    struct pressure p = {0};
    note(&p, 20, 400, 1000, 0.1);
    assert_false(p.bytes);
    note(&p, 1, 400, 1000, 0.8);
    assert_true(p.bytes);
    note(&p, 1, 800, 1000, 0.2);
    assert_true(p.bytes);
    note(&p, 1, 800, 1000, 0);
    assert_false(p.bytes);
}

static void test_a_moment_says_little(void **state)
{
    (void)state;
    struct pressure p = {0};
    note(&p, 20, 400, 20, 1);
    note(&p, 1, 400, 2000, 1);
    assert_false(p.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_first_cpu_time_is_dear),
        cmocka_unit_test(test_waiting_for_the_wire),
        cmocka_unit_test(test_waiting_for_a_core),
        cmocka_unit_test(test_a_moment_says_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
