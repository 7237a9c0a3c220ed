/* One cgroup per partition, "drover/<scope>-<vm id>", for exact CPU accounting: in the hierarchies
 * cpuacct, cpu and memory of cgroup v1, or in v2. Where none can be written, everything here does nothing and says so
 * once. */
#ifndef HOSTD_CGROUP_H
#define HOSTD_CGROUP_H

#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"

#define CGROUP_TREES_MAX 3

struct cgroups;

/* `scope` keeps the hosts on one machine apart. Empty cgroups of it that an earlier hostd has left are removed. Never
 * fails: without cgroups the object is empty. Take: cgroups_close(). */
struct cgroups *cgroups_open(uv_loop_t *loop, const char *scope);
void cgroups_close(struct cgroups *cgroups);

/* Makes the partition's cgroup and opens the files a process puts itself into it with (writing "0"). Returns how many;
 * the caller closes them. */
size_t cgroup_make(struct cgroups *cgroups, const char *vm_id, int fds[static CGROUP_TREES_MAX]);
/* CPU time of all processes that are or were in it; -1: not known. */
MUST_CHECK int cgroup_cpu_ns(struct cgroups *cgroups, const char *vm_id, uint64_t *out);
/* Removes it; its processes must have ended. The kernel may count a process in for a moment after its end was told, so
 * this is tried again until it is gone, or made anew. */
void cgroup_remove(struct cgroups *cgroups, const char *vm_id);

#endif
