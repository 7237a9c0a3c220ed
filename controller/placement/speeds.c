#include "controller/placement/speeds.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "controller/foretold.h"

/* Only the newest jobs are looked at: a link may have changed since. */
#define JOBS_MAX 100u

struct past {
    char from[STATE_NAME_MAX], to[STATE_NAME_MAX];
    int64_t began_ms, ended_ms; /* of its step `move` */
    double bytes_per_s;         /* 0: it does not tell */
};

struct speeds {
    struct past past[JOBS_MAX]; /* the newest first */
    size_t count;
};

static void past_read(struct speeds *speeds, const struct state_job *job)
{
    const Drover__MigrationRecord *record = job->job->migration;
    struct past *past = &speeds->past[speeds->count];
    if (!record)
        return;
    *past = (struct past){.bytes_per_s = (double)foretold_raw_bytes_per_s(job)};
    snprintf(past->from, sizeof past->from, "%s", record->from_host);
    snprintf(past->to, sizeof past->to, "%s", record->to_host);
    for (size_t i = 0; i < job->job->n_steps; i++)
        if (strcmp(job->job->steps[i]->name, "move") == 0) {
            past->began_ms = job->job->steps[i]->started_ms;
            past->ended_ms = job->job->steps[i]->finished_ms;
        }
    speeds->count++;
}

/* For what part of `a` was `b` at work, too? */
static double overlap(const struct past *a, const struct past *b)
{
    int64_t began = a->began_ms > b->began_ms ? a->began_ms : b->began_ms;
    int64_t ended = a->ended_ms < b->ended_ms ? a->ended_ms : b->ended_ms;
    return ended > began && a->ended_ms > a->began_ms ? (double)(ended - began) / (double)(a->ended_ms - a->began_ms)
                                                      : 0;
}

/* Among how many the fuller end of its way was shared, on average; itself counts. */
static double sharers(const struct speeds *speeds, const struct past *past)
{
    double out = 0, in = 0;
    for (size_t i = 0; i < speeds->count; i++) {
        const struct past *other = &speeds->past[i];
        double part = other == past ? 1 : overlap(past, other);
        out += strcmp(other->from, past->from) == 0 ? part : 0;
        in += strcmp(other->to, past->to) == 0 ? part : 0;
    }
    return out > in ? out : in;
}

/* Alone, each would have had as much more as there were others; those that do not tell have done their part. */
static void told_only(struct speeds *speeds)
{
    size_t told = 0;
    for (size_t i = 0; i < speeds->count; i++)
        speeds->past[i].bytes_per_s *= sharers(speeds, &speeds->past[i]);
    for (size_t i = 0; i < speeds->count; i++)
        if (speeds->past[i].bytes_per_s > 0)
            speeds->past[told++] = speeds->past[i];
    speeds->count = told;
}

struct speeds *speeds_read(struct state *state)
{
    struct speeds *speeds = mem_zalloc(sizeof *speeds);
    struct state_job_ref *refs;
    size_t count = state_jobs(state, 0, false, JOBS_MAX, &refs);
    for (size_t i = 0; i < count; i++) {
        struct state_job job;
        if (refs[i].kind != DROVER__JOB_KIND__JOB_VM_MIGRATE || refs[i].state != DROVER__JOB_STATE__JOB_SUCCEEDED ||
            !state_job(state, refs[i].id, &job))
            continue;
        past_read(speeds, &job);
        state_job_clear(&job);
    }
    free(refs);
    told_only(speeds);
    return speeds;
}

void speeds_free(struct speeds *speeds)
{
    free(speeds);
}

bool speeds_at(const struct speeds *speeds, size_t i, struct speed *out)
{
    if (i >= speeds->count)
        return false;
    const struct past *past = &speeds->past[i];
    *out = (struct speed){past->from, past->to, past->bytes_per_s};
    return true;
}
