/* What partitions and this host's own processes use, looked at once a second. Only of partitions, engines and hostd:
 * several hosts may share one machine, so nothing is read off the machine as a whole. Single-threaded. */
#ifndef HOSTD_STATS_H
#define HOSTD_STATS_H

#include "hostd/partition/partition.h"
#include "proto/load.h"

struct stats;

/* Lends everything. Take: stats_close(), before the partitions are closed. */
struct stats *stats_open(uv_loop_t *loop, struct partitions *partitions, struct cgroups *cgroups, struct net *net);
void stats_close(struct stats *stats);
/* Sum over the partitions, and CPU and memory of hostd and the engines. Lent. */
const Drover__Load *stats_host(const struct stats *stats);

/* What a new leader is told of the ten minutes before. */
struct stats_history {
    Drover__LoadHistory message; /* points to the rest */
    Drover__Load overhead, peaks[LOAD_PEAKS_MAX], *list[LOAD_PEAKS_MAX];
};
void stats_history(const struct stats *stats, struct stats_history *out);

#endif
