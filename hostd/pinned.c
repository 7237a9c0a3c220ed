#include "hostd/pinned.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU calls the threads of virtual CPUs "CPU 0/KVM" (guests are started with debug-threads=on). */
static bool is_vcpu(pid_t qemu, pid_t thread)
{
    char path[64], name[32];
    snprintf(path, sizeof path, "/proc/%d/task/%d/comm", (int)qemu, (int)thread);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool is = fgets(name, sizeof name, file) && strncmp(name, "CPU ", 4) == 0;
    fclose(file);
    return is;
}

void pinned_add(pid_t qemu, const cpu_set_t *all, cpu_set_t *pinned)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/task", (int)qemu);
    DIR *tasks = opendir(path);
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        cpu_set_t cores, common;
        if (thread <= 0 || !is_vcpu(qemu, thread) || sched_getaffinity(thread, sizeof cores, &cores) < 0)
            continue;
        CPU_AND(&common, &cores, all);
        if (!CPU_EQUAL(&common, all))
            CPU_OR(pinned, pinned, &common);
    }
    if (tasks)
        closedir(tasks);
}

bool pinned_rest(const cpu_set_t *all, const cpu_set_t *pinned, cpu_set_t *rest)
{
    cpu_set_t taken;
    CPU_AND(&taken, all, pinned);
    CPU_XOR(rest, all, &taken);
    if (CPU_COUNT(rest) > 0)
        return true;
    *rest = *all;
    return false;
}
