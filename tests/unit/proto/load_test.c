/* Ten minutes of loads: their peaks, and how they are handed on. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/buf.h"
#include "proto/load.h"

static void peak_covers_ten_minutes(void **unused)
{
    (void)unused;
    struct load_ring *ring = mem_zalloc(sizeof *ring);
    struct load high = {.cpu_cores = 8}, low = {.cpu_cores = 1, .rx_bytes_per_s = 5};
    uint64_t now = 5000;
    load_ring_add(ring, &high, now);
    load_ring_add(ring, &low, now + 10); /* the same second */
    for (int i = 1; i < LOAD_SECONDS; i++)
        load_ring_add(ring, &low, now + (uint64_t)i * 1000);
    assert_float_equal(load_ring_peak(ring).cpu_cores, 8, 0);
    assert_float_equal(load_ring_peak(ring).rx_bytes_per_s, 5, 0);
    load_ring_add(ring, &low, now + LOAD_SECONDS * 1000);
    assert_float_equal(load_ring_peak(ring).cpu_cores, 1, 0);
    free(ring);
}

/* `seconds` of samples, of which number n shows n cores. */
static struct load_ring *rising(size_t seconds)
{
    struct load_ring *ring = mem_zalloc(sizeof *ring);
    for (size_t n = 0; n < seconds; n++) {
        struct load load = {.cpu_cores = (double)n};
        load_ring_add(ring, &load, 1000000 + n * 1000);
    }
    return ring;
}

static void peaks_come_oldest_first_and_are_complete(void **unused)
{
    (void)unused;
    const size_t seconds[] = {0, 1, LOAD_PEAK_S, LOAD_PEAK_S + 3, LOAD_SECONDS, LOAD_SECONDS + 7};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        struct load_ring *ring = rising(seconds[i]);
        Drover__Load peaks[LOAD_PEAKS_MAX];
        size_t kept = seconds[i] < LOAD_SECONDS ? seconds[i] : LOAD_SECONDS;
        size_t count = load_ring_peaks(ring, peaks);
        assert_int_equal(count, (kept + LOAD_PEAK_S - 1) / LOAD_PEAK_S);
        for (size_t n = 0; n < count; n++)
            assert_float_equal(peaks[count - 1 - n].cpu_cores, (double)(seconds[i] - 1 - n * LOAD_PEAK_S), 0);
        free(ring);
    }
}

static void a_history_goes_on_elsewhere(void **unused)
{
    (void)unused;
    struct load_ring *there = rising(LOAD_SECONDS), *here = mem_zalloc(sizeof *here);
    Drover__Load peaks[LOAD_PEAKS_MAX], *list[LOAD_PEAKS_MAX];
    size_t count = load_ring_peaks(there, peaks);
    for (size_t n = 0; n < count; n++)
        list[n] = &peaks[n];
    load_ring_continue(here, list, count, 5000000);
    assert_int_equal(here->count, LOAD_SECONDS);
    assert_float_equal(load_ring_peak(here).cpu_cores, LOAD_SECONDS - 1, 0);
    /* it ages like samples of its own: after five minutes only the later half counts, then nothing of it */
    struct load none = {0};
    for (size_t n = 0; n < LOAD_SECONDS; n++) {
        assert_float_equal(load_ring_peak(here).cpu_cores, LOAD_SECONDS - 1, 0);
        load_ring_add(here, &none, 5000000 + n * 1000);
    }
    assert_float_equal(load_ring_peak(here).cpu_cores, 0, 0);
    free(there);
    free(here);
}

static void what_is_known_is_not_replaced(void **unused)
{
    (void)unused;
    struct load_ring *ring = rising(1);
    Drover__Load load = DROVER__LOAD__INIT, *list[] = {&load};
    struct load_average average = {0};
    load.cpu_cores = 64;
    load_ring_continue(ring, list, 1, 2000000);
    assert_int_equal(ring->count, 1);
    load_average_continue(&average, NULL, 1000);
    assert_int_equal(average.at_ms, 0);
    load_average_continue(&average, &load, 1000);
    assert_float_equal(average.value.cpu_cores, 64, 0);
    load.cpu_cores = 1;
    load_average_continue(&average, &load, 2000);
    assert_float_equal(average.value.cpu_cores, 64, 0);
    free(ring);
}

static void a_foreign_history_is_bounded(void **unused)
{
    (void)unused;
    struct load_ring *ring = mem_zalloc(sizeof *ring);
    static Drover__Load loads[LOAD_PEAKS_MAX * 3], *list[LOAD_PEAKS_MAX * 3];
    for (size_t i = 0; i < LOAD_PEAKS_MAX * 3; i++) {
        drover__load__init(&loads[i]);
        loads[i].cpu_cores = i < LOAD_PEAKS_MAX * 2 ? 1000 : i % 2 ? NAN : -1;
        list[i] = &loads[i];
    }
    load_ring_continue(ring, list, LOAD_PEAKS_MAX * 3, 0);
    assert_int_equal(ring->count, LOAD_SECONDS);
    assert_float_equal(load_ring_peak(ring).cpu_cores, 0, 0);
    free(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peak_covers_ten_minutes),
        cmocka_unit_test(peaks_come_oldest_first_and_are_complete),
        cmocka_unit_test(a_history_goes_on_elsewhere),
        cmocka_unit_test(what_is_known_is_not_replaced),
        cmocka_unit_test(a_foreign_history_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
