/* One cgroup per partition, for exact CPU accounting, a fair share of the processors, and limits. Where systemd runs
 * the machine, which wants to be the only one to make cgroups, it is asked for a scope in drover.slice (scope.h).
 * Elsewhere hostd makes "drover-<host>/<vm id>" at the root of cgroup v1's cpuacct, cpu and memory hierarchies, or of
 * v2's. On v1 each host on a machine then weighs as much as another, and a host's guests among themselves likewise; on
 * v2 nobody hands down the cpu controller by itself (cgroup.subtree_control, or systemd's CPUWeight=), so there it
 * counts and no more. Where none can be written, everything here does nothing and says so once. */
#ifndef HOSTD_CGROUP_H
#define HOSTD_CGROUP_H

#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/err.h"

#define CGROUP_TREES_MAX 3

struct cgroups;

/* `directory`: the host's own, which keeps the hosts on one machine apart. Empty cgroups that an earlier hostd has left
 * are removed. Never fails: without cgroups the object is empty. Take: cgroups_close(). */
struct cgroups *cgroups_open(uv_loop_t *loop, const char *directory);
void cgroups_close(struct cgroups *cgroups);

/* Makes the partition's cgroup and opens the files a process puts itself into it with (writing "0"). Returns how many:
 * none where systemd is to do it; the caller closes them. */
size_t cgroup_make(struct cgroups *cgroups, const char *vm_id, int fds[static CGROUP_TREES_MAX]);
/* The partition's process `pid` runs, in hostd's own cgroup perhaps: systemd, if there is one, is asked to take it into
 * one of its own. `name`: the VM's. Without an object (NULL) nobody is asked. */
void cgroup_entrust(struct cgroups *cgroups, const char *vm_id, const char *name, pid_t pid);
/* CPU time of all processes that are or were in the cgroup of the partition, whose process is `pid`; -1: not known. */
MUST_CHECK int cgroup_cpu_ns(struct cgroups *cgroups, const char *vm_id, pid_t pid, uint64_t *out);
/* Removes it; its processes must have ended. The kernel may count a process in for a moment after its end was told, so
 * this is tried again until it is gone, or made anew. */
void cgroup_remove(struct cgroups *cgroups, const char *vm_id);

#endif
