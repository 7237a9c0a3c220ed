#include "migrate/report.h"

#include "migrate/guestclock.h"

/* {"zero": {"pages": N, "bytes": N}, ...}; classes without pages are left out. */
static json_t *report_classes(const struct classes *classes)
{
    json_t *all = json_object();
    for (enum page_class class = 0; class < CLASSES; class ++)
        if (classes->pages[class])
            json_object_set_new(all, class_name(class),
                json_pack("{s:I, s:I}", "pages", (json_int_t)classes->pages[class], "bytes",
                    (json_int_t)classes->bytes[class]));
    return all;
}

json_t *report_round(struct report *report, const struct sender_stats *stats, const struct policy *policy)
{
    report->raw_bytes += stats->raw_bytes;
    report->wire_bytes += stats->wire_bytes;
    classes_add(&report->classes, &stats->classes);
    report->rounds++;
    json_t *round = json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:o}", "number", (int)report->rounds, "pages",
        (json_int_t)stats->pages, "zero_pages", (json_int_t)stats->classes.pages[CLASS_ZERO], "raw_bytes",
        (json_int_t)stats->raw_bytes, "wire_bytes", (json_int_t)stats->wire_bytes, "duration_us",
        (json_int_t)(stats->duration_ns / 1000), "classes", report_classes(&stats->classes));
    if (!report->round_list)
        report->round_list = json_array();
    if (report->rounds <= REPORT_ROUNDS_MAX)
        json_array_append(report->round_list, round);
    json_t *event = json_copy(round);
    json_decref(round);
    json_object_set_new(event, "dirty_pages_per_s", json_integer((json_int_t)(policy->dirty_pages_per_us * 1e6)));
    json_object_set_new(event, "bandwidth_bytes_per_s", json_integer((json_int_t)(policy->bytes_per_us * 1e6)));
    json_object_set_new(event, "remaining_bytes", json_integer((json_int_t)(policy->remaining_pages * PAGE_BYTES)));
    return event;
}

json_t *report_forecast(struct report *report, const struct forecast *f, const struct forecast_input *in)
{
    json_t *curve = json_array();
    for (size_t i = 0; i < in->points; i++)
        json_array_append_new(
            curve, json_pack("[I, I]", (json_int_t)in->curve[i].us, (json_int_t)(in->curve[i].pages * PAGE_BYTES)));
    json_decref(report->forecast);
    report->forecast = json_pack("{s:s, s:I, s:I, s:I, s:i, s:i, s:I, s:I, s:s, s:I, s:o, s:s}", "mode",
        forecast_mode_name(f->mode), "total_us", (json_int_t)f->total_us, "blackout_us", (json_int_t)f->blackout_us,
        "wire_bytes", (json_int_t)f->wire_bytes, "rounds", (int)f->rounds, "throttle_percent", (int)f->throttle_percent,
        "bandwidth_bytes_per_s", (json_int_t)f->bandwidth_bytes_per_s, "pace_bytes_per_s",
        (json_int_t)f->pace_bytes_per_s, "link", forecast_link_name(f->link), "dirty_pages_per_s",
        (json_int_t)f->written_pages_per_s, "curve", curve, "why", f->why);
    return json_copy(report->forecast);
}

static json_t *report_postcopy_json(const struct report_postcopy *p)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "duration_us", (json_int_t)p->duration_us,
        "stale_pages", (json_int_t)p->stale_pages, "demanded_pages", (json_int_t)p->demanded_pages, "zero_faults",
        (json_int_t)p->zero_faults, "late_copies", (json_int_t)p->late_copies, "wire_bytes", (json_int_t)p->wire_bytes,
        "wait_p50_us", (json_int_t)p->wait_p50_us, "wait_p99_us", (json_int_t)p->wait_p99_us, "wait_max_us",
        (json_int_t)p->wait_max_us, "resumes", (json_int_t)p->resumes);
}

json_t *report_json(const struct report *report)
{
    json_t *postcopy = report->postcopied ? report_postcopy_json(&report->postcopy) : NULL;
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:s, s:s, s:s, s:i, s:I, s:I, s:s, s:o*, s:O*}",
        "mode", report->mode, "tracker", report->tracker, "total_us", (json_int_t)report->total_us, "blackout_us",
        (json_int_t)report->blackout_us, "last_pages_us", (json_int_t)report->last_pages_us, "raw_bytes",
        (json_int_t)report->raw_bytes, "wire_bytes", (json_int_t)report->wire_bytes, "state_bytes",
        (json_int_t)report->state_bytes, "disk_bytes", (json_int_t)report->disk_bytes, "disk_us",
        (json_int_t)report->disk_us, "classes", report_classes(&report->classes), "rounds",
        report->round_list ? json_incref(report->round_list) : json_array(), "receipt", report->receipt, "source_hash",
        report->source_hash, "destination_hash", report->destination_hash, "throttle_percent",
        (int)report->throttle_percent, "throttled_us", (json_int_t)report->throttled_us, "clock_forward_us",
        (json_int_t)report->clock_forward_us, "clock_left", guestclock_left_text(report->clock_left), "postcopy",
        postcopy, "forecast", report->forecast);
}

void report_free(struct report *report)
{
    json_decref(report->round_list);
    report->round_list = NULL;
    json_decref(report->forecast);
    report->forecast = NULL;
}
