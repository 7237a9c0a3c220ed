#include "migrate/tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "migrate/tracker_private.h"
#include "migrate/uffd.h"

struct tracker {
    const struct tracker_backend *backend;
    void *state;
    int lock_fd;
};

/* In the order of preference. */
static const struct {
    enum tracker_kind kind;
    const struct tracker_backend *backend;
} backends[] = {{TRACKER_WP_ASYNC, &tracker_async}, {TRACKER_WP_SYNC, &tracker_sync}};
#define BACKENDS (sizeof backends / sizeof *backends)

bool tracker_kind_parse(const char *name, enum tracker_kind *out)
{
    if (strcmp(name, "auto") == 0) {
        *out = TRACKER_AUTO;
        return true;
    }
    if (strcmp(name, "qemu") == 0) {
        *out = TRACKER_QEMU;
        return true;
    }
    for (size_t i = 0; i < BACKENDS; i++)
        if (strcmp(name, backends[i].backend->name) == 0) {
            *out = backends[i].kind;
            return true;
        }
    return false;
}

/* A descriptor of its own: the lock belongs to it and to those who inherit it, not to everybody with the file open. */
static int tracker_lock(const struct ram *ram, int how, struct err *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", ram->fd);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot open %s", ram->path);
    if (flock(fd, LOCK_EX | how) == 0)
        return fd;
    err_errno(err, errno == EWOULDBLOCK ? ERR_BUSY : ERR_INTERNAL, errno,
        "another migration of this guest has not let go of its memory %s; try again", ram->path);
    close(fd);
    return -1;
}

int tracker_open(enum tracker_kind kind, pid_t pid, const struct ram *ram, struct err *err, struct tracker **out)
{
    struct tracker *tracker = mem_zalloc(sizeof *tracker);
    tracker->lock_fd = tracker_lock(ram, LOCK_NB, err);
    int rc = tracker->lock_fd < 0 ? -1 : err_set(err, ERR_UNSUPPORTED, "no tracker of that kind");
    bool next = tracker->lock_fd >= 0;
    for (size_t i = 0; i < BACKENDS && next; i++) {
        if (kind != TRACKER_AUTO && kind != backends[i].kind)
            continue;
        rc = backends[i].backend->open(pid, ram, tracker->lock_fd, err, &tracker->state);
        if (rc == 0)
            tracker->backend = backends[i].backend;
        next = rc < 0 && err->code == ERR_UNSUPPORTED;
    }
    if (rc < 0) {
        tracker_close(tracker);
        return err_wrap(err, "dirty page tracking");
    }
    *out = tracker;
    return 0;
}

int tracker_scan(struct tracker *tracker, struct err *err, struct bitmap *written)
{
    return tracker->backend->scan(tracker->state, err, written);
}

int tracker_rescan(struct tracker *tracker, size_t first, size_t pages, struct err *err, struct bitmap *written)
{
    return tracker->backend->rescan(tracker->state, first, pages, err, written);
}

void tracker_close(struct tracker *tracker)
{
    if (!tracker)
        return;
    if (tracker->backend)
        tracker->backend->close(tracker->state);
    if (tracker->lock_fd >= 0)
        close(tracker->lock_fd);
    free(tracker);
}

int tracker_release(pid_t pid, const struct ram *ram, struct err *err)
{
    int lock_fd = tracker_lock(ram, 0, err);
    if (lock_fd < 0)
        return -1;
    int rc = uffd_release(pid, ram, err);
    close(lock_fd);
    return rc;
}

const char *tracker_name(const struct tracker *tracker)
{
    return tracker->backend->name;
}
