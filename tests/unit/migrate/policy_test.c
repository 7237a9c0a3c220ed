#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "migrate/options.h"
#include "migrate/policy.h"
#include "migrate/ram.h"

static const struct policy_limits limits = {.max_downtime_us = 30000, .max_rounds = 60};

/* Plays pre-copy of a guest with `resident` pages that writes `rate` pages/s of a working set of `set` pages, over a
 * link of `bandwidth` bytes/s with `latency_us` a round. Returns the last decision; the guest's dirty pages at the end
 * in `*left`. */
static enum policy_decision play(uint64_t resident, double rate, uint64_t set, double bandwidth, uint64_t latency_us,
    uint64_t *left, uint32_t *rounds)
{
    struct policy policy = {0};
    uint64_t pages = resident;
    for (;;) {
        uint64_t us = latency_us + (uint64_t)((double)pages * PAGE_BYTES / bandwidth * 1e6);
        double dirty = rate * (double)us / 1e6;
        if (dirty > (double)set)
            dirty = (double)set;
        policy_round(&policy, pages, us, (uint64_t)dirty, (uint64_t)dirty);
        pages = (uint64_t)dirty;
        enum policy_decision decision = policy_decide(&policy, &limits);
        *left = pages;
        *rounds = policy.rounds;
        if (decision != POLICY_ROUND)
            return decision;
        assert_true(policy.rounds <= limits.max_rounds);
    }
}

static void test_idle_guest_switches_after_one_round(void **state)
{
    (void)state;
    uint64_t left;
    uint32_t rounds;
    assert_int_equal(play(50000, 0, 0, 400e6, 1000, &left, &rounds), POLICY_SWITCH);
    assert_int_equal(rounds, 1);
}

static void test_moderate_writer_is_squeezed_before_the_switch(void **state)
{
    (void)state;
    uint64_t left;
    uint32_t rounds;
    assert_int_equal(play(250000, 5000, 100000, 400e6, 1500, &left, &rounds), POLICY_SWITCH);
    assert_true((double)(left * PAGE_BYTES) / 400e6 < 0.001);
    assert_true(rounds <= 6);
}

static void test_writer_faster_than_the_link_is_given_up(void **state)
{
    (void)state;
    uint64_t left;
    uint32_t rounds;
    assert_int_equal(play(250000, 200000, 200000, 400e6, 1500, &left, &rounds), POLICY_GIVE_UP);
    assert_true(rounds < limits.max_rounds);
}

static void test_small_hot_set_fits_the_budget(void **state)
{
    (void)state;
    uint64_t left;
    uint32_t rounds;
    /* The whole working set is always dirty, but it takes 4 ms only. */
    assert_int_equal(play(250000, 1e6, 400, 400e6, 1000, &left, &rounds), POLICY_SWITCH);
}

/* Ends for every writer and link, and never promises what it cannot keep. */
static void test_always_ends(void **state)
{
    (void)state;
    for (double rate = 10; rate < 1e7; rate *= 3)
        for (double bandwidth = 1e6; bandwidth < 1e10; bandwidth *= 5)
            for (uint64_t set = 10; set < 1000000; set *= 20) {
                uint64_t left;
                uint32_t rounds;
                if (play(100000, rate, set, bandwidth, 1000, &left, &rounds) == POLICY_SWITCH)
                    assert_true((double)left * PAGE_BYTES / bandwidth * 1e6 <= (double)limits.max_downtime_us);
            }
}

static void test_a_writer_above_the_link_is_given_up_sooner_where_postcopy_follows(void **state)
{
    (void)state;
    const struct policy_limits with = {.max_downtime_us = 30000, .max_rounds = 60, .postcopy_next = true};
    struct policy policy = {0};
    policy_round(&policy, 20000, 1000000, 10000, 10000);
    while (policy_decide(&policy, &with) == POLICY_ROUND)
        policy_round(&policy, 10000, 500000, 10000, 10000);
    assert_int_equal(policy_decide(&policy, &with), POLICY_GIVE_UP);
    assert_in_range(policy.rounds, 2, 5);
    assert_int_equal(policy_decide(&policy, &limits), POLICY_ROUND);
}

static void test_hybrid_makes_a_second_round_only_where_it_helps(void **state)
{
    (void)state;
    struct policy busy = {0}, calm = {0};
    policy_round(&busy, 20000, 1000000, 10000, 10000);
    assert_false(policy_hybrid_round(&busy));
    policy_round(&calm, 20000, 1000000, 2000, 2000);
    assert_true(policy_hybrid_round(&calm));
    policy_round(&calm, 2000, 100000, 200, 200);
    assert_false(policy_hybrid_round(&calm)); /* two are enough */
}

/* A guest slowed down writes less: steps follow until rounds make progress, and there is a last one. */
static void test_throttle_goes_down_step_by_step(void **state)
{
    (void)state;
    const struct policy_limits with = {.max_downtime_us = 30000, .max_rounds = 60, .throttle = true};
    struct policy policy;
    policy_init(&policy);
    uint64_t pages = 100000;
    uint32_t steps = 0;
    enum policy_decision decision;
    do {
        uint64_t us = 1000 + pages * PAGE_BYTES / 100;                 /* 100 MB/s */
        pages = 200 * (uint64_t)policy.throttle_percent * us / 400000; /* twice that, when it may */
        policy_round(&policy, pages, us, pages > 50000 ? 50000 : pages, pages > 50000 ? 50000 : pages);
        decision = policy_decide(&policy, &with);
        if (decision == POLICY_THROTTLE) {
            uint32_t before = policy.throttle_percent;
            policy_throttle(&policy, 100);
            assert_true(policy.throttle_percent < before);
            steps++;
        }
    } while (decision == POLICY_ROUND || decision == POLICY_THROTTLE);
    assert_int_equal(decision, POLICY_SWITCH);
    assert_in_range(steps, 1, 5);
    assert_true(policy.throttle_percent < 100);
}

static void test_throttle_has_a_floor_and_a_short_cut(void **state)
{
    (void)state;
    struct policy policy;
    policy_init(&policy);
    policy_throttle(&policy, 12);
    assert_int_equal(policy.throttle_percent, 20); /* 12 is known to be needed: the steps above are not tried */
    policy_throttle(&policy, 12);
    assert_int_equal(policy.throttle_percent, 12);
    for (int i = 0; i < 20; i++)
        policy_throttle(&policy, 12);
    assert_int_equal(policy.throttle_percent, 1);
    const struct policy_limits with = {.max_downtime_us = 30000, .max_rounds = 1000, .throttle = true};
    while (policy_decide(&policy, &with) == POLICY_ROUND)
        policy_round(&policy, 10000, 1000000, 10000, 10000);
    assert_int_equal(policy_decide(&policy, &with), POLICY_GIVE_UP); /* nothing is left to try */
}

/* What switches have cost lately counts, but leaves half of the budget to the pages: else one bad hour would forbid
 * every move, and no move would ever show that it is over. */
static void test_a_known_switch_counts_up_to_half_the_budget(void **state)
{
    (void)state;
    struct policy policy;
    policy_init(&policy);
    policy_round(
        &policy, 25600, 1048576, 100, 100); /* 100 MB/s; what is left takes 4 ms, and 1 ms while QEMU gets there */
    struct policy_limits with = {.max_downtime_us = 30000, .max_rounds = 60};
    uint64_t unknown_us = policy_predict_us(&policy, &with), left_us = policy_remainder_us(&policy);
    assert_int_equal(unknown_us, POLICY_SWITCH_FIXED_US + left_us);
    with.switch_us = 12000;
    assert_int_equal(policy_predict_us(&policy, &with), 12000 + left_us);
    with.switch_us = 80000;
    assert_int_equal(policy_predict_us(&policy, &with), 15000 + left_us);
    with.max_downtime_us = 2000;
    assert_int_equal(policy_predict_us(&policy, &with), unknown_us); /* a budget below any switch is not met by this */
}

/* With mode auto nothing is given up: where not even the lowest step helps, post-copy follows, soon. */
static void test_throttle_in_vain_ends_in_postcopy_with_mode_auto(void **state)
{
    (void)state;
    struct options options = {.mode = (char[]){"auto"},
        .on_no_convergence = (char[]){"throttle"},
        .tracker = (char[]){"auto"},
        .max_downtime_ms = 30,
        .max_rounds = 60};
    struct options_policy chosen;
    struct policy policy;
    struct err err;
    assert_int_equal(options_policy(&options, &err, &chosen), 0);
    assert_true(options_postcopy_last(&chosen));
    const struct policy_limits with = options_limits(&options, &chosen);
    enum policy_decision decision;
    policy_init(&policy);
    do {
        policy_round(&policy, 10000, 1000000, 10000, 10000); /* whatever is done to it */
        decision = policy_decide(&policy, &with);
        if (decision == POLICY_THROTTLE)
            policy_throttle(&policy, 100);
    } while (decision == POLICY_ROUND || decision == POLICY_THROTTLE);
    assert_int_equal(decision, POLICY_GIVE_UP);
    assert_int_equal(policy.throttle_percent, 1);
    assert_in_range(policy.rounds, 9, 20);
    chosen.mode = MODE_PRECOPY;
    assert_false(options_postcopy_last(&chosen));
}

static void test_words_of_the_options(void **state)
{
    (void)state;
    struct options options = {.mode = (char[]){"auto"}, .on_no_convergence = (char[]){""}, .tracker = (char[]){"auto"}};
    struct options_policy policy;
    struct err err;
    assert_int_equal(options_policy(&options, &err, &policy), 0);
    assert_true(policy.mode == MODE_AUTO && policy.stuck == STUCK_POSTCOPY);
    options.mode = (char[]){"precopy"};
    assert_int_equal(options_policy(&options, &err, &policy), 0);
    assert_true(policy.mode == MODE_PRECOPY && policy.stuck == STUCK_CANCEL);
    options.on_no_convergence = (char[]){"postcopy"};
    assert_int_equal(options_policy(&options, &err, &policy), 0);
    assert_true(policy.stuck == STUCK_POSTCOPY);
    options.on_no_convergence = (char[]){"throttle"};
    assert_int_equal(options_policy(&options, &err, &policy), 0);
    assert_true(policy.stuck == STUCK_THROTTLE);
    options.on_no_convergence = (char[]){"pray"};
    assert_int_equal(options_policy(&options, &err, &policy), -1);
    options.mode = (char[]){"teleport"};
    assert_int_equal(options_policy(&options, &err, &policy), -1);
    options.mode = (char[]){"auto"};
    options.on_no_convergence = (char[]){""};
    options.tracker = (char[]){"guesswork"};
    assert_int_equal(options_policy(&options, &err, &policy), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_guest_switches_after_one_round),
        cmocka_unit_test(test_moderate_writer_is_squeezed_before_the_switch),
        cmocka_unit_test(test_writer_faster_than_the_link_is_given_up),
        cmocka_unit_test(test_small_hot_set_fits_the_budget),
        cmocka_unit_test(test_always_ends),
        cmocka_unit_test(test_a_writer_above_the_link_is_given_up_sooner_where_postcopy_follows),
        cmocka_unit_test(test_hybrid_makes_a_second_round_only_where_it_helps),
        cmocka_unit_test(test_throttle_goes_down_step_by_step),
        cmocka_unit_test(test_throttle_has_a_floor_and_a_short_cut),
        cmocka_unit_test(test_a_known_switch_counts_up_to_half_the_budget),
        cmocka_unit_test(test_throttle_in_vain_ends_in_postcopy_with_mode_auto),
        cmocka_unit_test(test_words_of_the_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
