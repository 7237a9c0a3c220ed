/* peerclock: how far the other host's clock is ahead of ours, from questions that it answers with its time. Pure.
 * The answer was given somewhere between question and answer, so half that time bounds the error, and the error grows
 * as the clocks drift apart: of all answers the one counts whose bound is least now. Zero-initialize. */
#ifndef MIGRATE_PEERCLOCK_H
#define MIGRATE_PEERCLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* What two hosts' clocks drift apart: quartz is off by some tens of ppm, NTP leaves a few of them. */
#define PEERCLOCK_DRIFT_PPM 20u
/* A guest's clock is not set by what may be more wrong than this: it could be set into the future. */
#define PEERCLOCK_BOUND_MAX_NS UINT64_C(5000000)

struct peerclock {
    bool known;
    int64_t ahead_ns;       /* the other's clock less ours */
    uint64_t round_trip_ns; /* of the answer that this is from */
    uint64_t by_ns;         /* when that came, by our clock */
};

/* How wrong it may be at `now_ns`. */
static inline uint64_t peerclock_bound_ns(const struct peerclock *clock, uint64_t now_ns)
{
    uint64_t age_ns = now_ns > clock->by_ns ? now_ns - clock->by_ns : 0;
    return clock->round_trip_ns / 2 + age_ns / 1000000 * PEERCLOCK_DRIFT_PPM;
}

/* Whether it is known well enough at `now_ns` to set a clock by it. */
static inline bool peerclock_sound(const struct peerclock *clock, uint64_t now_ns)
{
    return clock->known && peerclock_bound_ns(clock, now_ns) <= PEERCLOCK_BOUND_MAX_NS;
}

static inline void peerclock_sample(struct peerclock *clock, uint64_t asked_ns, uint64_t peer_ns, uint64_t answered_ns)
{
    uint64_t round_trip_ns = answered_ns - asked_ns;
    if (answered_ns < asked_ns || (clock->known && round_trip_ns / 2 > peerclock_bound_ns(clock, answered_ns)))
        return;
    *clock = (struct peerclock){
        .known = true,
        .ahead_ns = (int64_t)(peer_ns - (asked_ns + round_trip_ns / 2)),
        .round_trip_ns = round_trip_ns,
        .by_ns = answered_ns,
    };
}

/* A moment of our clock by the other's. */
static inline uint64_t peerclock_there_ns(const struct peerclock *clock, uint64_t here_ns)
{
    return here_ns + (uint64_t)clock->ahead_ns;
}

#endif
