/* How a job goes on, in words. Pure: a job comes in, lines come out. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>

#include "base/buf.h"
#include "proto/api.pb-c.h"

#define PROGRESS_STEPS_MAX 64

/* What has been told so far. Zero-initialize it. */
struct progress {
    bool announced;
    int states[PROGRESS_STEPS_MAX]; /* of the steps, plus one; 0: nothing told */
    uint32_t round;
    bool foretold; /* the forecast */
    size_t findings;
};

/* Appends a line for what is new: the job itself, steps that ended, what the preflight found and, with `running`, steps
 * that began and rounds of the migration. Without `running` the line of progress_current() shows these. */
void progress_news(struct progress *progress, const Drover__Job *job, bool running, struct buf *out);
/* The step that runs now, on one line without an end; nothing when none does. */
void progress_current(const Drover__Job *job, struct buf *out);
/* "round 3, 12.0 MiB left, 85.0 MiB/s, about 0.4 s more". */
void progress_migration(const Drover__MigrationProgress *migration, struct buf *out);
/* One finding of a preflight, in two lines that begin with `indent`. */
void progress_finding(const Drover__Finding *finding, const char *indent, struct buf *out);
bool progress_over(const Drover__Job *job);

#endif
