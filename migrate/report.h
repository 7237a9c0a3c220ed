/* report: what a migration did, gathered round by round, as the events and the final record of README.md. */
#ifndef MIGRATE_REPORT_H
#define MIGRATE_REPORT_H

#include <jansson.h>
#include <stdint.h>

#include "migrate/policy.h"
#include "migrate/ram.h"
#include "migrate/sender.h"

#define REPORT_ROUNDS_MAX 1024u

/* Zero-initialize; report_free() it. */
struct report {
    const char *mode, *tracker; /* lent */
    uint64_t total_us, blackout_us, raw_bytes, wire_bytes, state_bytes;
    uint32_t rounds;
    json_t *round_list; /* owned */
    char source_hash[RAM_HASH_TEXT], destination_hash[RAM_HASH_TEXT];
};

/* Adds a round; returns the fields of its event (take). */
json_t *report_round(struct report *report, const struct sender_stats *stats, const struct policy *policy);
/* The whole record (take). */
json_t *report_json(const struct report *report);
void report_free(struct report *report);

#endif
