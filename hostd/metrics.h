/* What hostd tells Prometheus. */
#ifndef HOSTD_METRICS_H
#define HOSTD_METRICS_H

#include "base/metrics.h"
#include "hostd/agent.h"

struct hostd_metrics {
    const struct options *options;
    struct partitions *partitions;
    struct outcomes *outcomes;
    struct stats *stats;
    struct agent *agent;
    struct wire *wire;
};

/* A collector for exporter_open(); `user` is a struct hostd_metrics. */
void hostd_metrics_collect(void *user, struct metrics *m);

#endif
