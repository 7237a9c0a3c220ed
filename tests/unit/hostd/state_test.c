/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <string.h>

#include "hostd/partition/state.h"

/* The whole table again, as text, so that no edge can come or go unseen. */
static void only_these_changes_are_allowed(void **unused)
{
    (void)unused;
    static const struct {
        enum partition_state from;
        const char *to;
    } expected[] = {
        {STATE_NONE, "starting incoming "},
        {STATE_STARTING, "running stopping stopped failed "},
        {STATE_RUNNING, "outgoing stopping stopped failed "},
        {STATE_INCOMING, "running stopping failed "},
        {STATE_OUTGOING, "running in-doubt stopping stopped failed "},
        {STATE_IN_DOUBT, "running stopping failed "},
        {STATE_STOPPING, "none "},
        {STATE_STOPPED, "none "},
        {STATE_FAILED, "none "},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char found[256] = "";
        for (int to = 0; to < STATE_COUNT; to++)
            if (state_may_follow(expected[i].from, (enum partition_state)to)) {
                strcat(found, state_name((enum partition_state)to));
                strcat(found, " ");
            }
        assert_string_equal(found, expected[i].to);
    }
}

static void a_guest_that_may_run_elsewhere_never_runs_again_by_itself(void **unused)
{
    (void)unused;
    assert_false(state_may_follow(STATE_IN_DOUBT, STATE_OUTGOING));
    assert_false(state_may_follow(STATE_STOPPING, STATE_RUNNING));
    assert_false(state_may_follow(STATE_STOPPED, STATE_RUNNING));
    assert_false(state_may_follow(STATE_INCOMING, STATE_OUTGOING));
}

static void names_go_both_ways(void **unused)
{
    (void)unused;
    for (int state = 0; state < STATE_COUNT; state++)
        assert_int_equal(state_parse(state_name((enum partition_state)state)), state);
    assert_int_equal(state_parse("rnning"), -1);
    assert_int_equal(state_parse(""), -1);
}

static void over_means_no_guest(void **unused)
{
    (void)unused;
    assert_false(state_has_guest(STATE_NONE));
    assert_false(state_has_guest(STATE_STOPPED));
    assert_false(state_has_guest(STATE_FAILED));
    assert_true(state_has_guest(STATE_IN_DOUBT));
    assert_true(state_has_guest(STATE_INCOMING));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_these_changes_are_allowed),
        cmocka_unit_test(a_guest_that_may_run_elsewhere_never_runs_again_by_itself),
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(over_means_no_guest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
