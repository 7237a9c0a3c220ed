/* What an engine may use of link and CPU, by clocks of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "migrate/quota.h"

#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)

static int setup(void **state)
{
    static struct quota quota;
    quota_init(&quota);
    *state = &quota;
    return 0;
}

/* Messages of `bytes` sent as soon as they may be, each `late_ns` after that; returns how many fit. */
static uint64_t send_until(struct quota *q, uint64_t *now, uint64_t end, uint64_t bytes, uint64_t late_ns)
{
    uint64_t sent = 0, wait;
    while (*now < end) {
        wait = quota_link_wait_ns(q, *now, bytes);
        if (wait)
            *now += wait + late_ns;
        else
            sent++;
    }
    return sent;
}

static void test_the_least_of_the_limits_counts(void **state)
{
    struct quota *q = *state;
    assert_int_equal(quota_bytes_per_s(q), 0);
    assert_true(quota_limit(q, QUOTA_HERE, 500));
    assert_true(quota_limit(q, QUOTA_THERE, 300));
    assert_false(quota_limit(q, QUOTA_ASKED, 900));
    assert_int_equal(quota_bytes_per_s(q), 300);
    assert_true(quota_limit(q, QUOTA_THERE, 0));
    assert_int_equal(quota_bytes_per_s(q), 500);
}

static void test_unlimited_never_waits(void **state)
{
    struct quota *q = *state;
    assert_int_equal(quota_link_wait_ns(q, SECOND, UINT64_C(1) << 40), 0);
    assert_int_equal(quota_link_wait_ns(q, SECOND, UINT64_C(1) << 40), 0);
    assert_int_equal(quota_cpu_wait_ns(q, SECOND, 900 * SECOND), 0);
}

static void test_bandwidth_is_kept_and_used(void **state)
{
    struct quota *q = *state;
    uint64_t now = SECOND;
    quota_limit(q, QUOTA_ASKED, 1000000);
    uint64_t sent = send_until(q, &now, 11 * SECOND, 10000, 3 * MS); /* woken late, as on a busy machine */
    assert_in_range(sent, 995, 1002);
}

static void test_a_new_limit_counts_at_once(void **state)
{
    struct quota *q = *state;
    uint64_t now = SECOND;
    quota_limit(q, QUOTA_HERE, 1); /* one message takes a day */
    assert_int_equal(quota_link_wait_ns(q, now, 100000), 0);
    assert_true(quota_link_wait_ns(q, now, 100000) > 1000 * SECOND);
    quota_limit(q, QUOTA_HERE, 1000000);
    assert_in_range(quota_link_wait_ns(q, now, 100000), 90 * MS, 101 * MS);
    quota_limit(q, QUOTA_HERE, 0);
    assert_int_equal(quota_link_wait_ns(q, now, 100000), 0);
}

/* A process that works whenever it may, on two cores: 2 ms of work on each at a time. */
static uint64_t work_until(struct quota *q, uint64_t *now, uint64_t end)
{
    uint64_t used = 0, wait;
    while (*now < end) {
        wait = quota_cpu_wait_ns(q, *now, used);
        *now += wait ? wait : 2 * MS;
        used += wait ? 0 : 4 * MS;
    }
    return used;
}

static void test_cpu_share_is_kept(void **state)
{
    struct quota *q = *state;
    uint64_t now = SECOND;
    quota_cpu(q, 500);
    uint64_t used = work_until(q, &now, 21 * SECOND);
    assert_in_range(used / MS, 9900, 10150);
}

static void test_the_switch_does_not_wait_and_is_not_paid_for_long(void **state)
{
    struct quota *q = *state;
    quota_cpu(q, 100);
    assert_int_equal(quota_cpu_wait_ns(q, SECOND, 0), 0);
    quota_urgent(q, true);
    assert_int_equal(quota_cpu_wait_ns(q, 2 * SECOND, 2 * SECOND), 0);
    quota_urgent(q, false);
    assert_in_range(quota_cpu_wait_ns(q, 2 * SECOND, 2 * SECOND), 1, 200 * MS + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_least_of_the_limits_counts, setup),
        cmocka_unit_test_setup(test_unlimited_never_waits, setup),
        cmocka_unit_test_setup(test_bandwidth_is_kept_and_used, setup),
        cmocka_unit_test_setup(test_a_new_limit_counts_at_once, setup),
        cmocka_unit_test_setup(test_cpu_share_is_kept, setup),
        cmocka_unit_test_setup(test_the_switch_does_not_wait_and_is_not_paid_for_long, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
