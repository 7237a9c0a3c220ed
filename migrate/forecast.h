/* forecast: how a migration would go, told before it begins. Pure: figures in, a verdict and a sentence out.
 *
 * What decides is not how fast a guest writes but how many different pages it writes in a given time: a guest that
 * rewrites the same 10 MiB all day costs 10 MiB a round, however long the round. So the input is a curve, distinct
 * pages written against time, from scans over one growing window. The forecast plays the rounds against that curve with
 * the same policy that will decide about the real ones. The curve is concave; beyond its last point it goes on with its
 * last slope, which is never too little.
 *
 *   scans -> curve --.
 *   link, sample ----+-> forecast_make() -> precopy | throttle | hybrid | postcopy | none, time, blackout, bytes, why
 *   limits, policy --'
 */
#ifndef MIGRATE_FORECAST_H
#define MIGRATE_FORECAST_H

#include <stddef.h>

#include "migrate/options.h"
#include "migrate/policy.h"

#define FORECAST_POINTS_MAX 16u
#define FORECAST_WHY_MAX    240u

/* Where the figure for the link comes from, best first. */
enum forecast_link {
    LINK_LAST_MOVE, /* what the last migration between these hosts was acknowledged */
    LINK_LIMIT,     /* the limit set for this migration, which is below what else is known */
    LINK_SPEED,     /* what the interface says it can carry */
    LINK_ASSUMED,   /* nothing is known */
    LINK_SOURCES
};

struct forecast_point {
    uint64_t us, pages; /* different pages written in the first `us` of the window */
};

/* What is known of the way to the destination; 0: not known. Bytes per second. */
struct forecast_way {
    uint64_t last_wire, last_raw; /* of the last migration between these hosts, where nothing limited it */
    uint64_t last_pace;           /* sample.raw_bytes_per_us at that time */
    uint64_t link;                /* speed of the interface */
    uint64_t limit;               /* set for this migration */
};

/* What a look at some of the guest's pages has shown. */
struct forecast_sample {
    double full_share;       /* of the pages that are allocated, those that are not zero */
    double packed_share;     /* bytes on the wire for a byte of such a page */
    double raw_bytes_per_us; /* of reading and packing alone, by CPU time, on all threads; 0: not measured */
};

struct forecast_input {
    struct forecast_point curve[FORECAST_POINTS_MAX]; /* by growing time */
    size_t points;
    uint64_t allocated_pages;
    double cpu_share; /* of a core, that the guest's busiest thread used meanwhile; 0: not known */
    struct forecast_sample sample;
    struct forecast_way way;
    struct policy_limits limits;
    struct options_policy chosen;
};

enum forecast_mode {
    FORECAST_PRECOPY,
    FORECAST_THROTTLE, /* pre-copy of a guest that is slowed down */
    FORECAST_HYBRID,
    FORECAST_POSTCOPY,
    FORECAST_NONE, /* it would be given up */
    FORECAST_MODES
};

struct forecast {
    enum forecast_mode mode;
    enum forecast_link link;
    uint64_t total_us, blackout_us; /* with NONE: until it is given up; what the blackout would have been */
    uint64_t wire_bytes;
    uint32_t rounds;
    uint32_t throttle_percent;      /* CPU time the guest keeps at the end; 100: all */
    uint64_t bandwidth_bytes_per_s; /* of guest RAM, as it is expected to arrive */
    uint64_t pace_bytes_per_s;      /* of reading and packing alone, for the next forecast; 0: not measured */
    uint64_t written_pages_per_s;   /* different pages, over the whole window */
    char why[FORECAST_WHY_MAX];
};

/* Different pages written in `us`. */
double forecast_written(const struct forecast_input *input, double us);
void forecast_make(const struct forecast_input *input, struct forecast *out);
/* True once a longer window could not change the verdict: even if the guest went on writing new pages at the pace seen
 * so far, pre-copy would fit. */
bool forecast_clear(const struct forecast_input *input);

const char *forecast_mode_name(enum forecast_mode mode);
const char *forecast_link_name(enum forecast_link link);

#endif
