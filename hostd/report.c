#include "hostd/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/jsonfield.h"
#include "hostd/text.h"

/* Protobuf-c frees strings that are not the empty default. */
static void set_text(char **field, const char *text)
{
    char printable[256];
    if (*field && **field)
        free(*field);
    *field = (char *)(uintptr_t)protobuf_c_empty_string;
    if (text[0])
        *field = mem_strdup(text_print(printable, sizeof printable, text));
}

static Drover__MigrationRecord *record_of(struct report *r)
{
    if (!r->record) {
        r->record = mem_alloc(sizeof *r->record);
        drover__migration_record__init(r->record);
    }
    return r->record;
}

static void add_round(Drover__MigrationRecord *record, const json_t *event)
{
    if (record->n_rounds >= REPORT_ROUNDS_MAX)
        return;
    Drover__MigrationRound *round = mem_alloc(sizeof *round);
    drover__migration_round__init(round);
    round->number = (uint32_t)jsonfield_count(event, "number");
    round->pages = jsonfield_count(event, "pages");
    round->zero_pages = jsonfield_count(event, "zero_pages");
    round->raw_bytes = jsonfield_count(event, "raw_bytes");
    round->wire_bytes = jsonfield_count(event, "wire_bytes");
    round->duration_us = jsonfield_count(event, "duration_us");
    record->rounds = mem_realloc(record->rounds, (record->n_rounds + 1) * sizeof *record->rounds);
    record->rounds[record->n_rounds++] = round;
}

static void drop_rounds(Drover__MigrationRecord *record)
{
    for (size_t i = 0; i < record->n_rounds; i++)
        drover__migration_round__free_unpacked(record->rounds[i], NULL);
    free(record->rounds);
    record->rounds = NULL;
    record->n_rounds = 0;
}

/* {"zero": {"pages": N, "bytes": N}, ...} */
static void set_classes(Drover__MigrationRecord *record, json_t *from)
{
    const char *name;
    json_t *value;
    json_object_foreach(from, name, value)
    {
        if (record->n_classes >= REPORT_CLASSES_MAX)
            return;
        Drover__MigrationClass *class = mem_alloc(sizeof *class);
        drover__migration_class__init(class);
        set_text(&class->name, name);
        class->pages = jsonfield_count(value, "pages");
        class->bytes = jsonfield_count(value, "bytes");
        record->classes = mem_realloc(record->classes, (record->n_classes + 1) * sizeof(Drover__MigrationClass *));
        record->classes[record->n_classes++] = class;
    }
}

static enum report_change apply_round(struct report *r, const json_t *event)
{
    r->round = (uint32_t)jsonfield_count(event, "number");
    r->remaining_bytes = jsonfield_count(event, "remaining_bytes");
    r->bandwidth_bytes_per_s = jsonfield_count(event, "bandwidth_bytes_per_s");
    r->dirty_pages_per_s = jsonfield_count(event, "dirty_pages_per_s");
    r->raw_bytes += jsonfield_count(event, "raw_bytes");
    r->wire_bytes += jsonfield_count(event, "wire_bytes");
    add_round(record_of(r), event);
    return REPORT_ROUND;
}

#define CURVE_MAX 16

static void add_point(Drover__MigrationForecast *forecast, const json_t *pair)
{
    Drover__MigrationForecastPoint *point = mem_alloc(sizeof *point);
    drover__migration_forecast_point__init(point);
    json_int_t us = json_integer_value(json_array_get(pair, 0)), bytes = json_integer_value(json_array_get(pair, 1));
    point->us = us < 0 ? 0 : (uint64_t)us;
    point->bytes = bytes < 0 ? 0 : (uint64_t)bytes;
    forecast->curve = mem_realloc(forecast->curve, (forecast->n_curve + 1) * sizeof *forecast->curve);
    forecast->curve[forecast->n_curve++] = point;
}

static enum report_change apply_forecast(struct report *r, const json_t *event)
{
    Drover__MigrationRecord *record = record_of(r);
    if (record->forecast) /* told again to a hostd that is new */
        drover__migration_forecast__free_unpacked(record->forecast, NULL);
    Drover__MigrationForecast *f = record->forecast = mem_alloc(sizeof *f);
    drover__migration_forecast__init(f);
    set_text(&f->mode, jsonfield_text(event, "mode"));
    set_text(&f->link, jsonfield_text(event, "link"));
    set_text(&f->why, jsonfield_text(event, "why"));
    f->total_us = jsonfield_count(event, "total_us");
    f->blackout_us = jsonfield_count(event, "blackout_us");
    f->wire_bytes = jsonfield_count(event, "wire_bytes");
    f->rounds = (uint32_t)jsonfield_count(event, "rounds");
    f->throttle_percent = (uint32_t)jsonfield_count(event, "throttle_percent");
    f->bandwidth_bytes_per_s = jsonfield_count(event, "bandwidth_bytes_per_s");
    f->pace_bytes_per_s = jsonfield_count(event, "pace_bytes_per_s");
    f->dirty_pages_per_s = jsonfield_count(event, "dirty_pages_per_s");
    const json_t *curve = json_object_get(event, "curve"), *pair;
    size_t i;
    json_array_foreach(curve, i, pair) if (i < CURVE_MAX) add_point(f, pair);
    return REPORT_FORECAST;
}

static enum report_change apply_done(struct report *r, const json_t *event)
{
    const json_t *from = json_object_get(event, "record");
    Drover__MigrationRecord *record = record_of(r);
    record->total_us = jsonfield_count(from, "total_us");
    record->blackout_us = jsonfield_count(from, "blackout_us");
    record->last_pages_us = jsonfield_count(from, "last_pages_us");
    record->raw_bytes = jsonfield_count(from, "raw_bytes");
    record->wire_bytes = jsonfield_count(from, "wire_bytes");
    record->state_bytes = jsonfield_count(from, "state_bytes");
    record->throttle_percent = (uint32_t)jsonfield_count(from, "throttle_percent");
    record->throttled_us = jsonfield_count(from, "throttled_us");
    record->disk_bytes = jsonfield_count(from, "disk_bytes");
    record->disk_us = jsonfield_count(from, "disk_us");
    record->clock_forward_us = jsonfield_count(from, "clock_forward_us");
    set_text(&record->clock_left, jsonfield_text(from, "clock_left"));
    const json_t *postcopy = json_object_get(from, "postcopy");
    record->postcopy_us = jsonfield_count(postcopy, "duration_us");
    record->stale_pages = jsonfield_count(postcopy, "stale_pages");
    record->demanded_pages = jsonfield_count(postcopy, "demanded_pages");
    record->page_wait_p50_us = jsonfield_count(postcopy, "wait_p50_us");
    record->page_wait_max_us = jsonfield_count(postcopy, "wait_max_us");
    record->resumes = (uint32_t)jsonfield_count(postcopy, "resumes");
    set_text(&record->mode, jsonfield_text(from, "mode"));
    set_text(&record->tracker, jsonfield_text(from, "tracker"));
    set_text(&record->receipt, jsonfield_text(from, "receipt"));
    set_text(&record->source_hash, jsonfield_text(from, "source_hash"));
    set_text(&record->destination_hash, jsonfield_text(from, "destination_hash"));
    if (!r->done)
        set_classes(record, json_object_get(from, "classes"));
    const json_t *rounds = json_object_get(from, "rounds"), *round;
    if (json_array_size(rounds) > 0) {
        size_t i;
        drop_rounds(record);
        json_array_foreach(rounds, i, round)
        {
            add_round(record, round);
        }
    }
    r->done = true;
    return REPORT_DONE;
}

enum report_change report_apply(struct report *r, const json_t *event)
{
    const char *name = jsonfield_text(event, "event");
    if (strcmp(name, "phase") == 0) {
        text_print(r->phase, sizeof r->phase, jsonfield_text(event, "phase"));
        r->unanswered = strcmp(r->phase, "unanswered") == 0;
        return REPORT_PHASE;
    }
    if (strcmp(name, "listening") == 0) {
        text_print(r->address, sizeof r->address, jsonfield_text(event, "address"));
        return r->address[0] ? REPORT_LISTENING : REPORT_NOTHING;
    }
    if (strcmp(name, "round") == 0)
        return apply_round(r, event);
    if (strcmp(name, "forecast") == 0)
        return apply_forecast(r, event);
    if (strcmp(name, "throttle") == 0) {
        r->throttle_percent = (uint32_t)jsonfield_count(event, "percent");
        return REPORT_PROGRESS;
    }
    if (strcmp(name, "progress") == 0) {
        r->remaining_bytes = jsonfield_count(event, "remaining_bytes");
        r->dirty_pages_per_s = 0; /* the guest writes elsewhere now */
        return REPORT_PROGRESS;
    }
    if (strcmp(name, "done") == 0)
        return apply_done(r, event);
    if (strcmp(name, "heard") == 0) {
        r->heard_us = jsonfield_count(event, "after_us");
        return REPORT_HEARD;
    }
    if (strcmp(name, "failed") == 0) {
        char message[ERR_MESSAGE_MAX];
        err_set(&r->failure, err_from_name(jsonfield_text(event, "code")), "%s",
            text_print(message, sizeof message, jsonfield_text(event, "message")));
        r->failed = true;
        return REPORT_FAILED;
    }
    return REPORT_NOTHING;
}

void report_progress(const struct report *r, uint64_t elapsed_ms, Drover__MigrationProgress *out)
{
    drover__migration_progress__init(out);
    out->phase = (char *)(uintptr_t)r->phase;
    out->round = r->round;
    out->remaining_bytes = r->remaining_bytes;
    out->raw_bytes = r->raw_bytes;
    out->wire_bytes = r->wire_bytes;
    out->bandwidth_bytes_per_s = r->bandwidth_bytes_per_s;
    out->dirty_pages_per_s = r->dirty_pages_per_s;
    out->elapsed_ms = elapsed_ms;
    out->throttle_percent = r->throttle_percent == 100 ? 0 : r->throttle_percent;
    out->forecast = r->record ? r->record->forecast : NULL;
}

void report_clear(struct report *r)
{
    if (r->record)
        drover__migration_record__free_unpacked(r->record, NULL);
    *r = (struct report){0};
}

bool report_last_words(const char *line, struct err *out)
{
    static const char quoted[] = " message=\"";
    const char *code = strstr(line, " code="), *message = strstr(line, quoted);
    char name[32], text[ERR_MESSAGE_MAX], clean[ERR_MESSAGE_MAX];
    size_t used = 0;
    if (!strstr(line, " level=error ") || !code || !message || message < code)
        return false;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(code + 6, " "), code + 6);
    for (message += strlen(quoted); *message && *message != '"' && used < sizeof text - 1; message++) {
        if (*message == '\\' && message[1])
            message++;
        text[used++] = *message;
    }
    text[used] = '\0';
    err_set(out, err_from_name(name), "%s", text_print(clean, sizeof clean, text));
    return true;
}

enum record_phase record_phase_parse(const char *text, size_t len, const char *migration_id)
{
    static const struct {
        const char *name;
        enum record_phase phase;
    } phases[] = {{"failed", RECORD_FAILED}, {"handed-over", RECORD_HANDED_OVER}, {"taken", RECORD_TAKEN},
        {"owner", RECORD_OWNER}};
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    enum record_phase found = RECORD_UNREADABLE;
    if (strcmp(jsonfield_text(json, "migration"), migration_id) == 0)
        for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
            if (strcmp(jsonfield_text(json, "phase"), phases[i].name) == 0)
                found = phases[i].phase;
    if (json_is_true(json_object_get(json, "postcopy")))
        found = found == RECORD_OWNER ? RECORD_FETCHING : found == RECORD_HANDED_OVER ? RECORD_SENDING : found;
    json_decref(json);
    return found;
}
