/* A small cluster to feed the optimizer with: made by hand, or from a seed. */
#ifndef TESTS_UNIT_OPTIMIZER_CLUSTER_H
#define TESTS_UNIT_OPTIMIZER_CLUSTER_H

#include "optimizer/optimizer.h"

#define CLUSTER_HOSTS_MAX 16
#define CLUSTER_VMS_MAX   128
#define GIB               (1024.0 * 1024 * 1024)

struct cluster {
    struct optimizer_host hosts[CLUSTER_HOSTS_MAX];
    struct optimizer_vm vms[CLUSTER_VMS_MAX];
    struct optimizer_input input;
};

void cluster_init(struct cluster *c);
/* Both return the index. */
size_t cluster_host(struct cluster *c, const char *name, double cores, double memory_gib, double iops);
size_t cluster_vm(struct cluster *c, const char *name, size_t host, double cores, double memory_gib, double iops);
double cluster_used(const struct cluster *c, size_t host, enum resource resource);
double cluster_utilization(const struct cluster *c, size_t host, enum resource resource);
/* Carries the plan out at the input's time. */
void cluster_apply(struct cluster *c, const struct optimizer_plan *plan);
/* Any cluster, from the seed alone; loads from idle to overcommitted. */
void cluster_random(struct cluster *c, uint64_t seed);

#endif
