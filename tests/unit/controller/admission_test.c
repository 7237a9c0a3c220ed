/* Who may begin: limits per host and per link, the oldest first, nobody held up by what waits for another host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "controller/jobs/admission.h"

static const struct optimizer_limits two = {2, 2, 2};

static void check(
    const struct admission_move *moves, size_t count, const struct optimizer_limits *limits, const char *expected)
{
    for (size_t i = 0; i < count; i++) {
        char reason[256] = "";
        bool may = admission_decide(moves, count, limits, moves[i].job_id, reason);
        if (may != (expected[i] == 'y') || (reason[0] != '\0') == may)
            fail_msg("job %u: %s, '%s'", (unsigned)moves[i].job_id, may ? "admitted" : "not admitted", reason);
    }
}

static void limits(void **unused)
{
    (void)unused;
    struct admission_move out[] = {{1, "h1", "h2", true}, {2, "h1", "h3", false}, {3, "h1", "h4", false}};
    check(out, 3, &two, "yyn");
    struct admission_move in[] = {{1, "h2", "h1", false}, {2, "h3", "h1", false}, {3, "h4", "h1", false}};
    check(in, 3, &two, "yyn");
    struct admission_move link[] = {{1, "h1", "h2", false}, {2, "h1", "h2", false}, {3, "h1", "h3", false}};
    check(link, 3, &(struct optimizer_limits){4, 4, 1}, "yny");
    /* Limits may be lowered while more are at work: what works goes on. */
    struct admission_move many[] = {{1, "h1", "h2", true}, {2, "h1", "h2", true}, {3, "h1", "h3", true}};
    check(many, 3, &(struct optimizer_limits){1, 1, 1}, "yyy");
    check(NULL, 0, &two, "");
}

static void order(void **unused)
{
    (void)unused;
    /* Whoever asks first: the older ones go first, also before one that has just come. */
    struct admission_move moves[] = {{4, "h1", "h2", true}, {5, "h1", "h3", true}, {6, "h1", "h2", false},
        {7, "h4", "h3", false}, {8, "h4", "h2", false}, {9, "h4", "h5", false}};
    check(moves, 6, &two, "yynyyn");
    char reason[256];
    assert_false(admission_decide(moves, 6, &two, 6, reason));
    assert_string_equal(reason, "host h1 sends 2 VMs already, and may send 2 at once");
    assert_false(admission_decide(moves, 6, &two, 9, reason));
    assert_string_equal(reason, "host h4 sends 2 VMs already, and may send 2 at once; 1 more waits before it");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits),
        cmocka_unit_test(order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
