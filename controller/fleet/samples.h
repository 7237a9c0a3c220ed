/* What a host or a VM used, over time: a ring of one sample a second for ten minutes, and a smoothed present value.
 * Pure. */
#ifndef CONTROLLER_FLEET_SAMPLES_H
#define CONTROLLER_FLEET_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "proto/types.pb-c.h"

#define SAMPLES_SECONDS   600
#define SAMPLES_SMOOTH_MS 10000.0

struct load {
    double cpu_cores, memory_bytes, read_iops, write_iops, rx_bytes_per_s, tx_bytes_per_s;
};

/* Foreign numbers made sane: what is not finite or negative counts as nothing. NULL: nothing. */
struct load load_read(const Drover__Load *message);
void load_write(const struct load *load, Drover__Load *message);
struct load load_max(const struct load *a, const struct load *b);
struct load load_add(const struct load *a, const struct load *b);
/* a - b, but never less than nothing. */
struct load load_less(const struct load *a, const struct load *b);

/* Exponentially weighted: after SAMPLES_SMOOTH_MS a step has come through by 63 %. `first` takes the sample as it is.
 */
struct load_average {
    struct load value;
    uint64_t at_ms; /* 0: nothing yet */
};
void load_average_add(struct load_average *average, const struct load *sample, uint64_t now_ms);

/* 14 KiB: single precision is enough for peaks. */
struct samples {
    float ring[SAMPLES_SECONDS][6];
    size_t count, next;
    uint64_t second; /* of the latest sample */
};
/* Within one second the higher values count. */
void samples_add(struct samples *samples, const struct load *load, uint64_t now_ms);
struct load samples_peak(const struct samples *samples);

#endif
