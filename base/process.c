#include "base/process.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

struct proc_stat {
    char state;
    uint64_t user_ticks, system_ticks, start_ticks;
    int64_t threads, rss_pages;
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
                     " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %*d %*d %*d %*d %" SCNd64
                     " %*d %" SCNu64 " %*u %" SCNd64,
                     &st.state, &st.user_ticks, &st.system_ticks, &st.threads, &st.start_ticks, &st.rss_pages) != 6)
        return err_set(err, ERR_INTERNAL, "cannot make sense of %s", path);
    *out = st;
    return 0;
}

int process_identify(pid_t pid, struct err *err, struct process_id *out)
{
    struct proc_stat st = {0};
    if (proc_stat_read(pid, err, &st) < 0)
        return -1;
    /* A first thread that has ended looks the same while others, held up in the kernel, may still write. */
    if ((st.state == 'Z' || st.state == 'X') && st.threads <= 1)
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

/* A descriptor that pins the process: if the identity still matches now, it is the right one. Take: close(2). */
static int process_pin(struct process_id id, struct err *err, int *out)
{
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, id.pid, 0);
    if (pidfd < 0)
        return err_errno(err, errno == ESRCH ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "process %d", (int)id.pid);
    if (!process_alive(id))
        return err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)id.pid);
    *out = pidfd;
    pidfd = -1;
    return 0;
}

static int pinned_signal(int pidfd, struct process_id id, int signal, struct err *err)
{
    if (syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0)
        return err_errno(
            err, errno == ESRCH ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "cannot signal process %d", (int)id.pid);
    return 0;
}

int process_signal(struct process_id id, int signal, struct err *err)
{
    cleanup_fd int pidfd = -1;
    return process_pin(id, err, &pidfd) < 0 ? -1 : pinned_signal(pidfd, id, signal, err);
}

int process_end(struct process_id id, unsigned within_ms, struct err *err)
{
    cleanup_fd int pidfd = -1;
    struct err why;
    if (!process_alive(id))
        return 0;
    if (process_pin(id, &why, &pidfd) < 0 || pinned_signal(pidfd, id, SIGKILL, &why) < 0) {
        if (why.code == ERR_NOT_FOUND)
            return 0;
        *err = why;
        return -1;
    }
    struct pollfd gone = {.fd = pidfd, .events = POLLIN}; /* readable once all its threads have ended */
    uint64_t until_ms = clock_now_ms() + within_ms;
    for (;;) {
        uint64_t now_ms = clock_now_ms();
        int rc = poll(&gone, 1, now_ms < until_ms ? (int)(until_ms - now_ms) : 0);
        if (rc > 0)
            return 0;
        if (rc < 0 && errno != EINTR)
            return err_errno(err, ERR_INTERNAL, errno, "cannot wait for process %d", (int)id.pid);
        if (now_ms >= until_ms)
            return err_set(err, ERR_TIMEOUT,
                "process %d was killed, and is there after %u ms all the same: something "
                "in the kernel holds it, e.g. storage that does not answer",
                (int)id.pid, within_ms);
    }
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
static int maps_name(FILE *maps, const char *path)
{
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    errno = 0;
    while (!found && getline(&line, &size, maps) > 0) {
        line[strcspn(line, "\n")] = '\0';
        const char *name = strchr(line, '/');
        found = name && strcmp(name, path) == 0;
        errno = 0;
    }
    int why = errno;
    free(line);
    errno = why;
    return found ? 1 : why ? -1 : 0;
}

/* As process_maps(), of one process; one that has ended meanwhile has nothing mapped. */
static int pid_maps(long pid, const char *path, struct err *err)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/%ld/maps", pid);
    FILE *maps = fopen(name, "re");
    int rc = maps ? maps_name(maps, path) : -1;
    int why = errno;
    if (maps)
        fclose(maps);
    if (rc >= 0 || why == ENOENT || why == ESRCH)
        return rc > 0;
    return err_errno(err, ERR_INTERNAL, why, "cannot read %s", name);
}

static int scan_maps(DIR *proc, const char *path, struct err *err, pid_t *out)
{
    int rc = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(proc);
        if (!entry)
            return errno ? err_errno(err, ERR_INTERNAL, errno, "cannot list /proc") : rc;
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end || pid <= 1) /* init is nobody's child, and in containers not to be looked at */
            continue;
        int maps = pid_maps(pid, path, err);
        if (maps > 0) {
            *out = (pid_t)pid;
            return 1;
        }
        if (maps < 0)
            rc = -1; /* another one may be seen to have it */
    }
}

int process_maps(const char *path, struct err *err, pid_t *out)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return errno == ENOENT ? 0 : err_errno(err, ERR_INTERNAL, errno, "cannot look at %s", path);
    DIR *proc = opendir("/proc");
    if (!proc)
        return err_errno(err, ERR_INTERNAL, errno, "cannot open /proc");
    int rc = scan_maps(proc, real, err, out);
    closedir(proc);
    return rc;
}
