#include "base/process.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/file.h"

struct proc_stat {
    char state;
    uint64_t user_ticks, system_ticks, start_ticks;
    int64_t rss_pages;
};

static int proc_stat_read(pid_t pid, struct err *err, struct proc_stat *out)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    cleanup_buf struct buf text = {0};
    if (file_read(path, 8192, err, &text) < 0)
        return -1;
    /* The second field is the command in parentheses and may itself hold blanks and parentheses (proc(5)). */
    const char *rest = strrchr(buf_str(&text), ')');
    struct proc_stat st = {0};
    if (!rest || sscanf(rest + 1,
                     " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                     " %*d %*d %*d %*d %*d %*d %" SCNu64 " %*u %" SCNd64,
                     &st.state, &st.user_ticks, &st.system_ticks, &st.start_ticks, &st.rss_pages) != 5)
        return err_set(err, ERR_INTERNAL, "cannot make sense of %s", path);
    *out = st;
    return 0;
}

int process_identify(pid_t pid, struct err *err, struct process_id *out)
{
    struct proc_stat st = {0};
    if (proc_stat_read(pid, err, &st) < 0)
        return -1;
    if (st.state == 'Z' || st.state == 'X')
        return err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)pid);
    *out = (struct process_id){pid, st.start_ticks};
    return 0;
}

bool process_alive(struct process_id id)
{
    struct process_id now = {0};
    struct err err = {0};
    if (id.pid <= 0)
        return false;
    if (process_identify(id.pid, &err, &now) < 0)
        return err.code != ERR_NOT_FOUND;
    return now.start_ticks == id.start_ticks;
}

int process_signal(struct process_id id, int signal, struct err *err)
{
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, id.pid, 0);
    if (pidfd < 0)
        return err_errno(err, errno == ESRCH ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "process %d", (int)id.pid);
    /* The descriptor pins the process: if the identity still matches now, it is the right one. */
    if (!process_alive(id))
        return err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)id.pid);
    if (syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot signal process %d", (int)id.pid);
    return 0;
}

int process_usage(pid_t pid, struct err *err, struct process_usage *out)
{
    struct proc_stat st = {0};
    if (proc_stat_read(pid, err, &st) < 0)
        return -1;
    uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    out->cpu_ns = (st.user_ticks + st.system_ticks) * tick_ns;
    out->rss_bytes = st.rss_pages < 0 ? 0 : (uint64_t)st.rss_pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

/* Lines of /proc/PID/maps end with the file's name, the first thing in them with a slash. */
static bool maps_name(FILE *maps, const char *path)
{
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (!found && getline(&line, &size, maps) > 0) {
        line[strcspn(line, "\n")] = '\0';
        const char *name = strchr(line, '/');
        found = name && strcmp(name, path) == 0;
    }
    free(line);
    return found;
}

bool process_maps(const char *path, pid_t *out)
{
    DIR *dir = opendir("/proc");
    bool found = false;
    for (const struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        char name[300];
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end || pid <= 0)
            continue;
        snprintf(name, sizeof name, "/proc/%s/maps", entry->d_name);
        FILE *maps = fopen(name, "re");
        found = maps && maps_name(maps, path);
        if (maps)
            fclose(maps);
        if (found)
            *out = (pid_t)pid;
    }
    if (dir)
        closedir(dir);
    return found;
}
