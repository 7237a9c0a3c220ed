/* Prometheus text exposition (format 0.0.4): a writer that keeps names, help and types in order. Pure.
 *
 *   metrics_family(&m, "drover_host_cpu_cores", METRIC_GAUGE, "CPU cores busy with partitions.");
 *   metrics_sample(&m, value, "host", name, NULL);
 *   metrics_histogram(&m, "drover_migration_blackout_seconds", "How long guests stood still.", &blackouts);
 *
 * A name means one thing, whichever program exports it: Prometheus adds up what is called alike. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdint.h>

#include "base/buf.h"

enum metric_type { METRIC_GAUGE, METRIC_COUNTER };

struct metrics {
    struct buf text; /* owned; buf_free() it */
    const char *family;
};

/* Begins a family; `name` is lent until the next family. */
void metrics_family(struct metrics *m, const char *name, enum metric_type type, const char *help);
/* One sample of the family; label names and values follow in pairs, ended by NULL. Values are escaped. */
void metrics_sample(struct metrics *m, double value, ... /* const char *label, const char *value, NULL */);
/* A family of one sample without labels. */
void metrics_gauge(struct metrics *m, const char *name, const char *help, double value);
void metrics_counter(struct metrics *m, const char *name, const char *help, double value);

/* A histogram that is kept by its owner: upper bounds (ascending, without +Inf) and counts per bucket. */
#define METRICS_BUCKETS_MAX 16
struct metrics_histogram {
    const double *bounds;
    size_t bound_count;
    uint64_t counts[METRICS_BUCKETS_MAX + 1];
    double sum;
};
void metrics_observe(struct metrics_histogram *h, double value);
void metrics_histogram(struct metrics *m, const char *name, const char *help, const struct metrics_histogram *h);
/* What every daemon says of itself: process_cpu_seconds_total, process_resident_memory_bytes,
 * drover_build_info{program,version}. */
void metrics_process(struct metrics *m, const char *program);

#endif
