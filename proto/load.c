#include "proto/load.h"

#include <math.h>
#include <string.h>

#define LOAD_FIELDS 6

static double sane(double value)
{
    return isfinite(value) && value > 0 ? value : 0;
}

struct load load_read(const Drover__Load *m)
{
    if (!m)
        return (struct load){0};
    return (struct load){sane(m->cpu_cores), (double)m->memory_bytes, sane(m->disk_read_iops), sane(m->disk_write_iops),
        sane(m->net_rx_bytes_per_s), sane(m->net_tx_bytes_per_s)};
}

void load_write(const struct load *load, Drover__Load *m)
{
    m->cpu_cores = load->cpu_cores;
    m->memory_bytes = load->memory_bytes < 1.8e19 ? (uint64_t)load->memory_bytes : UINT64_MAX;
    m->disk_read_iops = load->read_iops;
    m->disk_write_iops = load->write_iops;
    m->net_rx_bytes_per_s = load->rx_bytes_per_s;
    m->net_tx_bytes_per_s = load->tx_bytes_per_s;
}

struct load load_max(const struct load *a, const struct load *b)
{
    return (struct load){fmax(a->cpu_cores, b->cpu_cores), fmax(a->memory_bytes, b->memory_bytes),
        fmax(a->read_iops, b->read_iops), fmax(a->write_iops, b->write_iops),
        fmax(a->rx_bytes_per_s, b->rx_bytes_per_s), fmax(a->tx_bytes_per_s, b->tx_bytes_per_s)};
}

struct load load_add(const struct load *a, const struct load *b)
{
    return (struct load){a->cpu_cores + b->cpu_cores, a->memory_bytes + b->memory_bytes, a->read_iops + b->read_iops,
        a->write_iops + b->write_iops, a->rx_bytes_per_s + b->rx_bytes_per_s, a->tx_bytes_per_s + b->tx_bytes_per_s};
}

struct load load_less(const struct load *a, const struct load *b)
{
    struct load none = {0};
    struct load minus = {
        -b->cpu_cores, -b->memory_bytes, -b->read_iops, -b->write_iops, -b->rx_bytes_per_s, -b->tx_bytes_per_s};
    struct load sum = load_add(a, &minus);
    return load_max(&sum, &none);
}

static double approach(double from, double to, double share)
{
    return from + (to - from) * share;
}

void load_average_add(struct load_average *average, const struct load *s, uint64_t now_ms)
{
    struct load *v = &average->value;
    double share = average->at_ms ? 1.0 - exp(-(double)(now_ms - average->at_ms) / LOAD_SMOOTH_MS) : 1.0;
    *v = (struct load){approach(v->cpu_cores, s->cpu_cores, share), approach(v->memory_bytes, s->memory_bytes, share),
        approach(v->read_iops, s->read_iops, share), approach(v->write_iops, s->write_iops, share),
        approach(v->rx_bytes_per_s, s->rx_bytes_per_s, share), approach(v->tx_bytes_per_s, s->tx_bytes_per_s, share)};
    average->at_ms = now_ms;
}

void load_average_continue(struct load_average *average, const Drover__Load *smoothed, uint64_t now_ms)
{
    if (smoothed && !average->at_ms)
        *average = (struct load_average){.value = load_read(smoothed), .at_ms = now_ms};
}

/* Where the sample of `age` samples ago is. */
static size_t slot_of(const struct load_ring *ring, size_t age)
{
    return (ring->next + LOAD_SECONDS - 1 - age) % LOAD_SECONDS;
}

static void raise_to(float *peak, const float *sample)
{
    for (size_t i = 0; i < LOAD_FIELDS; i++)
        peak[i] = fmaxf(peak[i], sample[i]);
}

static struct load from_slot(const float *slot)
{
    return (struct load){slot[0], slot[1], slot[2], slot[3], slot[4], slot[5]};
}

void load_ring_add(struct load_ring *ring, const struct load *l, uint64_t now_ms)
{
    float sample[LOAD_FIELDS] = {(float)l->cpu_cores, (float)l->memory_bytes, (float)l->read_iops, (float)l->write_iops,
        (float)l->rx_bytes_per_s, (float)l->tx_bytes_per_s};
    uint64_t second = now_ms / 1000;
    if (ring->count && ring->second == second) {
        raise_to(ring->ring[slot_of(ring, 0)], sample);
        return;
    }
    memcpy(ring->ring[ring->next], sample, sizeof sample);
    ring->next = (ring->next + 1) % LOAD_SECONDS;
    ring->count += ring->count < LOAD_SECONDS;
    ring->second = second;
}

struct load load_ring_peak(const struct load_ring *ring)
{
    float peak[LOAD_FIELDS] = {0};
    for (size_t n = 0; n < ring->count; n++)
        raise_to(peak, ring->ring[n]);
    return from_slot(peak);
}

size_t load_ring_peaks(const struct load_ring *ring, Drover__Load peaks[LOAD_PEAKS_MAX])
{
    size_t count = (ring->count + LOAD_PEAK_S - 1) / LOAD_PEAK_S;
    for (size_t n = 0; n < count; n++) {
        float peak[LOAD_FIELDS] = {0};
        size_t oldest = (count - n) * LOAD_PEAK_S;
        for (size_t age = oldest - LOAD_PEAK_S; age < oldest && age < ring->count; age++)
            raise_to(peak, ring->ring[slot_of(ring, age)]);
        struct load load = from_slot(peak);
        drover__load__init(&peaks[n]);
        load_write(&load, &peaks[n]);
    }
    return count;
}

void load_ring_continue(struct load_ring *ring, Drover__Load *const *peaks, size_t count, uint64_t now_ms)
{
    if (ring->count)
        return;
    size_t known = count < LOAD_PEAKS_MAX ? count : LOAD_PEAKS_MAX;
    for (size_t n = 0; n < known * LOAD_PEAK_S; n++) {
        struct load load = load_read(peaks[count - known + n / LOAD_PEAK_S]);
        uint64_t age_ms = (known * LOAD_PEAK_S - n) * 1000;
        load_ring_add(ring, &load, now_ms > age_ms ? now_ms - age_ms : n * 1000);
    }
}
