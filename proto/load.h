/* What a host or a VM used, over time: a smoothed present value, and a ring of one sample a second for ten minutes.
 * Both the leader and the host keep them of what the host reports; the host's go to the next leader in its hello, which
 * therefore begins with what is known instead of with one sample. Pure. */
#ifndef PROTO_LOAD_H
#define PROTO_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "proto/host.pb-c.h"

#define LOAD_SECONDS   600
#define LOAD_SMOOTH_MS 10000.0
#define LOAD_PEAK_S    10 /* that a peak in a hello stands for */
#define LOAD_PEAKS_MAX (LOAD_SECONDS / LOAD_PEAK_S)

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

/* Exponentially weighted: after LOAD_SMOOTH_MS a step has come through by 63 %. The first sample is taken as it is.
 */
struct load_average {
    struct load value;
    uint64_t at_ms; /* 0: nothing yet */
};
void load_average_add(struct load_average *average, const struct load *sample, uint64_t now_ms);
/* What somebody else had smoothed until now goes on here, unless there is something already. NULL: nothing. */
void load_average_continue(struct load_average *average, const Drover__Load *smoothed, uint64_t now_ms);

/* 14 KiB: single precision is enough for peaks. */
struct load_ring {
    float ring[LOAD_SECONDS][6];
    size_t count, next;
    uint64_t second; /* of the latest sample */
};
/* Within one second the higher values count. */
void load_ring_add(struct load_ring *ring, const struct load *load, uint64_t now_ms);
struct load load_ring_peak(const struct load_ring *ring);
/* The peaks of LOAD_PEAK_S each, oldest first; the oldest may stand for less. Returns how many there are, at most
 * LOAD_PEAKS_MAX. */
size_t load_ring_peaks(const struct load_ring *ring, Drover__Load peaks[LOAD_PEAKS_MAX]);
/* Fills an empty ring with what somebody else had seen until now; of more than LOAD_PEAKS_MAX peaks the latest count.
 * One that is not empty stays as it is. */
void load_ring_continue(struct load_ring *ring, Drover__Load *const *peaks, size_t count, uint64_t now_ms);

#endif
