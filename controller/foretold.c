#include "controller/foretold.h"

#include <stdlib.h>
#include <string.h>

#include "controller/pb.h"

#define TEXT_MAX  32u
#define WHY_MAX   300u
#define CURVE_MAX 16u
/* Only the newest jobs are looked at: a link may have changed since. */
#define JOBS_MAX     100u
#define SWITCHES_MAX 5u
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

/* Pages that the destination had kept take time and no bytes: such a move says nothing of the link. */
static bool reuses(const Drover__MigrationRecord *record)
{
    for (size_t i = 0; i < record->n_classes; i++)
        if (strcmp(record->classes[i]->name, "reused") == 0 && record->classes[i]->pages > 0)
            return true;
    return false;
}

/* By its longest round. NULL: it says nothing. */
static Drover__LinkHistory *way_of(const Drover__MigrationRecord *record)
{
    const Drover__MigrationRound *longest = NULL;
    for (size_t i = 0; i < record->n_rounds; i++)
        if (!longest || record->rounds[i]->raw_bytes > longest->raw_bytes)
            longest = record->rounds[i];
    if (!longest || longest->raw_bytes < TELLING_RAW_BYTES || longest->duration_us == 0 || reuses(record))
        return NULL;
    Drover__LinkHistory *way = pb_new(&drover__link_history__descriptor);
    way->wire_bytes_per_s = (uint64_t)((double)longest->wire_bytes * 1e6 / (double)longest->duration_us);
    way->pace_bytes_per_s = record->forecast ? record->forecast->pace_bytes_per_s : 0;
    way->raw_bytes_per_s = (uint64_t)((double)longest->raw_bytes * 1e6 / (double)longest->duration_us);
    return way;
}

/* Its guest stood still while all of its memory was hashed, which no forecast is about. */
static bool verified(const Drover__MigrationRecord *record)
{
    return record->source_hash[0] != '\0';
}

static bool between(const struct state_job *job, const char *from_host, const char *to_host)
{
    const Drover__MigrationRecord *record = job->job->migration;
    return job->job->kind == DROVER__JOB_KIND__JOB_VM_MIGRATE && job->job->state == DROVER__JOB_STATE__JOB_SUCCEEDED &&
           record && strcmp(record->from_host, from_host) == 0 && strcmp(record->to_host, to_host) == 0;
}

static bool limited(const struct state_job *job)
{
    return job->data && job->data->options && job->data->options->bandwidth_bytes_per_s;
}

uint64_t foretold_raw_bytes_per_s(const struct state_job *job)
{
    cleanup_pb Drover__LinkHistory *way = job->job->migration && !limited(job) ? way_of(job->job->migration) : NULL;
    return way ? way->raw_bytes_per_s : 0;
}

/* Blackouts less their last pages, of the last moves; those of the VM itself first of all, because what its devices
 * have to say is part of it. */
struct switches {
    uint64_t us[SWITCHES_MAX];
    size_t count;
    bool own; /* all of them are the VM's */
};

static void switches_add(struct switches *s, const struct state_job *job, const char *vm_id)
{
    const Drover__MigrationRecord *record = job->job->migration;
    bool own = job->data && strcmp(job->data->vm_id, vm_id) == 0;
    if (record->blackout_us <= record->last_pages_us || verified(record) || (s->own && !own))
        return;
    if (own && !s->own)
        *s = (struct switches){.own = true};
    if (s->count < SWITCHES_MAX)
        s->us[s->count++] = record->blackout_us - record->last_pages_us;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The middle one: of a few, one that a busy moment made long says nothing. */
static uint64_t switches_typical_us(struct switches *s)
{
    if (s->count == 0)
        return 0;
    qsort(s->us, s->count, sizeof *s->us, by_size);
    return s->us[s->count / 2];
}

Drover__LinkHistory *foretold_way(struct state *state, const char *vm_id, const char *from_host, const char *to_host)
{
    struct state_job_ref *refs;
    size_t count = state_jobs(state, 0, false, JOBS_MAX, &refs);
    Drover__LinkHistory *way = NULL;
    struct switches switches = {0};
    for (size_t i = 0; i < count; i++) {
        struct state_job job;
        if (refs[i].kind != DROVER__JOB_KIND__JOB_VM_MIGRATE || !state_job(state, refs[i].id, &job))
            continue;
        if (between(&job, from_host, to_host)) {
            switches_add(&switches, &job, vm_id);
            if (!way && !limited(&job))
                way = way_of(job.job->migration);
        }
        state_job_clear(&job);
    }
    free(refs);
    if (!way && switches.count)
        way = pb_new(&drover__link_history__descriptor);
    if (way)
        way->switch_us = switches_typical_us(&switches);
    return way;
}

static double ratio(uint64_t outcome, uint64_t foretold)
{
    return foretold ? (double)outcome / (double)foretold : 0;
}

bool foretold_compare(const Drover__MigrationRecord *r, struct foretold_ratios *out)
{
    const Drover__MigrationForecast *f = r->forecast;
    if (!f || strcmp(f->mode, "none") == 0 || verified(r))
        return false;
    *out = (struct foretold_ratios){
        ratio(r->total_us, f->total_us), ratio(r->blackout_us, f->blackout_us), ratio(r->wire_bytes, f->wire_bytes)};
    return true;
}
