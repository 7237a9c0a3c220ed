#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "controller/foretold.h"
#include "controller/pb.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_came_of_it),
        cmocka_unit_test(test_what_a_host_wrote_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
