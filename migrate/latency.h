/* latency: counts how long things took, in buckets an eighth of a power of two wide, so that percentiles are within
 * 12 %. The longest is exact. Pure. Zero-initialize. */
#ifndef MIGRATE_LATENCY_H
#define MIGRATE_LATENCY_H

#include <stdint.h>

#define LATENCY_BUCKETS 320u

struct latency {
    uint64_t count, max_us;
    uint32_t buckets[LATENCY_BUCKETS];
};

static inline uint32_t latency_bucket(uint64_t us)
{
    if (us < 8)
        return (uint32_t)us;
    uint32_t power = 63u - (uint32_t)__builtin_clzll(us); /* 3 or more */
    uint32_t bucket = (power - 2) * 8 + (uint32_t)(us >> (power - 3) & 7);
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

/* The smallest value of a bucket. */
static inline uint64_t latency_floor(uint32_t bucket)
{
    if (bucket < 8)
        return bucket;
    return (uint64_t)(8 + bucket % 8) << (bucket / 8 - 1);
}

static inline void latency_add(struct latency *latency, uint64_t us)
{
    latency->buckets[latency_bucket(us)]++;
    latency->count++;
    if (us > latency->max_us)
        latency->max_us = us;
}

/* The value that `percent` of all do not exceed; 0 when there are none. */
static inline uint64_t latency_percentile(const struct latency *latency, uint32_t percent)
{
    uint64_t rank = (latency->count * percent + 99) / 100, seen = 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS && latency->count; i++) {
        seen += latency->buckets[i];
        if (seen >= rank && seen > 0)
            return latency_floor(i + 1) - 1 < latency->max_us ? latency_floor(i + 1) - 1 : latency->max_us;
    }
    return latency->max_us;
}

#endif
