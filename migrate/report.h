/* report: what a migration did, gathered round by round, as the events and the final record of README.md. */
#ifndef MIGRATE_REPORT_H
#define MIGRATE_REPORT_H

#include <jansson.h>
#include <stdint.h>

#include "migrate/forecast.h"
#include "migrate/policy.h"
#include "migrate/ram.h"
#include "migrate/sender.h"

#define REPORT_ROUNDS_MAX 1024u

/* Of post-copy, as the destination tells it; wire bytes and resumes are the source's. */
struct report_postcopy {
    uint64_t duration_us, stale_pages, demanded_pages, zero_faults, late_copies, wire_bytes;
    uint64_t wait_p50_us, wait_p99_us, wait_max_us; /* from a fault to its page */
    uint32_t resumes;                               /* after a lost connection */
};

/* Zero-initialize; report_free() it. */
struct report {
    const char *mode, *tracker; /* lent */
    uint64_t total_us, blackout_us, last_pages_us, raw_bytes, wire_bytes, state_bytes;
    uint64_t disk_bytes, disk_us; /* for disks that move, too: on the wire; until they were equal */
    struct classes classes;
    uint32_t rounds;
    json_t *round_list;        /* owned */
    uint32_t throttle_percent; /* the least the guest was left; 0: it was not slowed down */
    uint64_t throttled_us;
    uint64_t clock_forward_us; /* by how much the guest's clock was set forward */
    uint32_t clock_left;       /* why it was left alone: guestclock.h */
    json_t *forecast;          /* owned; NULL: none was made */
    bool postcopied;           /* `postcopy` holds something */
    struct report_postcopy postcopy;
    char receipt[DIGEST_TEXT]; /* empty: none was compared */
    char source_hash[RAM_HASH_TEXT], destination_hash[RAM_HASH_TEXT];
};

/* Adds a round; returns the fields of its event (take). */
json_t *report_round(struct report *report, const struct sender_stats *stats, const struct policy *policy);
/* Keeps the forecast for the record; returns the fields of its event (take). */
json_t *report_forecast(struct report *report, const struct forecast *forecast, const struct forecast_input *input);
/* The whole record (take). */
json_t *report_json(const struct report *report);
void report_free(struct report *report);

#endif
