#include "controller/fleet/samples.h"

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
    double share = average->at_ms ? 1.0 - exp(-(double)(now_ms - average->at_ms) / SAMPLES_SMOOTH_MS) : 1.0;
    *v = (struct load){approach(v->cpu_cores, s->cpu_cores, share), approach(v->memory_bytes, s->memory_bytes, share),
        approach(v->read_iops, s->read_iops, share), approach(v->write_iops, s->write_iops, share),
        approach(v->rx_bytes_per_s, s->rx_bytes_per_s, share), approach(v->tx_bytes_per_s, s->tx_bytes_per_s, share)};
    average->at_ms = now_ms;
}

void samples_add(struct samples *samples, const struct load *l, uint64_t now_ms)
{
    float sample[LOAD_FIELDS] = {(float)l->cpu_cores, (float)l->memory_bytes, (float)l->read_iops, (float)l->write_iops,
        (float)l->rx_bytes_per_s, (float)l->tx_bytes_per_s};
    uint64_t second = now_ms / 1000;
    if (samples->count && samples->second == second) {
        float *latest = samples->ring[(samples->next + SAMPLES_SECONDS - 1) % SAMPLES_SECONDS];
        for (size_t i = 0; i < LOAD_FIELDS; i++)
            latest[i] = fmaxf(latest[i], sample[i]);
        return;
    }
    memcpy(samples->ring[samples->next], sample, sizeof sample);
    samples->next = (samples->next + 1) % SAMPLES_SECONDS;
    samples->count += samples->count < SAMPLES_SECONDS;
    samples->second = second;
}

struct load samples_peak(const struct samples *samples)
{
    float peak[LOAD_FIELDS] = {0};
    for (size_t n = 0; n < samples->count; n++)
        for (size_t i = 0; i < LOAD_FIELDS; i++)
            peak[i] = fmaxf(peak[i], samples->ring[n][i]);
    return (struct load){peak[0], peak[1], peak[2], peak[3], peak[4], peak[5]};
}
