/* What an engine tells on its control socket, gathered. Pure. The engine is our own program, but its lines are checked
 * like anybody's: what makes no sense is ignored. */
#ifndef HOSTD_REPORT_H
#define HOSTD_REPORT_H

#include <jansson.h>

#include "base/err.h"
#include "proto/types.pb-c.h"
#include "proto/wire.h"

#define REPORT_ROUNDS_MAX  256
#define REPORT_CLASSES_MAX 16

struct report {
    char phase[32];
    char address[WIRE_ADDRESS_MAX]; /* of `listening` */
    uint32_t round;
    uint32_t throttle_percent; /* 0 and 100: not slowed down */
    uint64_t remaining_bytes, raw_bytes, wire_bytes, bandwidth_bytes_per_s, dirty_pages_per_s;
    Drover__MigrationRecord *record; /* owned; rounds as they come, all of it once it is done */
    uint64_t heard_us;               /* destination: from the guest's start until it was heard; 0: it was not */
    bool unanswered;                 /* handed over, and it asks on for an answer */
    bool done;
    bool failed;
    struct err failure;
};

enum report_change {
    REPORT_NOTHING,
    REPORT_LISTENING,
    REPORT_PHASE,
    REPORT_ROUND,
    REPORT_FORECAST,
    REPORT_PROGRESS,
    REPORT_DONE,
    REPORT_HEARD,
    REPORT_FAILED
};

/* Takes in one line. */
enum report_change report_apply(struct report *report, const json_t *event);
/* Fills `out` with what is known while it runs; its strings are lent by `report`. */
void report_progress(const struct report *report, uint64_t elapsed_ms, Drover__MigrationProgress *out);
void report_clear(struct report *report);

/* The failure that an engine's last log line tells, for one that ended before its `failed` was read. False: the line
 * tells none, or is no log line; then `out` is untouched. */
bool report_last_words(const char *line, struct err *out);

/* The phase an engine's record file is in. */
enum record_phase {
    RECORD_NONE, /* there is no record: nothing was handed over */
    RECORD_FAILED,
    RECORD_HANDED_OVER,
    RECORD_SENDING, /* handed over, and pages that the guest may need there are still here */
    RECORD_TAKEN,
    RECORD_OWNER,
    RECORD_FETCHING,   /* the owner, and pages of the guest are still elsewhere */
    RECORD_UNREADABLE, /* there is one, and it is not this migration's or makes no sense */
};
enum record_phase record_phase_parse(const char *text, size_t len, const char *migration_id);

#endif
