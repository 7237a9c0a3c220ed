#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

#include "controller/foretold.h"
#include "sim.h"

static void test_what_came_of_it(void **unused)
{
    (void)unused;
    Drover__MigrationForecast forecast = DROVER__MIGRATION_FORECAST__INIT;
    Drover__MigrationRecord record = DROVER__MIGRATION_RECORD__INIT;
    struct foretold_ratios ratios;
    assert_false(foretold_compare(&record, &ratios));
    record.forecast = &forecast;
    forecast.mode = (char[]){"precopy"};
    forecast.total_us = 1000;
    forecast.wire_bytes = 400;
    record.total_us = 2000;
    record.wire_bytes = 100;
    assert_true(foretold_compare(&record, &ratios));
    assert_true(ratios.duration == 2 && ratios.bytes == 0.25 && ratios.blackout == 0);
    record.source_hash = (char[]){"1234"};
    assert_false(foretold_compare(&record, &ratios));
    record.source_hash = (char *)protobuf_c_empty_string;
    forecast.mode = (char[]){"none"}; /* it said how long the attempt would take, not the move */
    assert_false(foretold_compare(&record, &ratios));
}

static void test_what_a_host_wrote_is_cut(void **unused)
{
    (void)unused;
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    Drover__MigrationForecast *forecast = pb_new(&drover__migration_forecast__descriptor);
    pb_string(&forecast->mode, text);
    pb_string(&forecast->link, text);
    pb_string(&forecast->why, text);
    for (int i = 0; i < 1000; i++)
        PB_ADD(forecast, curve, pb_new(&drover__migration_forecast_point__descriptor));
    foretold_bound(forecast);
    foretold_bound(NULL);
    assert_true(drover__migration_forecast__get_packed_size(forecast) < 600);
    pb_free(forecast);
}

/* A move of the VM from h1 to `to` that has ended: `dark_us` without its last pages, which took 3 ms. */
static void moved_as(struct sim *sim, const char *vm_id, const char *to, uint64_t dark_us, bool verified)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    Drover__JobUpdate *update = command->job_update = pb_new(&drover__job_update__descriptor);
    update->job_id = sim_job(sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, vm_id, to, false));
    update->state = DROVER__JOB_STATE__JOB_SUCCEEDED;
    Drover__MigrationRecord *record = update->migration = pb_new(&drover__migration_record__descriptor);
    pb_string(&record->from_host, "h1");
    pb_string(&record->to_host, to);
    record->blackout_us = dark_us + 3000;
    record->last_pages_us = 3000;
    if (verified)
        pb_string(&record->source_hash, "1234");
    assert_null(sim_apply(sim, command, NULL));
}

static void moved(struct sim *sim, const char *vm_id, const char *to, uint64_t dark_us)
{
    moved_as(sim, vm_id, to, dark_us, false);
}

static uint64_t switch_us(struct sim *sim, const char *vm_id, const char *to)
{
    cleanup_pb Drover__LinkHistory *way = foretold_way(sim->state, vm_id, "h1", to);
    return way ? way->switch_us : 0;
}

/* Typical of the last few between these hosts; a VM's own go before others'. */
static void test_what_switches_took(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    sim_running_vm(&sim, "vm-2", "web-2");
    assert_null(foretold_way(sim.state, "vm-1", "h1", "h2"));
    for (int i = 0; i < 5; i++)
        moved(&sim, "vm-1", "h2", 90000); /* long ago */
    for (int i = 0; i < 4; i++)
        moved(&sim, "vm-1", "h2", 11000 + (uint64_t)i);
    moved(&sim, "vm-1", "h2", 70000); /* a busy moment */
    assert_int_equal(switch_us(&sim, "vm-1", "h2"), 11002);
    assert_int_equal(switch_us(&sim, "vm-2", "h2"), 11002); /* another's, for want of its own */
    assert_int_equal(switch_us(&sim, "vm-1", "h3"), 0);
    moved_as(&sim, "vm-2", "h2", 150000, true);
    assert_int_equal(switch_us(&sim, "vm-2", "h2"), 11002);
    moved(&sim, "vm-2", "h2", 20000);
    assert_int_equal(switch_us(&sim, "vm-2", "h2"), 20000);
    assert_int_equal(switch_us(&sim, "vm-1", "h2"), 11002);
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_came_of_it),
        cmocka_unit_test(test_what_a_host_wrote_is_cut),
        cmocka_unit_test(test_what_switches_took),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
