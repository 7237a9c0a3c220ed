#include "cli/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/format.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "proto/pbjson.h"

const char *show_time(int64_t wall_ms, char out[static 32])
{
    if (wall_ms <= 0)
        return "-";
    return format_time_ms(wall_ms, out);
}

const char *show_cores(double used, double of, char out[static SHOW_SHARE_MAX])
{
    if (of > 0)
        snprintf(out, SHOW_SHARE_MAX, "%.2f/%g", used, of);
    else
        snprintf(out, SHOW_SHARE_MAX, "%.2f", used);
    return out;
}

const char *show_bytes(uint64_t used, uint64_t of, char out[static SHOW_SHARE_MAX])
{
    char a[FORMAT_MAX], b[FORMAT_MAX];
    if (of > 0)
        snprintf(out, SHOW_SHARE_MAX, "%s/%s", format_bytes(used, a), format_bytes(of, b));
    else
        snprintf(out, SHOW_SHARE_MAX, "%s", format_bytes(used, a));
    return out;
}

const char *show_vm_state(const Drover__Vm *vm, char out[static 64])
{
    if (vm->unknown[0])
        return "unknown";
    if (vm->halted[0])
        return "halted";
    if (vm->state != DROVER__PARTITION_STATE__PARTITION_NONE)
        return pbjson_enum(&drover__partition_state__descriptor, (int)vm->state, out);
    return vm->desired == DROVER__VM_DESIRED__VM_DESIRED_RUNNING ? "waiting" : "stopped";
}

static const char *milliseconds(uint64_t us, char out[static 32])
{
    if (us >= 10000000)
        return format_duration_ms(us / 1000, out);
    snprintf(out, 32, us < 100000 ? "%.2f ms" : "%.0f ms", (double)us / 1000);
    return out;
}

static void show_rounds(const Drover__MigrationRecord *r)
{
    static const char *const columns[] = {">ROUND", ">PAGES", ">ZERO", ">RAW", ">WIRE", ">TIME", ">RATE", NULL};
    char text[FORMAT_MAX];
    struct table *table = table_new(columns);
    for (size_t i = 0; i < r->n_rounds; i++) {
        const Drover__MigrationRound *round = r->rounds[i];
        table_add(table, "%" PRIu32, round->number);
        table_add(table, "%" PRIu64, round->pages);
        table_add(table, "%" PRIu64, round->zero_pages);
        table_add(table, "%s", format_bytes(round->raw_bytes, text));
        table_add(table, "%s", format_bytes(round->wire_bytes, text));
        table_add(table, "%s", milliseconds(round->duration_us, text));
        double seconds = (double)round->duration_us / 1e6;
        if (seconds > 0)
            table_add(table, "%s/s", format_bytes((uint64_t)((double)round->wire_bytes / seconds), text));
        else
            table_add(table, "-");
    }
    table_print(table, "no rounds");
}

static void show_classes(const Drover__MigrationRecord *r)
{
    char text[FORMAT_MAX];
    struct buf line = {0};
    for (size_t i = 0; i < r->n_classes; i++)
        buf_printf(&line, "%s%" PRIu64 " %s (%s)", i ? ", " : "", r->classes[i]->pages, r->classes[i]->name,
            format_bytes(r->classes[i]->bytes, text));
    if (r->n_classes)
        output_field("Pages", "%s", buf_str(&line));
    buf_free(&line);
}

static const char *link_words(const char *link)
{
    return strcmp(link, "last-move") == 0 ? "as in the last move between these hosts"
           : strcmp(link, "limit") == 0   ? "the limit that was set"
           : strcmp(link, "link") == 0    ? "from the speed of the link"
                                          : "assumed: nothing is known of the link";
}

void show_forecast(const Drover__MigrationForecast *f)
{
    char text[FORMAT_MAX], more[FORMAT_MAX];
    if (!f)
        return;
    bool none = strcmp(f->mode, "none") == 0;
    output_field("Forecast", "%s", none ? "it would be given up" : f->mode);
    output_field("  because", "%s", f->why);
    output_field("  total", "%s, %u round%s%s", milliseconds(f->total_us, text), f->rounds, f->rounds == 1 ? "" : "s",
        none ? ", until it is given up" : "");
    output_field("  blackout", "%s%s", milliseconds(f->blackout_us, text), none ? " would have been needed" : "");
    output_field("  on the wire", "%s", format_bytes(f->wire_bytes, text));
    if (f->throttle_percent && f->throttle_percent < 100)
        output_field("  slowed to", "%u %% of its CPU time, at the end", f->throttle_percent);
    output_field("  at", "%s/s of memory, %s", format_bytes(f->bandwidth_bytes_per_s, text), link_words(f->link));
    if (f->n_curve) {
        const Drover__MigrationForecastPoint *last = f->curve[f->n_curve - 1];
        output_field("  it writes", "%s of different pages in %s", format_bytes(last->bytes, text),
            milliseconds(last->us, more));
    }
}

void show_migration(const Drover__MigrationRecord *r)
{
    char text[FORMAT_MAX], more[FORMAT_MAX];
    if (r->n_rounds)
        show_rounds(r);
    show_forecast(r->forecast);
    output_field("From", "%s", r->from_host);
    output_field("To", "%s", r->to_host);
    output_field("Mode", "%s%s%s", r->mode, r->tracker[0] ? ", tracked by " : "", r->tracker);
    output_field("Total", "%s", milliseconds(r->total_us, text));
    output_field("Blackout", "%s", milliseconds(r->blackout_us, text));
    if (r->network_blackout_us)
        output_field(
            "Network blackout", "%s, until the network heard it again", milliseconds(r->network_blackout_us, text));
    if (r->clock_forward_us)
        output_field("Guest's clock", "set forward by %s", milliseconds(r->clock_forward_us, text));
    else if (r->clock_left[0])
        output_field("Guest's clock", "left alone, so late by the blackout: %s", r->clock_left);
    if (r->throttle_percent)
        output_field("Slowed down", "to %u %% of its CPU time at the end, for %s", r->throttle_percent,
            milliseconds(r->throttled_us, text));
    if (r->disk_bytes)
        output_field("Disks", "%s on the wire, equal after %s", format_bytes(r->disk_bytes, text),
            milliseconds(r->disk_us, more));
    output_field("Memory", "%s, %s on the wire (%.1fx)", format_bytes(r->raw_bytes, text),
        format_bytes(r->wire_bytes, more), r->wire_bytes ? (double)r->raw_bytes / (double)r->wire_bytes : 0.0);
    show_classes(r);
    if (r->postcopy_us) {
        output_field("After the switch", "%" PRIu64 " pages in %s; the guest waited for %" PRIu64 " of them",
            r->stale_pages, milliseconds(r->postcopy_us, text), r->demanded_pages);
        output_field("Wait for a page", "%s typical, %s at most", milliseconds(r->page_wait_p50_us, text),
            milliseconds(r->page_wait_max_us, more));
    }
    if (r->resumes)
        output_field("Connection lost", "%u times, and taken up again", r->resumes);
    output_field("Device state", "%s", format_bytes(r->state_bytes, text));
    if (r->receipt[0])
        output_field("Receipt", "%s: every page was held as it was sent", r->receipt);
    if (r->source_hash[0])
        output_field("Verified", "%s: source %s, destination %s",
            strcmp(r->source_hash, r->destination_hash) == 0 ? "memory is identical" : "MEMORY DIFFERS", r->source_hash,
            r->destination_hash);
}

/* What a migration's preflight found, each with what to do about it. */
static void show_findings(const Drover__Job *job)
{
    cleanup_buf struct buf lines = {0};
    for (size_t i = 0; i < job->n_findings; i++)
        progress_finding(job->findings[i], "", &lines);
    fputs(buf_str(&lines), stdout);
}

static void show_steps(const Drover__Job *job)
{
    static const char *const columns[] = {"STEP", "STATE", ">TIME", "DETAIL", NULL};
    char text[64];
    struct table *table = table_new(columns);
    for (size_t i = 0; i < job->n_steps; i++) {
        const Drover__JobStep *step = job->steps[i];
        table_add(table, "%s", step->name);
        table_add(table, "%s", pbjson_enum(&drover__step_state__descriptor, (int)step->state, text));
        if (step->started_ms > 0 && step->finished_ms >= step->started_ms)
            table_add(table, "%s", format_duration_ms((uint64_t)(step->finished_ms - step->started_ms), text));
        else
            table_add(table, "-");
        table_add(table, "%s", step->detail);
    }
    table_print(table, "no steps");
}

void show_job(const Drover__Job *job)
{
    char text[64];
    output_field("Job", "%" PRIu64, job->id);
    output_field("What", "%s %s", pbjson_enum(&drover__job_kind__descriptor, (int)job->kind, text), job->target);
    output_field("State", "%s", pbjson_enum(&drover__job_state__descriptor, (int)job->state, text));
    output_field("Asked by", "%s", job->actor);
    if (job->parent_id)
        output_field("Part of", "job %" PRIu64, job->parent_id);
    if (job->reason[0])
        output_field("Reason", "%s", job->reason);
    output_field("Created", "%s", show_time(job->created_ms, text));
    output_field("Finished", "%s", show_time(job->finished_ms, text));
    if (job->error && job->error->message[0])
        output_field("Error", "%s: %s", job->error->code, job->error->message);
    if (job->waiting[0] && job->state == DROVER__JOB_STATE__JOB_CANCELLING)
        output_field("Waiting", "%s", job->waiting);
    if (job->progress && !progress_over(job)) {
        struct buf line = {0};
        progress_migration(job->progress, &line);
        output_field("Progress", "%s", buf_str(&line));
        buf_free(&line);
    }
    putchar('\n');
    show_steps(job);
    if (job->n_findings) {
        printf("\nWhat the preflight found:\n");
        show_findings(job);
    }
    if (job->migration && job->migration->to_host[0]) {
        putchar('\n');
        show_migration(job->migration);
    }
}
