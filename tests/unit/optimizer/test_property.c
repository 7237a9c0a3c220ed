/* What must hold for any cluster, tried on thousands of seeded ones. A failure prints the seed. */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/optimizer/cluster.h"

#define SEEDS 2000

static void check(bool holds, uint64_t seed, const char *what)
{
    if (!holds)
        fail_msg("seed %" PRIu64 ": %s (DROVER_SEED=%" PRIu64 " replays it alone)", seed, what, seed);
}

/* The plan replayed move by move on a copy, judged without the optimizer's own arithmetic. */
static void check_moves(const struct cluster *before, const struct optimizer_settings *set,
    const struct optimizer_plan *plan, uint64_t seed, struct cluster *after)
{
    bool moved[CLUSTER_VMS_MAX] = {false};
    *after = *before;
    after->input.hosts = after->hosts;
    after->input.vms = after->vms;
    for (size_t m = 0; m < plan->move_count; m++) {
        const struct optimizer_move *move = &plan->moves[m];
        struct optimizer_vm *vm = &after->vms[move->vm];
        double imbalance = optimizer_imbalance(&after->input);
        check(
            vm->host == move->from && move->from != move->to, seed, "a move starts where the VM is and goes elsewhere");
        check(vm->movable && !moved[move->vm], seed, "only what may move moves, and once");
        check(
            vm->moved_ms == 0 || before->input.now_ms - vm->moved_ms >= set->rest_ms, seed, "a VM rests after a move");
        check(before->hosts[move->to].accepts, seed, "the target accepts");
        vm->host = move->to;
        moved[move->vm] = true;
        for (int r = 0; r < RESOURCE_COUNT; r++)
            check(cluster_utilization(after, move->to, (enum resource)r) <= fmin(set->high[r], 1) + 1e-9, seed,
                "no target above high or its capacity at any moment");
        check(move->gain > 0, seed, "a move gains");
        check(fabs(imbalance - optimizer_imbalance(&after->input) - move->gain) < 1e-6, seed,
            "the gain is what it is said to be");
        check(move->reason[0] && move->runner_up[0], seed, "a move has its reason");
    }
    check(fabs(optimizer_imbalance(&after->input) - plan->imbalance_after) < 1e-6, seed,
        "imbalance after is as foretold");
}

static void check_hosts(
    const struct cluster *before, const struct cluster *after, const struct optimizer_settings *set, uint64_t seed)
{
    for (size_t h = 0; h < before->input.host_count; h++)
        for (int i = 0; i < RESOURCE_COUNT; i++) {
            enum resource r = (enum resource)i;
            double was = cluster_utilization(before, h, r), is = cluster_utilization(after, h, r);
            check(is <= set->high[r] + 1e-9 || is <= was + 1e-9, seed, "no host is pushed above high");
        }
}

static size_t check_seed(uint64_t seed)
{
    struct cluster before, after;
    struct optimizer_settings set;
    struct optimizer_plan plan, again, second;
    optimizer_defaults(&set);
    set.max_moves = OPTIMIZER_MOVES_MAX;
    cluster_random(&before, seed);

    memset(&plan, 0x55, sizeof plan); /* what was there before must not matter */
    memset(&again, 0xaa, sizeof again);
    optimizer_plan(NULL, &set, &before.input, true, &plan);
    optimizer_plan(NULL, &set, &before.input, true, &again);
    check(memcmp(&plan, &again, sizeof plan) == 0, seed, "the same input gives the same plan");
    check(plan.imbalance_after <= plan.imbalance_before + 1e-9, seed, "a plan evens out");
    check_moves(&before, &set, &plan, seed, &after);
    check_hosts(&before, &after, &set, seed);

    if (plan.move_count < set.max_moves) {
        cluster_apply(&after, &plan);
        optimizer_plan(NULL, &set, &after.input, true, &second);
        check(second.move_count == 0, seed, "the second run plans nothing");
    }
    return plan.move_count;
}

static void any_cluster_keeps_the_rules(void **state)
{
    (void)state;
    const char *only = getenv("DROVER_SEED");
    size_t moves = 0;
    if (only) {
        check_seed(strtoull(only, NULL, 10));
        return;
    }
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        moves += check_seed(seed);
    print_message("%d clusters, %zu moves\n", SEEDS, moves);
    assert_true(moves > SEEDS); /* else nothing was tried */
}

/* The same, but hot by observation and with hysteresis: what has once been relieved stays put for ever. */
static void a_watched_cluster_comes_to_rest(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct cluster c;
        struct optimizer_settings set;
        struct optimizer_plan plan;
        optimizer_defaults(&set);
        set.max_moves = OPTIMIZER_MOVES_MAX;
        cluster_random(&c, seed);
        for (size_t v = 0; v < c.input.vm_count; v++)
            c.vms[v].moved_ms = 0;
        struct optimizer_memory *memory = optimizer_memory_new();
        size_t plans = 0;
        for (int second = 0; second < 270; second++, c.input.now_ms += 1000) {
            optimizer_observe(memory, &set, &c.input);
            optimizer_plan(memory, &set, &c.input, false, &plan);
            check(second >= 20 || plan.move_count == 0, seed, "nothing moves before the hold time");
            plans += plan.move_count > 0;
            cluster_apply(&c, &plan);
        }
        /* Rested VMs may make a second plan possible where the first was not enough, never a third. */
        check(plans <= 2, seed, "an unchanging cluster comes to rest");
        optimizer_memory_free(memory);
    }
}

static void a_placed_vm_has_its_memory(void **state)
{
    (void)state;
    char reason[OPTIMIZER_TEXT_MAX];
    struct optimizer_settings set;
    optimizer_defaults(&set);
    size_t placed = 0, refused = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct cluster c;
        cluster_random(&c, seed);
        if (c.input.vm_count == 0)
            continue;
        c.vms[0].host = SIZE_MAX;
        size_t host = optimizer_place(&set, &c.input, 0, SIZE_MAX, reason);
        check(reason[0] != 0, seed, "a placement has its reason");
        for (size_t h = 0; h < c.input.host_count; h++) {
            double with = cluster_used(&c, h, RESOURCE_MEMORY) + c.vms[0].demand[RESOURCE_MEMORY];
            bool room = c.hosts[h].accepts && with <= c.hosts[h].capacity[RESOURCE_MEMORY];
            check(h != host || room, seed, "memory is hard");
            check(host != SIZE_MAX || !room, seed, "what has room is found");
        }
        *(host == SIZE_MAX ? &refused : &placed) += 1;
    }
    assert_true(placed > 0 && refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cluster_keeps_the_rules),
        cmocka_unit_test(a_watched_cluster_comes_to_rest),
        cmocka_unit_test(a_placed_vm_has_its_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
