/* survey: watches a running guest for a moment, for the forecast: scans over one growing window (5 ms, 10 ms, 20 ms
 * ...) make the curve of different pages written, and a few hundred pages read and packed say how well they shrink.
 *
 * It ends as soon as a longer look could not change the verdict, for an idle guest after 10 ms; at the latest after
 * `longest_ms`. Owns nothing of the guest: the tracker is lent, and every page a scan found is in survey_written().
 * Single-threaded, on the loop. */
#ifndef MIGRATE_SURVEY_H
#define MIGRATE_SURVEY_H

#include <uv.h>

#include "migrate/forecast.h"
#include "migrate/tracker.h"

struct survey;

struct survey_options {
    const struct ram *ram;          /* lent */
    struct tracker *tracker;        /* lent, just opened; NULL: nothing is watched, and it ends at once */
    const struct bitmap *allocated; /* lent until survey_start() returns */
    const struct options *options;  /* of the migration */
    struct options_policy chosen;
    struct policy_limits limits;
    uint64_t bytes_per_s; /* the link's quota; 0: not limited */
    uint64_t longest_ms;
    bool whole; /* look that long even if the verdict is clear: who only asks has the time */
    void (*on_done)(void *user, const struct err *err);
    void *user;
};

/* `on_done` follows on the loop. Take: survey_free(). */
struct survey *survey_start(uv_loop_t *loop, const struct survey_options *options);
/* What the forecast needs, once it is done. */
const struct forecast_input *survey_input(const struct survey *survey);
/* Pages the scans have found written; they count as sent by nobody. */
const struct bitmap *survey_written(const struct survey *survey);
/* Safe inside on_done. NULL is fine. */
void survey_free(struct survey *survey);

#endif
