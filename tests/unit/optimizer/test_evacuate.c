/* Emptying a host: where everything goes, in which order, and how long that takes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/optimizer/cluster.h"

static void plan_of(struct cluster *c, size_t host, struct optimizer_plan *plan)
{
    struct optimizer_settings set;
    optimizer_defaults(&set);
    optimizer_evacuate(&set, &c->input, host, plan);
}

static void everything_leaves_the_longest_first(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    cluster_init(&c);
    size_t h1 = cluster_host(&c, "h1", 4, 16, 0);
    cluster_host(&c, "h2", 4, 8, 0);
    cluster_host(&c, "h3", 4, 8, 0);
    for (int i = 0; i < 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "vm-%d", i);
        size_t vm = cluster_vm(&c, name, h1, 0.1, i < 2 ? 4 : 2, 0);
        c.vms[vm].move_cost_s = 1 + i;
    }
    c.hosts[h1].accepts = false;
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.move_count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(plan.moves[i].vm, 5 - i);
        assert_true(plan.moves[i].to != h1 && plan.moves[i].reason[0]);
    }
    cluster_apply(&c, &plan);
    for (size_t h = 1; h < 3; h++) /* 16 GiB into 2 x 8: only if the large ones were placed first */
        assert_true(cluster_used(&c, h, RESOURCE_MEMORY) <= 8 * GIB);
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.move_count, 0);
}

static void what_does_not_fit_stays_and_is_named(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    cluster_init(&c);
    size_t h1 = cluster_host(&c, "h1", 4, 16, 0);
    cluster_host(&c, "h2", 4, 4, 0);
    cluster_vm(&c, "large", h1, 0.1, 8, 0);
    cluster_vm(&c, "small", h1, 0.1, 2, 0);
    size_t held = cluster_vm(&c, "held", h1, 0.1, 1, 0);
    c.vms[held].movable = false;
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.move_count, 1);
    assert_int_equal(plan.moves[0].vm, 1);
    assert_non_null(strstr(plan.verdict, "large"));
    plan_of(&c, 7, &plan); /* no such host */
    assert_int_equal(plan.move_count, 0);
}

/* One plan does not hold a large host; plan after plan it is emptied, and none promises more than it holds. */
static void a_large_host_is_emptied_by_several_plans(void **state)
{
    (void)state;
    enum { COUNT = OPTIMIZER_MOVES_MAX + 36 };
    struct cluster c;
    struct optimizer_plan plan;
    cluster_init(&c);
    size_t h1 = cluster_host(&c, "h1", 64, 256, 0);
    cluster_host(&c, "h2", 64, 256, 0);
    for (int i = 0; i < COUNT; i++) {
        char name[8];
        snprintf(name, sizeof name, "vm-%d", i);
        cluster_vm(&c, name, h1, 0.1, i < 36 ? 1 : 2, 0);
    }
    c.hosts[h1].accepts = false;
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.move_count, OPTIMIZER_MOVES_MAX);
    assert_non_null(strstr(plan.verdict, "64 VMs have a place elsewhere; 36 more"));
    for (size_t i = 0; i < plan.move_count; i++) {
        assert_true(plan.moves[i].vm >= 36); /* the large ones */
        c.vms[plan.moves[i].vm].movable = false;
    }
    plan_of(&c, h1, &plan); /* while these are on their way */
    assert_int_equal(plan.move_count, 36);
    assert_string_equal(plan.verdict, "every VM has a place elsewhere");
    for (int i = 0; i < COUNT; i++)
        c.vms[i].movable = true;
    for (unsigned plans = 0; plans < 2; plans++) {
        plan_of(&c, h1, &plan);
        cluster_apply(&c, &plan);
    }
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_true(cluster_used(&c, h1, RESOURCE_MEMORY) == 0);
}

/* A host that cannot run a VM is none for it, however empty; a full CPU is no reason to stay. */
static void only_where_it_can_run(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    static const bool not_h2[CLUSTER_HOSTS_MAX] = {true, false, true};
    cluster_init(&c);
    size_t h1 = cluster_host(&c, "h1", 4, 16, 0);
    cluster_host(&c, "h2", 4, 16, 0);
    size_t h3 = cluster_host(&c, "h3", 1, 4, 0);
    size_t vm = cluster_vm(&c, "new-cpu", h1, 3, 2, 0);
    c.vms[vm].possible = not_h2;
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.move_count, 1);
    assert_int_equal(plan.moves[0].to, h3);
    c.hosts[h3].accepts = false;
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.move_count, 0);
    assert_non_null(strstr(plan.verdict, "h2 cannot run it"));
}

/* What takes longest is not what is largest, where the ways are not alike. */
static void the_longest_by_its_own_link_is_first(void **state)
{
    (void)state;
    struct cluster c;
    struct optimizer_plan plan;
    static const bool only_h2[CLUSTER_HOSTS_MAX] = {false, true, false},
                      only_h3[CLUSTER_HOSTS_MAX] = {false, false, true};
    cluster_init(&c);
    size_t h1 = cluster_host(&c, "h1", 4, 16, 0), h2 = cluster_host(&c, "h2", 4, 16, 0);
    size_t h3 = cluster_host(&c, "h3", 4, 16, 0);
    size_t large = cluster_vm(&c, "large", h1, 0.1, 4, 0), small = cluster_vm(&c, "small", h1, 0.1, 1, 0);
    c.vms[large].possible = only_h2;
    c.vms[small].possible = only_h3;
    c.vms[large].move_bytes = 4 * GIB;
    c.vms[small].move_bytes = GIB;
    c.hosts[h1].accepts = false;
    c.input.link_bytes_per_s = 100e6; /* assumed of both */
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.moves[0].vm, large);
    assert_true(fabs(plan.moves[0].cost_s - 3 - 4 * GIB / 100e6) < 1e-6);
    c.hosts[h1].link_bytes_per_s = c.hosts[h2].link_bytes_per_s = 1250e6;
    c.hosts[h3].link_bytes_per_s = 125e6; /* the slower end counts */
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.moves[0].vm, small);
    assert_true(fabs(plan.moves[0].cost_s - 3 - GIB / 125e6) < 1e-6);
    struct optimizer_link measured[] = {{h1, h3, 900e6}, {h1, h3, 1}, {h3, h1, 1}};
    c.input.links = measured; /* goes before what hosts say */
    c.input.link_count = 3;
    plan_of(&c, h1, &plan);
    assert_int_equal(plan.moves[0].vm, large);
    assert_true(fabs(plan.moves[1].cost_s - 3 - GIB / 900e6) < 1e-6);
}

/* --- time --- */

#define BANDWIDTH 100e6

static const struct optimizer_limits two = {2, 2, 2};

static void alone_and_together(void **state)
{
    (void)state;
    struct optimizer_transfer list[] = {
        {0, 1, 1e9, 0, BANDWIDTH}, {0, 2, 1e9, 0, BANDWIDTH}, {3, 1, 1e9, 0, BANDWIDTH}};
    assert_float_equal(optimizer_schedule(list, 0, 4, &two), 0, 1e-6);
    assert_float_equal(optimizer_schedule(list, 1, 4, &two), 10, 1e-6);
    assert_float_equal(optimizer_schedule(list, 2, 4, &two), 20, 1e-6);     /* one link out */
    assert_float_equal(optimizer_schedule(list + 1, 2, 4, &two), 10, 1e-6); /* nothing in common */
    list[1].bytes_per_s = 2 * BANDWIDTH; /* one of the two is over after 10 s, and the other goes on alone */
    assert_float_equal(optimizer_schedule(list, 2, 4, &two), 15, 1e-6);
    struct optimizer_limits none = {0, 2, 2};
    assert_float_equal(optimizer_schedule(list, 3, 4, &none), 0, 1e-6);
}

/* One at a time, the fixed part of each move leaves the link idle; two at a time, it hides behind the other's bytes. */
static void two_at_a_time_hide_what_is_not_sending(void **state)
{
    (void)state;
    struct optimizer_transfer list[8];
    struct optimizer_limits one = {1, 1, 1};
    for (size_t i = 0; i < 8; i++)
        list[i] = (struct optimizer_transfer){
            0, 1 + i % 2, i == 0 ? 2e8 : 4e8, 2, BANDWIDTH}; /* equal ones would keep step */
    assert_float_equal(optimizer_schedule(list, 8, 3, &one), 8 * 6 - 2, 1e-6);
    assert_true(optimizer_schedule(list, 8, 3, &two) < 30 * 1.2); /* 30 s of bytes */
}

/* A host that is down has as many as it may have in one list, once a second: what each pair of them costs, they cost
 * thousands of times. */
static void thousands_of_one_host(void **state)
{
    (void)state;
    enum { COUNT = 4000 };
    struct optimizer_transfer *list = calloc(COUNT, sizeof *list);
    struct optimizer_limits one = {1, 1, 1};
    assert_non_null(list);
    for (size_t i = 0; i < COUNT; i++)
        list[i] = (struct optimizer_transfer){0, 1 + i, BANDWIDTH, 1, BANDWIDTH};
    assert_float_equal(optimizer_schedule(list, COUNT, COUNT + 1, &one), 2 * COUNT, 1e-3);
    free(list);
}

static double random_share(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 11) / 9007199254740992.0;
}

/* Evacuations of every kind: planned by the optimizer, they take little longer than the bytes need on the one link. */
static void makespan_is_close_to_bytes_by_bandwidth(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t run = 1; run <= 200; run++) {
        struct cluster c;
        struct optimizer_plan plan;
        struct optimizer_transfer list[OPTIMIZER_MOVES_MAX];
        uint64_t seed = run;
        double bytes = 0;
        cluster_init(&c);
        size_t h1 = cluster_host(&c, "h1", 64, 1024, 0);
        for (int h = 0; h < 4; h++)
            cluster_host(&c, (const char *[]){"h2", "h3", "h4", "h5"}[h], 64, 512, 0);
        size_t count = 6 + (size_t)(random_share(&seed) * 40);
        for (size_t v = 0; v < count; v++) {
            char name[32];
            double gib = 0.5 + 15.5 * pow(random_share(&seed), 3);
            snprintf(name, sizeof name, "vm-%zu", v);
            c.vms[cluster_vm(&c, name, h1, 0.5, gib, 0)].move_cost_s = 1 + gib * GIB / BANDWIDTH;
        }
        c.hosts[h1].accepts = false;
        plan_of(&c, h1, &plan);
        assert_int_equal(plan.move_count, count);
        for (size_t i = 0; i < count; i++) {
            const struct optimizer_move *m = &plan.moves[i];
            list[i] = (struct optimizer_transfer){m->from, m->to, c.vms[m->vm].demand[RESOURCE_MEMORY], 1, BANDWIDTH};
            bytes += list[i].bytes;
        }
        double takes = optimizer_schedule(list, count, 5, &two), floor = bytes / BANDWIDTH;
        assert_true(takes >= floor - 1e-6);
        worst = fmax(worst, takes / floor);
    }
    print_message("makespan: at worst %.3f of bytes / bandwidth\n", worst);
    assert_true(worst < 1.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_leaves_the_longest_first),
        cmocka_unit_test(what_does_not_fit_stays_and_is_named),
        cmocka_unit_test(a_large_host_is_emptied_by_several_plans),
        cmocka_unit_test(only_where_it_can_run),
        cmocka_unit_test(the_longest_by_its_own_link_is_first),
        cmocka_unit_test(alone_and_together),
        cmocka_unit_test(two_at_a_time_hide_what_is_not_sending),
        cmocka_unit_test(thousands_of_one_host),
        cmocka_unit_test(makespan_is_close_to_bytes_by_bandwidth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
