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
    struct admission *admission = admission_new(moves, count, limits);
    for (size_t i = 0; i < count; i++) {
        char reason[256] = "";
        bool may = admission_ask(admission, moves[i].job_id, reason);
        if (may != (expected[i] == 'y') || (reason[0] != '\0') == may)
            fail_msg("job %u: %s, '%s'", (unsigned)moves[i].job_id, may ? "admitted" : "not admitted", reason);
    }
    admission_free(admission);
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
    struct admission *admission = admission_new(moves, 6, &two);
    assert_false(admission_ask(admission, 6, reason));
    assert_string_equal(reason, "host h1 sends 2 VMs already, and may send 2 at once");
    assert_false(admission_ask(admission, 9, reason));
    assert_string_equal(reason, "host h4 sends 2 VMs already, and may send 2 at once; 1 more waits before it");
    assert_true(admission_ask(admission, 10, reason)); /* none of them */
    admission_free(admission);
}

#define MANY 60

/* The rule as it is written: all that is at work is counted anew for each. */
static bool by_the_rule(struct admission_move *moves, size_t i, const struct optimizer_limits *limits)
{
    unsigned out = 0, in = 0, link = 0;
    for (size_t k = 0; k < MANY; k++) {
        bool from = moves[k].admitted && strcmp(moves[k].from, moves[i].from) == 0;
        bool to = moves[k].admitted && strcmp(moves[k].to, moves[i].to) == 0;
        out += from;
        in += to;
        link += from && to;
    }
    return out < limits->outgoing && in < limits->incoming && link < limits->link;
}

/* What was let in and asks again with that counted is let in still, and nobody else is. */
static void the_rule(void **unused)
{
    (void)unused;
    static const char *const hosts[] = {"h1", "h2", "h3", "h4", "h5"};
    unsigned state = 1;
    for (int round = 0; round < 300; round++) {
        struct admission_move moves[MANY];
        char reason[256], expected[MANY + 1] = "";
        const struct optimizer_limits limits = {
            1 + (unsigned)round % 4, 1 + (unsigned)round % 3, 1 + (unsigned)round % 2};
        for (size_t i = 0; i < MANY; i++) {
            state = state * 1103515245u + 12345u;
            unsigned dice = state >> 16;
            moves[i] =
                (struct admission_move){10 * (i + 1), hosts[dice % 5], hosts[(dice / 5) % 5], dice / 25 % 16 == 0};
        }
        struct admission *admission = admission_new(moves, MANY, &limits);
        for (size_t i = 0; i < MANY; i++) {
            moves[i].admitted = moves[i].admitted || by_the_rule(moves, i, &limits);
            expected[i] = moves[i].admitted ? 'y' : 'n';
            assert_int_equal(admission_ask(admission, moves[i].job_id, reason), moves[i].admitted);
        }
        admission_free(admission);
        check(moves, MANY, &limits, expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits),
        cmocka_unit_test(order),
        cmocka_unit_test(the_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
