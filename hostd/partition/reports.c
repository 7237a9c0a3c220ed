/* What the controllers are told of partitions. */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/clock.h"
#include "hostd/partition/private.h"

static void report_one(
    struct partition *p, uint64_t now_ms, bool hello, Drover__PartitionReport *out, Drover__MigrationProgress *progress)
{
    struct record *r = &p->record;
    drover__partition_report__init(out);
    out->vm_id = r->vm_id;
    out->vm_name = r->spec->name;
    out->generation = r->generation;
    out->state = (Drover__PartitionState)r->state;
    out->load = &p->load;
    out->demand = hello && p->usage ? &p->demand : NULL;
    out->uptime_ms = partition_uptime_ms(p, now_ms);
    out->detail = r->detail;
    out->halted = p->standstill.why;
    out->resuming = r->state == STATE_IN_DOUBT && p->aftermath == AFTERMATH_RESUME;
    if (r->migration.id[0])
        out->migration_id = r->migration.id;
    if (p->engine) {
        report_progress(engine_report(p->engine), now_ms - p->migrating_from_ms, progress);
        out->progress = progress;
    } else if (p->copy) {
        uint64_t done, total;
        disk_copy_progress(p->copy, &done, &total);
        drover__migration_progress__init(progress);
        out->migration_id = p->record.storage.id;
        progress->phase = (char *)(uintptr_t) "copying";
        progress->raw_bytes = done;
        progress->remaining_bytes = total > done ? total - done : 0;
        out->progress = progress;
    }
}

void partitions_report(struct partitions *ps, uint64_t sequence, bool hello, struct reports *out)
{
    struct partition *p;
    size_t count = 0, i = 0;
    uint64_t now_ms = clock_now_ms();
    DL_COUNT(ps->list, p, count);
    *out = (struct reports){
        .items = mem_zalloc((count + 1) * sizeof *out->items),
        .progress = mem_zalloc((count + 1) * sizeof *out->progress),
        .list = mem_zalloc((count + 1) * sizeof(Drover__PartitionReport *)),
        .count = count,
    };
    DL_FOREACH(ps->list, p)
    {
        report_one(p, now_ms, hello, &out->items[i], &out->progress[i]);
        out->list[i] = &out->items[i];
        i++;
        bool over = p->record.state == STATE_STOPPED || p->record.state == STATE_FAILED;
        if (over && p->reported_in == 0)
            p->reported_in = sequence;
    }
}

void reports_free(struct reports *reports)
{
    free(reports->items);
    free(reports->progress);
    free(reports->list);
    *reports = (struct reports){0};
}

void partitions_heard(struct partitions *ps, uint64_t sequence)
{
    struct partition *p, *next;
    DL_FOREACH_SAFE(ps->list, p, next)
    {
        bool over = p->record.state == STATE_STOPPED || p->record.state == STATE_FAILED;
        if (over && p->reported_in != 0 && p->reported_in <= sequence)
            partition_remove(p);
    }
}

const struct record *partitions_doubt(struct partitions *ps, Drover__MigrationOutcome *outcome)
{
    struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        Drover__MigrationOutcome now = queries_outcome_so_far(p);
        if (now == DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY || now == p->told)
            continue;
        *outcome = now;
        return &p->record;
    }
    return NULL;
}

void partitions_doubt_told(struct partitions *ps, const char *migration_id, Drover__MigrationOutcome outcome)
{
    struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        if (strcmp(p->record.migration.id, migration_id) == 0)
            p->told = outcome;
    }
}

void partitions_set_host_name(struct partitions *ps, const char *name)
{
    snprintf(ps->host_name, sizeof ps->host_name, "%s", name);
}
