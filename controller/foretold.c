#include "controller/foretold.h"

#include <stdlib.h>
#include <string.h>

#include "controller/pb.h"

#define TEXT_MAX  32u
#define WHY_MAX   300u
#define CURVE_MAX 16u
/* Only the newest jobs are looked at: a link may have changed since. */
#define JOBS_MAX 100u
/* Less than that says more about latency than about the link. */
#define TELLING_RAW_BYTES (16u << 20)

static void cut(char *text, size_t max)
{
    if (strlen(text) > max)
        text[max] = '\0';
}

void foretold_bound(Drover__MigrationForecast *f)
{
    if (!f)
        return;
    cut(f->mode, TEXT_MAX);
    cut(f->link, TEXT_MAX);
    cut(f->why, WHY_MAX);
    while (f->n_curve > CURVE_MAX)
        pb_free(f->curve[--f->n_curve]);
}

/* By its longest round. */
static Drover__LinkHistory *way_of(const Drover__MigrationRecord *record)
{
    const Drover__MigrationRound *longest = NULL;
    for (size_t i = 0; i < record->n_rounds; i++)
        if (!longest || record->rounds[i]->raw_bytes > longest->raw_bytes)
            longest = record->rounds[i];
    if (!longest || longest->raw_bytes < TELLING_RAW_BYTES || longest->duration_us == 0)
        return NULL;
    Drover__LinkHistory *way = pb_new(&drover__link_history__descriptor);
    way->wire_bytes_per_s = (uint64_t)((double)longest->wire_bytes * 1e6 / (double)longest->duration_us);
    way->raw_bytes_per_s = (uint64_t)((double)longest->raw_bytes * 1e6 / (double)longest->duration_us);
    return way;
}

static Drover__LinkHistory *way_of_job(const struct state_job *job, const char *from_host, const char *to_host)
{
    const Drover__MigrationRecord *record = job->job->migration;
    bool limited = job->data && job->data->options && job->data->options->bandwidth_bytes_per_s;
    if (job->job->kind != DROVER__JOB_KIND__JOB_VM_MIGRATE || job->job->state != DROVER__JOB_STATE__JOB_SUCCEEDED ||
        !record || limited || strcmp(record->from_host, from_host) != 0 || strcmp(record->to_host, to_host) != 0)
        return NULL;
    return way_of(record);
}

Drover__LinkHistory *foretold_way(struct state *state, const char *from_host, const char *to_host)
{
    struct state_job_ref *refs;
    size_t count = state_jobs(state, 0, false, JOBS_MAX, &refs);
    Drover__LinkHistory *way = NULL;
    for (size_t i = 0; i < count && !way; i++) {
        struct state_job job;
        if (refs[i].kind != DROVER__JOB_KIND__JOB_VM_MIGRATE || !state_job(state, refs[i].id, &job))
            continue;
        way = way_of_job(&job, from_host, to_host);
        state_job_clear(&job);
    }
    free(refs);
    return way;
}

static double ratio(uint64_t outcome, uint64_t foretold)
{
    return foretold ? (double)outcome / (double)foretold : 0;
}

bool foretold_compare(const Drover__MigrationRecord *r, struct foretold_ratios *out)
{
    const Drover__MigrationForecast *f = r->forecast;
    if (!f || strcmp(f->mode, "none") == 0)
        return false;
    *out = (struct foretold_ratios){
        ratio(r->total_us, f->total_us), ratio(r->blackout_us, f->blackout_us), ratio(r->wire_bytes, f->wire_bytes)};
    return true;
}
