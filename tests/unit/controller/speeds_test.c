/* How fast memory travels between hosts: what the last migrations were acknowledged, with what shared their way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "controller/placement/speeds.h"
#include "sim.h"

#define MOVE 4 /* the step */

struct moved {
    const char *vm_id, *from, *to;
    uint64_t began_ms, ended_ms; /* on the simulation's clock */
    uint64_t raw_bytes, us;      /* of its longest round */
    uint64_t limit;
};

static void step(struct sim *sim, uint64_t id, const struct moved *m, bool ended)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    Drover__JobUpdate *update = command->job_update = pb_new(&drover__job_update__descriptor);
    Drover__StepUpdate *move = pb_new(&drover__step_update__descriptor);
    update->job_id = id;
    update->step = MOVE;
    update->state = ended ? DROVER__JOB_STATE__JOB_SUCCEEDED : DROVER__JOB_STATE__JOB_RUNNING;
    move->number = MOVE;
    move->state = ended ? DROVER__STEP_STATE__STEP_DONE : DROVER__STEP_STATE__STEP_RUNNING;
    PB_ADD(update, steps, move);
    if (ended) {
        Drover__MigrationRound *round = pb_new(&drover__migration_round__descriptor);
        round->raw_bytes = m->raw_bytes;
        round->duration_us = m->us;
        update->migration = pb_new(&drover__migration_record__descriptor);
        pb_string(&update->migration->from_host, m->from);
        pb_string(&update->migration->to_host, m->to);
        PB_ADD(update->migration, rounds, round);
    }
    sim->now_ms = ended ? m->ended_ms : m->began_ms;
    assert_null(sim_apply(sim, command, NULL));
}

/* Moves that have been, in the order in which they were made. */
static void history(struct sim *sim, const struct moved *moves, size_t count)
{
    uint64_t ids[8];
    assert_true(count <= sizeof ids / sizeof *ids);
    for (size_t i = 0; i < count; i++) {
        Drover__JobCreate *create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, moves[i].vm_id, moves[i].to, false);
        char id[32];
        snprintf(id, sizeof id, "m-%zu-%llu", i, (unsigned long long)moves[i].began_ms);
        pb_string(&create->data->migration_id, id);
        create->data->options = pb_new(&drover__migration_options__descriptor);
        create->data->options->bandwidth_bytes_per_s = moves[i].limit;
        ids[i] = sim_job(sim, create);
    }
    for (size_t i = 0; i < count; i++)
        step(sim, ids[i], &moves[i], false);
    for (size_t i = 0; i < count; i++)
        step(sim, ids[i], &moves[i], true);
}

/* 0: not known. In MB/s, as the newest says. */
static double between(struct sim *sim, const char *from, const char *to)
{
    struct speeds *speeds = speeds_read(sim->state);
    struct speed speed;
    double found = 0;
    for (size_t i = 0; speeds_at(speeds, i, &speed) && found == 0; i++)
        if (strcmp(speed.from, from) == 0 && strcmp(speed.to, to) == 0)
            found = speed.bytes_per_s / 1e6;
    speeds_free(speeds);
    return found;
}

static void begin(struct sim *sim)
{
    sim_open(sim);
    sim_running_vm(sim, "vm-1", "a");
    sim_running_vm(sim, "vm-2", "b");
    sim_running_vm(sim, "vm-3", "c");
}

static void the_newest_that_tells_counts(void **unused)
{
    (void)unused;
    struct sim sim;
    begin(&sim);
    assert_float_equal(between(&sim, "h1", "h2"), 0, 0);
    struct moved first = {"vm-1", "h1", "h2", 2000, 3000, 50000000, 1000000, 0};
    history(&sim, &first, 1);
    assert_float_equal(between(&sim, "h1", "h2"), 50, 1e-6);
    assert_float_equal(between(&sim, "h2", "h1"), 0, 0);
    assert_float_equal(between(&sim, "h1", "h3"), 0, 0);
    struct moved faster = {"vm-1", "h1", "h2", 4000, 5000, 80000000, 1000000, 0};
    history(&sim, &faster, 1);
    assert_float_equal(between(&sim, "h1", "h2"), 80, 1e-6);
    struct moved limited = {"vm-1", "h1", "h2", 6000, 7000, 20000000, 1000000, 20000000};
    struct moved tiny = {"vm-1", "h1", "h2", 8000, 8100, 1000000, 1000, 0};
    history(&sim, &limited, 1);
    history(&sim, &tiny, 1);
    assert_float_equal(between(&sim, "h1", "h2"), 80, 1e-6);
    sim_close(&sim);
}

/* Two at a time had half of the link each: a third, that had half of the time of one of them, counts by that. */
static void what_others_took_is_counted_in(void **unused)
{
    (void)unused;
    struct sim sim;
    begin(&sim);
    const struct moved both[] = {
        {"vm-1", "h1", "h2", 10000, 20000, 50000000, 1000000, 0},
        {"vm-2", "h1", "h3", 10000, 20000, 40000000, 1000000, 0},
        {"vm-3", "h1", "h3", 15000, 20000, 20000000, 1000000, 20000000},
    };
    history(&sim, both, 3);
    assert_float_equal(between(&sim, "h1", "h2"), 50 * 2.5, 1e-6);
    assert_float_equal(between(&sim, "h1", "h3"), 40 * 2.5, 1e-6);
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_that_tells_counts),
        cmocka_unit_test(what_others_took_is_counted_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
