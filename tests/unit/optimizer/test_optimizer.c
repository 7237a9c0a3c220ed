/* The optimizer on clusters small enough to judge by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/optimizer/cluster.h"

static struct optimizer_settings set;

static int defaults(void **state)
{
    (void)state;
    optimizer_defaults(&set);
    return 0;
}

/* h1 with 92 % of its two cores, h2 with 24 %, h3 with 60 %. */
static void make_hot(struct cluster *c)
{
    cluster_init(c);
    size_t h1 = cluster_host(c, "h1", 2, 8, 0), h2 = cluster_host(c, "h2", 2, 8, 0),
           h3 = cluster_host(c, "h3", 2, 8, 0);
    cluster_vm(c, "web-1", h1, 0.5, 1, 0);
    cluster_vm(c, "web-2", h1, 0.52, 1, 0);
    cluster_vm(c, "web-3", h1, 0.82, 1, 0);
    cluster_vm(c, "db-1", h2, 0.48, 1, 0);
    cluster_vm(c, "db-2", h3, 1.2, 1, 0);
}

static void observe_for(struct optimizer_memory *memory, struct cluster *c, int seconds)
{
    for (int s = 0; s < seconds; s++, c->input.now_ms += 1000)
        optimizer_observe(memory, &set, &c->input);
}

static void relieves_a_hot_host(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    make_hot(&c);
    struct optimizer_memory *memory = optimizer_memory_new();
    observe_for(memory, &c, 25);
    optimizer_plan(memory, &set, &c.input, false, &plan);
    assert_int_equal(plan.move_count, 1);
    assert_int_equal(plan.moves[0].vm, 2); /* the only one that brings it below 60 % alone */
    assert_int_equal(plan.moves[0].from, 0);
    assert_int_equal(plan.moves[0].to, 1);
    assert_string_equal(plan.moves[0].reason,
        "h1 has used 92 % of its CPU for 25 s; moving web-3 (0.82 cores) to h2 brings it to 51 % and h2 to 65 %");
    assert_string_equal(plan.moves[0].runner_up, "moving web-2 to h2 would bring h1 only to 66 % (60 % is wanted)");
    assert_string_equal(plan.verdict, "after 1 move no host is hot; the fullest is h2 with 65 % of its CPU");
    assert_true(plan.imbalance_after < plan.imbalance_before);

    cluster_apply(&c, &plan);
    observe_for(memory, &c, 60);
    optimizer_plan(memory, &set, &c.input, false, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_string_equal(plan.verdict, "nothing to do: no host is hot; the fullest is h2 with 65 % of its CPU");
    optimizer_memory_free(memory);
}

static void every_resource_counts(void **state)
{
    (void)state;
    static const char *const words[] = {"92 % of its CPU", "92 % of its memory", "92 % of its IOPS"};
    for (int r = 0; r < RESOURCE_COUNT; r++) {
        struct cluster c;
        struct optimizer_plan plan;
        cluster_init(&c);
        for (int h = 0; h < 2; h++) {
            cluster_host(&c, h ? "h2" : "h1", 0, 0, 0);
            c.hosts[h].capacity[r] = 100;
        }
        for (int v = 0; v < 4; v++) {
            cluster_vm(&c, "vm", 0, 0, 0, 0);
            c.vms[v].demand[r] = 23;
        }
        optimizer_plan(NULL, &set, &c.input, true, &plan);
        assert_true(plan.move_count >= 1);
        assert_non_null(strstr(plan.moves[0].reason, words[r]));
    }
}

static void holds_before_it_acts(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    uint64_t for_ms;
    make_hot(&c);
    struct optimizer_memory *memory = optimizer_memory_new();
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_BALANCED);
    observe_for(memory, &c, 10);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_WATCHING);
    assert_int_equal(for_ms, 10000);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 1, &for_ms), VERDICT_BALANCED);
    optimizer_plan(memory, &set, &c.input, false, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_string_equal(plan.verdict, "watching h1: 92 % of its CPU for 10 s; it is hot after 20 s");
    optimizer_plan(memory, &set, &c.input, true, &plan); /* a user asks */
    assert_int_equal(plan.move_count, 1);

    c.vms[2].demand[RESOURCE_CPU] = 0.1; /* one quiet sample, and the watch begins anew */
    observe_for(memory, &c, 1);
    c.vms[2].demand[RESOURCE_CPU] = 0.82;
    observe_for(memory, &c, 15);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_WATCHING);
    observe_for(memory, &c, 5);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_HOT);
    optimizer_memory_free(memory);
}

static void stays_hot_until_below_low(void **state)
{
    (void)state;
    struct cluster c;
    uint64_t for_ms;
    make_hot(&c);
    struct optimizer_memory *memory = optimizer_memory_new();
    observe_for(memory, &c, 21);
    c.vms[2].demand[RESOURCE_CPU] = 0.40; /* 71 %: below high, above low */
    observe_for(memory, &c, 5);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_HOT);
    assert_int_equal(for_ms, 26000);
    c.vms[2].demand[RESOURCE_CPU] = 0.10; /* 56 % */
    observe_for(memory, &c, 1);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_BALANCED);
    assert_int_equal(for_ms, 0);
    c.vms[2].demand[RESOURCE_CPU] = 0.40; /* 71 % again: not above high, so not even watched */
    observe_for(memory, &c, 60);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_BALANCED);
    optimizer_memory_free(memory);
}

static void a_gap_or_a_clock_gone_back_starts_anew(void **state)
{
    (void)state;
    struct cluster c;
    uint64_t for_ms;
    make_hot(&c);
    struct optimizer_memory *memory = optimizer_memory_new();
    observe_for(memory, &c, 15);
    c.input.now_ms += 60000;
    observe_for(memory, &c, 1);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_WATCHING);
    assert_int_equal(for_ms, 1000);
    observe_for(memory, &c, 25);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_HOT);
    c.input.now_ms = 5000;
    observe_for(memory, &c, 1);
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_WATCHING);

    c.input.host_count = 0; /* a host that left is forgotten */
    observe_for(memory, &c, 1);
    c.input.host_count = 3;
    assert_int_equal(optimizer_verdict(memory, &set, &c.input, 0, &for_ms), VERDICT_BALANCED);
    optimizer_memory_free(memory);
}

static void what_moved_rests(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    make_hot(&c);
    for (size_t v = 0; v < 3; v++)
        c.vms[v].moved_ms = c.input.now_ms - 60000;
    optimizer_plan(NULL, &set, &c.input, true, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_non_null(strstr(plan.verdict, "of its 3 VMs 0 cannot move, 3 moved lately"));
    c.input.now_ms += 60000;
    optimizer_plan(NULL, &set, &c.input, true, &plan);
    assert_int_equal(plan.move_count, 1);
}

static void cheap_moves_come_first(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    make_hot(&c);
    c.vms[4].demand[RESOURCE_CPU] = 0.6;
    c.vms[2].move_cost_s = 600; /* the one that would do alone is dear: two small ones instead */
    optimizer_plan(NULL, &set, &c.input, true, &plan);
    assert_int_equal(plan.move_count, 2);
    assert_int_equal(plan.moves[0].vm, 1);
    assert_int_equal(plan.moves[1].vm, 0);
    assert_non_null(strstr(plan.moves[1].reason, "h1 would still use 66 % of its CPU"));
    set.max_moves = 1;
    optimizer_plan(NULL, &set, &c.input, true, &plan);
    assert_int_equal(plan.move_count, 1);
    assert_string_equal(plan.verdict, "stopped at the limit of 1 move; h1 would still use 66 % of its CPU");
}

static void no_room_means_no_move(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    make_hot(&c);
    c.hosts[1].accepts = false;
    for (size_t v = 0; v < 3; v++)
        c.vms[v].demand[RESOURCE_MEMORY] = 2 * GIB;
    c.hosts[2].capacity[RESOURCE_MEMORY] = 3 * GIB; /* 1 used, 2 free: full is above 90 % */
    optimizer_plan(NULL, &set, &c.input, true, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_string_equal(plan.verdict,
        "h1 uses 92 % of its CPU, but no move is worth it: of its 3 VMs 0 cannot move, 0 moved "
        "lately, for 3 no host has room, 0 would gain too little");
}

static void empty_and_small(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    char reason[OPTIMIZER_TEXT_MAX];
    struct optimizer_input nothing = {0};
    struct optimizer_memory *memory = optimizer_memory_new();
    optimizer_observe(memory, &set, &nothing);
    optimizer_plan(memory, &set, &nothing, true, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_string_equal(plan.verdict, "nothing to balance: no host has reported what it can do");
    assert_int_equal(optimizer_place(&set, &nothing, 0, SIZE_MAX, reason), SIZE_MAX);
    assert_true(optimizer_imbalance(&nothing) == 0);
    optimizer_memory_free(memory);
    optimizer_memory_free(NULL);

    cluster_init(&c);
    cluster_host(&c, "h1", 1, 1, 0);
    cluster_vm(&c, "vm1", 0, 0.99, 0.1, 0);
    optimizer_plan(NULL, &set, &c.input, true, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_true(optimizer_imbalance(&c.input) == 0);
}

static void absurd_figures_move_nothing(void **state)
{
    (void)state;
    static const double absurd[] = {NAN, -NAN, INFINITY, -INFINITY, -1, 1e300, -1e300};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++)
        for (int r = 0; r < RESOURCE_COUNT; r++) {
            struct cluster c;
            struct optimizer_plan plan;
            char reason[OPTIMIZER_TEXT_MAX];
            make_hot(&c);
            c.vms[2].demand[r] = absurd[i];
            optimizer_plan(NULL, &set, &c.input, true, &plan);
            for (size_t m = 0; m < plan.move_count; m++)
                assert_int_not_equal(plan.moves[m].vm, 2);
            assert_true(isfinite(plan.imbalance_before) && isfinite(plan.imbalance_after));
            assert_int_equal(optimizer_place(&set, &c.input, 2, SIZE_MAX, reason), SIZE_MAX);

            make_hot(&c);
            c.hosts[1].capacity[r] = absurd[i];
            c.vms[2].move_cost_s = absurd[i];
            optimizer_plan(NULL, &set, &c.input, true, &plan);
            for (size_t m = 0; m < plan.move_count; m++)
                assert_int_not_equal(plan.moves[m].to, 1);
        }
    struct cluster c;
    struct optimizer_plan plan;
    make_hot(&c);
    c.vms[2].host = 77;                               /* a host that is not there */
    c.vms[1].moved_ms = UINT64_MAX;                   /* in times to come */
    memset(c.hosts[0].name, 'x', OPTIMIZER_NAME_MAX); /* no end */
    memset(c.vms[0].name, 'y', OPTIMIZER_NAME_MAX);
    c.hosts[0].overhead[RESOURCE_CPU] = 1;
    struct optimizer_settings odd = {
        .high = {NAN, -1, 0}, .low = {INFINITY, 5, -3}, .min_gain = NAN, .max_moves = SIZE_MAX};
    struct optimizer_memory *memory = optimizer_memory_new();
    optimizer_observe(memory, &odd, &c.input);
    optimizer_plan(memory, &odd, &c.input, false, &plan); /* hold_ms 0: hot at once */
    assert_int_equal(plan.move_count, 1);
    assert_int_equal(plan.moves[0].vm, 0);
    optimizer_memory_free(memory);
}

static void places_where_most_room_is(void **state)
{
    (void)state;
    struct cluster c;
    char reason[OPTIMIZER_TEXT_MAX];
    make_hot(&c);
    size_t vm = cluster_vm(&c, "new", SIZE_MAX, 0.5, 1, 0);
    assert_int_equal(optimizer_place(&set, &c.input, vm, SIZE_MAX, reason), 1);
    assert_string_equal(reason, "h2 has most room: with new it uses 49 % of its CPU and 25 % of its memory");
    assert_int_equal(optimizer_place(&set, &c.input, vm, 1, reason), 2);
    assert_string_equal(reason,
        "h3 has most room: with new it uses 85 % of its CPU and 25 % of its memory, which is above its "
        "threshold, but no host has more room");
    c.hosts[2].accepts = false;
    assert_int_equal(optimizer_place(&set, &c.input, vm, 1, reason), 0); /* CPU is shared in time ... */
    assert_non_null(strstr(reason, "more than it has"));
    c.vms[vm].demand[RESOURCE_MEMORY] = 7.5 * GIB; /* ... memory is not */
    assert_int_equal(optimizer_place(&set, &c.input, vm, SIZE_MAX, reason), SIZE_MAX);
    assert_string_equal(reason,
        "no host has room for new (7.5 GiB): h1 has 5.0 GiB of memory free, h2 has 7.0 GiB of memory "
        "free, h3 takes no VMs now");
    assert_int_equal(optimizer_place(&set, &c.input, 99, SIZE_MAX, reason), SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(relieves_a_hot_host, defaults),
        cmocka_unit_test_setup(every_resource_counts, defaults),
        cmocka_unit_test_setup(holds_before_it_acts, defaults),
        cmocka_unit_test_setup(stays_hot_until_below_low, defaults),
        cmocka_unit_test_setup(a_gap_or_a_clock_gone_back_starts_anew, defaults),
        cmocka_unit_test_setup(what_moved_rests, defaults),
        cmocka_unit_test_setup(cheap_moves_come_first, defaults),
        cmocka_unit_test_setup(no_room_means_no_move, defaults),
        cmocka_unit_test_setup(empty_and_small, defaults),
        cmocka_unit_test_setup(absurd_figures_move_nothing, defaults),
        cmocka_unit_test_setup(places_where_most_room_is, defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
