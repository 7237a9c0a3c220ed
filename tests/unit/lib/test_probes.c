/* The prober's arithmetic on series whose blackout is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/probes.h"

#define MS        1000000ULL
#define START     (1000 * MS)
#define PROBES    100
#define LATENCY   (MS / 4)
#define THRESHOLD (5 * MS)

static struct probe probes[PROBES];
static const struct probe *scratch[PROBES];
static struct probe_stats stats;

/* Probe i goes out at START + i ms and comes back a quarter of a millisecond later. */
static int healthy(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < PROBES; i++) {
        probes[i].sent_ns = START + i * MS;
        probes[i].answered_ns = probes[i].sent_ns + LATENCY;
    }
    return 0;
}

static void evaluate(void)
{
    probes_evaluate(probes, PROBES, MS, THRESHOLD, START + PROBES * MS, scratch, &stats);
}

static void test_healthy(void **state)
{
    (void)state;
    evaluate();
    assert_int_equal(stats.sent, PROBES);
    assert_int_equal(stats.received, PROBES);
    assert_int_equal(stats.span_count, 0);
    assert_int_equal(
        stats.blackout.length_ns, MS + LATENCY); /* the first one waits from an interval before it is sent */
    assert_int_equal(stats.send_gap_ns, MS);
    assert_int_equal(stats.rtt_median_ns, LATENCY);
}

static void test_lost(void **state)
{
    (void)state;
    for (int i = 40; i < 60; i++) {
        probes[i].answered_ns = 0;
    }
    evaluate();
    assert_int_equal(stats.received, PROBES - 20);
    assert_int_equal(stats.span_count, 1);
    assert_int_equal(stats.blackout.begin_ns, START + 39 * MS + LATENCY);
    assert_int_equal(stats.blackout.length_ns, 21 * MS);
    assert_int_equal(stats.send_gap_ns, 21 * MS);
}

static void test_queued_and_answered_late(void **state)
{
    (void)state;
    for (uint64_t i = 40; i < 60; i++) {
        probes[i].answered_ns = START + 60 * MS + LATENCY;
    }
    evaluate();
    assert_int_equal(stats.received, PROBES);
    assert_int_equal(stats.blackout.length_ns, 21 * MS);
    assert_int_equal(stats.send_gap_ns, MS);
    assert_int_equal(stats.rtt_max_ns, 20 * MS + LATENCY);
}

static void test_pause_of_the_prober(void **state)
{
    (void)state;
    for (int i = 50; i < PROBES; i++) {
        probes[i].sent_ns += 30 * MS;
        probes[i].answered_ns += 30 * MS;
    }
    probes_evaluate(probes, PROBES, MS, THRESHOLD, START + (PROBES + 30) * MS, scratch, &stats);
    assert_int_equal(stats.span_count, 0);
    assert_int_equal(stats.blackout.length_ns, MS + LATENCY);
}

static void test_single_losses_are_no_blackout(void **state)
{
    (void)state;
    for (int i = 5; i < PROBES; i += 10) {
        probes[i].answered_ns = 0;
    }
    evaluate();
    assert_int_equal(stats.span_count, 0);
    assert_int_equal(stats.blackout.length_ns, 2 * MS);
}

static void test_dark_to_the_end(void **state)
{
    (void)state;
    for (int i = 70; i < PROBES; i++) {
        probes[i].answered_ns = 0;
    }
    evaluate();
    assert_int_equal(stats.span_count, 1);
    assert_int_equal(stats.blackout.length_ns, 31 * MS - LATENCY);
}

static void test_never_answered(void **state)
{
    (void)state;
    for (int i = 0; i < PROBES; i++) {
        probes[i].answered_ns = 0;
    }
    evaluate();
    assert_int_equal(stats.received, 0);
    assert_int_equal(stats.blackout.length_ns, (PROBES + 1) * MS);
    probes_evaluate(probes, 0, MS, THRESHOLD, START, scratch, &stats);
    assert_int_equal(stats.blackout.length_ns, 0);
}

static void test_many_spans_are_counted(void **state)
{
    (void)state;
    for (int i = 0; i < PROBES; i++) {
        if (i % 10 != 0) {
            probes[i].answered_ns = 0;
        }
    }
    evaluate();
    assert_int_equal(stats.span_count, 10); /* nine between replies, one to the end */
    assert_int_equal(stats.spans[1].begin_ns, START + 10 * MS + LATENCY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_healthy, healthy),
        cmocka_unit_test_setup(test_lost, healthy),
        cmocka_unit_test_setup(test_queued_and_answered_late, healthy),
        cmocka_unit_test_setup(test_pause_of_the_prober, healthy),
        cmocka_unit_test_setup(test_single_losses_are_no_blackout, healthy),
        cmocka_unit_test_setup(test_dark_to_the_end, healthy),
        cmocka_unit_test_setup(test_never_answered, healthy),
        cmocka_unit_test_setup(test_many_spans_are_counted, healthy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
