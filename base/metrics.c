#include "base/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/ensure.h"
#include "base/process.h"

/* Names are ours, so a bad one is our own fault; values come from anywhere and are made harmless. */
static bool metrics_name_valid(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";
    return name[0] && strchr(letters, name[0]) && strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(name);
}

static bool metrics_name_ends(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* Length of the well-formed UTF-8 sequence `s` begins with (RFC 3629), 0 when there is none. One bad byte in a label
 * makes Prometheus refuse the whole scrape. */
static size_t metrics_utf8(const char *s)
{
    const unsigned char *b = (const unsigned char *)s;
    size_t len = b[0] < 0x80 ? 1 : b[0] >= 0xf0 ? 4 : b[0] >= 0xe0 ? 3 : 2;
    if (len == 1)
        return 1;
    if (b[0] < 0xc2 || b[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((b[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xf0 && b[1] < 0x90);
    bool outside = (b[0] == 0xed && b[1] > 0x9f) || (b[0] == 0xf4 && b[1] > 0x8f);
    return overlong || outside ? 0 : len;
}

/* In help texts quotes stay as they are, in label values they are escaped. */
static void metrics_escape(struct buf *out, const char *text, bool quotes)
{
    for (size_t len; *text; text += len) {
        len = metrics_utf8(text);
        if (len == 0) {
            buf_append(out, "?", 1);
            len = 1;
        } else if (*text == '\n')
            buf_append(out, "\\n", 2);
        else if (*text == '\\' || (quotes && *text == '"'))
            buf_printf(out, "\\%c", *text);
        else
            buf_append(out, text, len);
    }
}

static void metrics_number(struct buf *out, double value)
{
    if (isnan(value))
        buf_printf(out, "NaN");
    else if (isinf(value))
        buf_printf(out, value > 0 ? "+Inf" : "-Inf");
    else if (fabs(value) < 9007199254740992.0 && value == (double)(int64_t)value) /* below 2^53: exact */
        buf_printf(out, "%.0f", value);
    else {
        char text[32];
        snprintf(text, sizeof text, "%.15g", value);
        if (strtod(text, NULL) != value)
            snprintf(text, sizeof text, "%.17g", value);
        buf_printf(out, "%s", text);
    }
}

static void metrics_head(struct metrics *m, const char *name, const char *type, const char *help)
{
    ENSURE(metrics_name_valid(name));
    ENSURE(help[0]);
    buf_printf(&m->text, "# HELP %s ", name);
    metrics_escape(&m->text, help, false);
    buf_printf(&m->text, "\n# TYPE %s %s\n", name, type);
}

void metrics_family(struct metrics *m, const char *name, enum metric_type type, const char *help)
{
    ENSURE((type == METRIC_COUNTER) == metrics_name_ends(name, "_total"));
    metrics_head(m, name, type == METRIC_COUNTER ? "counter" : "gauge", help);
    m->family = name;
}

void metrics_sample(struct metrics *m, double value, ...)
{
    ENSURE(m->family != NULL);
    buf_printf(&m->text, "%s", m->family);
    va_list labels;
    va_start(labels, value);
    const char *separator = "{", *label;
    while ((label = va_arg(labels, const char *))) {
        ENSURE(metrics_name_valid(label));
        buf_printf(&m->text, "%s%s=\"", separator, label);
        const char *text = va_arg(labels, const char *);
        metrics_escape(&m->text, text ? text : "", true);
        buf_append(&m->text, "\"", 1);
        separator = ",";
    }
    va_end(labels);
    buf_printf(&m->text, separator[0] == ',' ? "} " : " ");
    metrics_number(&m->text, value);
    buf_append(&m->text, "\n", 1);
}

void metrics_gauge(struct metrics *m, const char *name, const char *help, double value)
{
    metrics_family(m, name, METRIC_GAUGE, help);
    metrics_sample(m, value, NULL);
}

void metrics_counter(struct metrics *m, const char *name, const char *help, double value)
{
    metrics_family(m, name, METRIC_COUNTER, help);
    metrics_sample(m, value, NULL);
}

void metrics_observe(struct metrics_histogram *h, double value)
{
    ENSURE(h->bound_count <= METRICS_BUCKETS_MAX);
    if (isnan(value))
        return; /* belongs to no bucket, and would make the sum useless for ever */
    size_t i = 0;
    while (i < h->bound_count && value > h->bounds[i])
        i++;
    h->counts[i]++;
    h->sum += value;
}

void metrics_histogram(struct metrics *m, const char *name, const char *help, const struct metrics_histogram *h)
{
    ENSURE(h->bound_count <= METRICS_BUCKETS_MAX);
    metrics_head(m, name, "histogram", help);
    m->family = NULL; /* a histogram is complete; a sample behind it would be a mistake */
    uint64_t total = 0;
    for (size_t i = 0; i <= h->bound_count; i++) {
        ENSURE(i == 0 || i == h->bound_count || h->bounds[i] > h->bounds[i - 1]);
        total += h->counts[i];
        buf_printf(&m->text, "%s_bucket{le=\"", name);
        metrics_number(&m->text, i < h->bound_count ? h->bounds[i] : (double)INFINITY);
        buf_printf(&m->text, "\"} %" PRIu64 "\n", total);
    }
    buf_printf(&m->text, "%s_sum ", name);
    metrics_number(&m->text, h->sum);
    buf_printf(&m->text, "\n%s_count %" PRIu64 "\n", name, total);
}

void metrics_process(struct metrics *m, const char *program)
{
    struct process_usage usage;
    if (process_usage(getpid(), NULL, &usage) == 0) {
        metrics_family(m, "process_cpu_seconds_total", METRIC_COUNTER, "CPU time this daemon has used, in seconds.");
        metrics_sample(m, (double)usage.cpu_ns / 1e9, NULL);
        metrics_family(m, "process_resident_memory_bytes", METRIC_GAUGE, "Resident memory of this daemon, in bytes.");
        metrics_sample(m, (double)usage.rss_bytes, NULL);
    }
    metrics_family(m, "drover_build_info", METRIC_GAUGE, "Always 1; the labels say which program and version answers.");
    metrics_sample(m, 1, "program", program, "version", DROVER_VERSION, NULL);
}
