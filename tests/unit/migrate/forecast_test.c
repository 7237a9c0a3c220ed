#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "migrate/forecast.h"

#define MB 1000000u

/* A guest of 256 MiB over a link of 100 MB/s that carries pages as they are. */
static struct forecast_input guest(enum options_mode mode, enum options_stuck stuck)
{
    return (struct forecast_input){
        .allocated_pages = 65536,
        .sample = {.full_share = 1, .packed_share = 1},
        .way = {.last_wire = 100 * MB, .last_raw = 100 * MB},
        .limits = {.max_downtime_us = 30000,
            .max_rounds = 60,
            .postcopy_next = stuck == STUCK_POSTCOPY,
            .throttle = stuck == STUCK_THROTTLE},
        .chosen = {mode, stuck},
    };
}

/* Writes `rate` pages/s at random in a working set of `set` pages: after t it has touched set (1 - exp(-rate t / set)).
 */
static void watch_random_writer(struct forecast_input *in, double rate, double set)
{
    in->points = 0;
    for (uint64_t us = 5000; us <= 2560000; us *= 2)
        in->curve[in->points++] =
            (struct forecast_point){us, (uint64_t)(set * (1 - exp(-rate * (double)us / 1e6 / set)))};
}

static void test_curve_is_read_between_its_points_and_beyond(void **state)
{
    (void)state;
    struct forecast_input in = guest(MODE_PRECOPY, STUCK_CANCEL);
    assert_true(forecast_written(&in, 1e6) == 0); /* nothing was watched */
    in.curve[0] = (struct forecast_point){10000, 100};
    in.curve[1] = (struct forecast_point){20000, 150};
    in.points = 2;
    assert_true(forecast_written(&in, 0) == 0);
    assert_true(fabs(forecast_written(&in, 5000) - 50) < 1e-6);
    assert_true(fabs(forecast_written(&in, 15000) - 125) < 1e-6);
    assert_true(fabs(forecast_written(&in, 40000) - 250) < 1e-6);
    assert_true(forecast_written(&in, 1e12) == 65536); /* no more than there is */
}

static void test_idle_guest(void **state)
{
    (void)state;
    struct forecast_input in = guest(MODE_PRECOPY, STUCK_CANCEL);
    struct forecast f;
    watch_random_writer(&in, 20, 20);
    assert_true(forecast_clear(&in));
    forecast_make(&in, &f);
    assert_int_equal(f.mode, FORECAST_PRECOPY);
    assert_in_range(f.total_us, 2600000, 2800000); /* 268 MB at 100 MB/s */
    assert_in_range(f.blackout_us, 10000, 13000);
    assert_in_range(f.wire_bytes, 268 * MB, 272 * MB);
    assert_int_equal(f.throttle_percent, 100);
    assert_non_null(strstr(f.why, "which fits the 30 ms allowed"));
}

/* What the last moves have shown goes before what is assumed: the switch, and how fast the engine is among all else. */
static void test_what_the_last_moves_took(void **state)
{
    (void)state;
    struct forecast_input in = guest(MODE_PRECOPY, STUCK_CANCEL);
    struct forecast f;
    watch_random_writer(&in, 20, 20);
    in.limits.switch_us = 18000;
    forecast_make(&in, &f);
    assert_in_range(f.blackout_us, 18000, 20000);
    in.limits.switch_us = 45000;
    forecast_make(&in, &f);
    assert_int_equal(f.mode, FORECAST_PRECOPY);
    assert_in_range(f.blackout_us, 45000, 47000);
    assert_non_null(strstr(f.why, "45 ms that switches have cost here lately"));
    assert_true(strlen(f.why) + 1 < FORECAST_WHY_MAX);

    /* Last time the engine came to half of its pace, and it is slower now; that was not for want of a link. */
    in.way =
        (struct forecast_way){.last_wire = 60 * MB, .last_raw = 200 * MB, .last_pace = 400 * MB, .link = 1250 * MB};
    in.sample.packed_share = 0.3;
    in.sample.raw_bytes_per_us = 300;
    forecast_make(&in, &f);
    assert_int_equal(f.link, LINK_SPEED);
    assert_int_equal(f.bandwidth_bytes_per_s, 150 * MB);
    assert_int_equal(f.pace_bytes_per_s, 300 * MB);
    in.way.last_pace = 2000 * MB; /* it came to a tenth: the link held it up, whatever the interface says */
    in.sample.raw_bytes_per_us = 2000;
    forecast_make(&in, &f);
    assert_int_equal(f.link, LINK_LAST_MOVE);
    assert_int_equal(f.bandwidth_bytes_per_s, 200 * MB);
}

/* What a mean rate gets wrong: 100,000 pages/s are four times the link, but they are always the same few. */
static void test_small_hot_set_converges_whatever_its_rate(void **state)
{
    (void)state;
    struct forecast_input in = guest(MODE_AUTO, STUCK_POSTCOPY);
    struct forecast f;
    watch_random_writer(&in, 100000, 400);
    forecast_make(&in, &f);
    assert_int_equal(f.mode, FORECAST_PRECOPY);
    assert_in_range(f.blackout_us, 20000, 35000);
}

/* Writes 200 MB/s, twice the link, all over 128 MiB. */
static void test_writer_above_the_link_by_policy(void **state)
{
    (void)state;
    static const struct {
        enum options_mode mode;
        enum options_stuck stuck;
        enum forecast_mode expected;
        const char *why;
    } cells[] = {
        {MODE_PRECOPY, STUCK_CANCEL, FORECAST_NONE, "it would be given up"},
        {MODE_PRECOPY, STUCK_THROTTLE, FORECAST_THROTTLE, "of its CPU time"},
        {MODE_AUTO, STUCK_THROTTLE, FORECAST_THROTTLE, "of its CPU time"},
        {MODE_PRECOPY, STUCK_POSTCOPY, FORECAST_HYBRID, "follows after the switch"},
        {MODE_AUTO, STUCK_POSTCOPY, FORECAST_HYBRID, "follows after the switch"},
        {MODE_AUTO, STUCK_CANCEL, FORECAST_NONE, "it would be given up"},
        {MODE_HYBRID, STUCK_CANCEL, FORECAST_HYBRID, "as asked"},
        {MODE_POSTCOPY, STUCK_CANCEL, FORECAST_POSTCOPY, "as asked"},
    };
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
        struct forecast_input in = guest(cells[i].mode, cells[i].stuck);
        struct forecast f;
        watch_random_writer(&in, 50000, 32768);
        assert_false(forecast_clear(&in));
        forecast_make(&in, &f);
        assert_int_equal(f.mode, cells[i].expected);
        assert_non_null(strstr(f.why, cells[i].why));
        assert_true(strlen(f.why) + 1 < FORECAST_WHY_MAX); /* not cut off */
        if (f.mode == FORECAST_NONE)
            assert_true(f.blackout_us > in.limits.max_downtime_us);
        else
            assert_true(f.blackout_us <= in.limits.max_downtime_us + 5000); /* decided by 5 ms, told with 10 */
        assert_true((f.mode == FORECAST_THROTTLE) == (f.throttle_percent < 100));
    }
    struct forecast_input early = guest(MODE_AUTO, STUCK_POSTCOPY), late = guest(MODE_PRECOPY, STUCK_POSTCOPY);
    struct forecast first, second;
    watch_random_writer(&early, 50000, 32768);
    watch_random_writer(&late, 50000, 32768);
    forecast_make(&early, &first);
    forecast_make(&late, &second);
    assert_true(first.total_us < second.total_us); /* knowing it saves the rounds that would show it */
}

/* A guest that needs a fifth of its CPU time to write as it does is not slowed down by getting half of it. */
static void test_brake_begins_where_the_cpu_time_is_used(void **state)
{
    (void)state;
    struct forecast_input in = guest(MODE_PRECOPY, STUCK_THROTTLE);
    struct forecast busy, easy;
    watch_random_writer(&in, 50000, 32768);
    in.cpu_share = 1;
    forecast_make(&in, &busy);
    in.cpu_share = 0.2;
    forecast_make(&in, &easy);
    assert_int_equal(busy.mode, FORECAST_THROTTLE);
    assert_int_equal(easy.mode, FORECAST_THROTTLE);
    assert_true(easy.throttle_percent < busy.throttle_percent && easy.throttle_percent <= 20);
}

static void test_link_by_what_is_known(void **state)
{
    (void)state;
    struct forecast_input in = guest(MODE_PRECOPY, STUCK_CANCEL);
    struct forecast f;
    in.sample.packed_share = 0.5;
    forecast_make(&in, &f);
    assert_int_equal(f.link, LINK_LAST_MOVE);
    assert_int_equal(f.bandwidth_bytes_per_s, 200 * MB); /* of RAM: half of it needs no wire */
    in.way.limit = 10 * MB;
    forecast_make(&in, &f);
    assert_int_equal(f.link, LINK_LIMIT);
    assert_int_equal(f.bandwidth_bytes_per_s, 20 * MB);
    in.way = (struct forecast_way){.link = 1250 * MB};
    forecast_make(&in, &f);
    assert_int_equal(f.link, LINK_SPEED);
    in.sample.raw_bytes_per_us = 300; /* the engine is slower than that */
    forecast_make(&in, &f);
    assert_int_equal(f.bandwidth_bytes_per_s, 120 * MB);
    in.way.last_raw = 280 * MB; /* as the last time: this says nothing about the link */
    in.way.last_wire = 5 * MB;
    in.way.last_pace = 300 * MB;
    forecast_make(&in, &f);
    assert_int_equal(f.link, LINK_SPEED);
    in.way = (struct forecast_way){0};
    forecast_make(&in, &f);
    assert_int_equal(f.link, LINK_ASSUMED);
}

/* Every writer, link, size and policy has a verdict, and none promises more than the budget. */
static void test_every_cell_has_an_end(void **state)
{
    (void)state;
    for (double rate = 10; rate < 1e7; rate *= 7)
        for (uint64_t link = 1 * MB; link < 10000ull * MB; link *= 6)
            for (double set = 10; set < 60000; set *= 9)
                for (int mode = MODE_PRECOPY; mode <= MODE_POSTCOPY; mode++)
                    for (int stuck = STUCK_CANCEL; stuck <= STUCK_THROTTLE; stuck++) {
                        struct forecast_input in = guest((enum options_mode)mode, (enum options_stuck)stuck);
                        struct forecast f;
                        in.way = (struct forecast_way){.last_wire = link, .last_raw = link};
                        watch_random_writer(&in, rate, set);
                        forecast_make(&in, &f);
                        assert_true(f.mode == FORECAST_NONE || f.blackout_us <= in.limits.max_downtime_us + 5000);
                        assert_true(f.mode != FORECAST_NONE || (mode <= MODE_AUTO && stuck != STUCK_POSTCOPY));
                        assert_true(f.rounds <= in.limits.max_rounds && f.total_us > 0 && f.wire_bytes > 0);
                    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curve_is_read_between_its_points_and_beyond),
        cmocka_unit_test(test_idle_guest),
        cmocka_unit_test(test_what_the_last_moves_took),
        cmocka_unit_test(test_small_hot_set_converges_whatever_its_rate),
        cmocka_unit_test(test_writer_above_the_link_by_policy),
        cmocka_unit_test(test_brake_begins_where_the_cpu_time_is_used),
        cmocka_unit_test(test_link_by_what_is_known),
        cmocka_unit_test(test_every_cell_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
