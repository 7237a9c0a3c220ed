/* From counters to rates. Pure: time comes in. A counter that went backwards (a new process, a new tap) starts over and
 * gives a rate of 0 until it has been seen twice. */
#ifndef HOSTD_RATES_H
#define HOSTD_RATES_H

#include <stdbool.h>
#include <stdint.h>

struct rate {
    uint64_t value;
    uint64_t at_ns;
    double per_s;
    bool seen;
};

/* Takes the counter's value at `now_ns` and returns the rate since the last one. */
double rate_update(struct rate *rate, uint64_t value, uint64_t now_ns);

#endif
