#include "cli/progress.h"

#include <inttypes.h>
#include <string.h>

#include "base/format.h"
#include "proto/pbjson.h"

#define PAGE_BYTES 4096

bool progress_over(const Drover__Job *job)
{
    switch (job->state) {
    case DROVER__JOB_STATE__JOB_SUCCEEDED:
    case DROVER__JOB_STATE__JOB_FAILED:
    case DROVER__JOB_STATE__JOB_CANCELLED:
        return true;
    default:
        return false;
    }
}

static const char *step_state(const Drover__JobStep *step, char out[static 64])
{
    return pbjson_enum(&drover__step_state__descriptor, (int)step->state, out);
}

static bool step_settled(const Drover__JobStep *step)
{
    return step->state != DROVER__STEP_STATE__STEP_PENDING && step->state != DROVER__STEP_STATE__STEP_RUNNING;
}

static void announce(const Drover__Job *job, struct buf *out)
{
    char kind[64];
    buf_printf(out, "job %" PRIu64 ": %s %s", job->id, pbjson_enum(&drover__job_kind__descriptor, (int)job->kind, kind),
        job->target);
    if (job->reason[0])
        buf_printf(out, " (%s)", job->reason);
    buf_printf(out, "\n");
}

/* Seconds until the rest is sent while the guest goes on writing; negative when it never ends that way. */
static double seconds_left(const Drover__MigrationProgress *m)
{
    double rate = (double)m->bandwidth_bytes_per_s - (double)m->dirty_pages_per_s * PAGE_BYTES;
    return rate > 0 ? (double)m->remaining_bytes / rate : -1;
}

void progress_migration(const Drover__MigrationProgress *m, struct buf *out)
{
    char text[FORMAT_MAX];
    if (m->round == 0) {
        buf_printf(out, "%s", m->phase[0] ? m->phase : "beginning");
        if (strcmp(m->phase, "copying") == 0 && m->remaining_bytes > 0) /* of a disk */
            buf_printf(out, ", %s left", format_bytes(m->remaining_bytes, text));
        if (m->elapsed_ms >= 1000)
            buf_printf(out, ", %s so far", format_duration_ms(m->elapsed_ms / 1000 * 1000, text));
        return;
    }
    buf_printf(out, "round %" PRIu32, m->round);
    if (m->phase[0] && strcmp(m->phase, "precopy") != 0)
        buf_printf(out, ", %s", m->phase);
    if (m->throttle_percent)
        buf_printf(out, ", slowed to %" PRIu32 " %%", m->throttle_percent);
    buf_printf(out, ", %s left", format_bytes(m->remaining_bytes, text));
    if (m->bandwidth_bytes_per_s == 0)
        return;
    buf_printf(out, ", %s/s", format_bytes(m->bandwidth_bytes_per_s, text));
    double left = seconds_left(m);
    if (left < 0)
        buf_printf(out, ", the guest writes as fast");
    else if (left < 86400)
        buf_printf(out, ", about %s more", format_duration_ms((uint64_t)(left * 1000), text));
}

static void tell_forecast(const Drover__JobStep *step, const Drover__MigrationForecast *f, struct buf *out)
{
    char time[FORMAT_MAX], dark[FORMAT_MAX], bytes[FORMAT_MAX];
    bool none = strcmp(f->mode, "none") == 0;
    buf_printf(out, "  %-13s forecast: %s, %s, dark %s, %s on the wire: %s\n", step->name,
        none ? "it will be given up" : f->mode, format_duration_ms(f->total_us / 1000, time),
        format_duration_ms(f->blackout_us / 1000, dark), format_bytes(f->wire_bytes, bytes), f->why);
}

void progress_finding(const Drover__Finding *f, const char *indent, struct buf *out)
{
    bool refused = f->severity == DROVER__FINDING_SEVERITY__FINDING_REFUSAL;
    buf_printf(out, "%s%-8s %-13s %s %s\n", indent, refused ? "refused" : "warning", f->code, f->thing, f->cause);
    buf_printf(out, "%s%-8s %-13s next: %s\n", indent, "", "", f->next_step);
}

/* They come with the end of the preflight, before anything is moved. */
static void tell_findings(struct progress *p, const Drover__Job *job, struct buf *out)
{
    for (; p->findings < job->n_findings; p->findings++)
        progress_finding(job->findings[p->findings], "    ", out);
}

/* What was not even begun needs no line. A refused preflight is explained by what it found. */
static void tell_settled(const Drover__JobStep *step, bool explained, struct buf *out)
{
    char state[64], text[FORMAT_MAX];
    if (step->state == DROVER__STEP_STATE__STEP_SKIPPED)
        return;
    buf_printf(out, "  %-13s %s", step->name, step_state(step, state));
    if (step->finished_ms >= step->started_ms && step->started_ms > 0 && step->state != DROVER__STEP_STATE__STEP_UNDONE)
        buf_printf(out, " in %s", format_duration_ms((uint64_t)(step->finished_ms - step->started_ms), text));
    if (step->detail[0] && !explained)
        buf_printf(out, ": %s", step->detail);
    buf_printf(out, "\n");
}

static void tell_step(struct progress *p, const Drover__Job *job, size_t i, bool running, struct buf *out)
{
    const Drover__JobStep *step = job->steps[i];
    bool now = step->state == DROVER__STEP_STATE__STEP_RUNNING, news = p->states[i] != (int)step->state + 1;
    p->states[i] = (int)step->state + 1;
    if (news && step_settled(step)) {
        tell_settled(step, step->state == DROVER__STEP_STATE__STEP_FAILED && p->findings < job->n_findings, out);
        tell_findings(p, job, out);
    } else if (news && now && running) {
        buf_printf(out, "  %-13s running%s%s\n", step->name, step->detail[0] ? ": " : "", step->detail);
    }
    if (now && job->progress && job->progress->forecast && !p->foretold) {
        p->foretold = true;
        tell_forecast(step, job->progress->forecast, out);
    }
    if (now && running && job->progress && job->progress->round > p->round) {
        p->round = job->progress->round;
        buf_printf(out, "  %-13s ", step->name);
        progress_migration(job->progress, out);
        buf_printf(out, "\n");
    }
}

void progress_news(struct progress *p, const Drover__Job *job, bool running, struct buf *out)
{
    if (!p->announced)
        announce(job, out);
    p->announced = true;
    for (size_t i = 0; i < job->n_steps && i < PROGRESS_STEPS_MAX; i++)
        if (job->steps[i]->state != DROVER__STEP_STATE__STEP_UNDONE)
            tell_step(p, job, i, running, out);
    for (size_t i = 0; i < job->n_steps && i < PROGRESS_STEPS_MAX; i++) /* which comes last */
        if (job->steps[i]->state == DROVER__STEP_STATE__STEP_UNDONE)
            tell_step(p, job, i, running, out);
}

void progress_current(const Drover__Job *job, struct buf *out)
{
    for (size_t i = 0; i < job->n_steps; i++) {
        const Drover__JobStep *step = job->steps[i];
        if (step->state != DROVER__STEP_STATE__STEP_RUNNING)
            continue;
        buf_printf(out, "  %-13s ", step->name);
        if (job->progress && !step->detail[0])
            progress_migration(job->progress, out);
        else
            buf_printf(out, "running%s%s", step->detail[0] ? ": " : "", step->detail);
        if (job->state == DROVER__JOB_STATE__JOB_CANCELLING)
            buf_printf(out, " (cancelling)");
        return;
    }
    if (job->waiting[0]) /* a step has failed, and is being undone */
        buf_printf(out, "  %s", job->waiting);
}
