#include "hostd/last_call.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "hostd/partition/record.h"

#define CALL_EVERY_MS 5000

/* Processes of guests, held by descriptors that become readable when they end. */
struct guests {
    struct pollfd *fds;
    size_t count;
    char names[ERR_MESSAGE_MAX / 2]; /* as many as fit */
};

static void guests_clear(struct guests *guests)
{
    for (size_t i = 0; i < guests->count; i++)
        close(guests->fds[i].fd);
    free(guests->fds);
    *guests = (struct guests){0};
}

static void guests_add(struct guests *guests, const struct record *record)
{
    if (record->guest.pid <= 0)
        return;
    int fd = (int)syscall(SYS_pidfd_open, record->guest.pid, 0);
    if (fd >= 0 && !process_alive(record->guest)) { /* the number is somebody else's by now */
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        return;
    guests->fds = mem_realloc(guests->fds, (guests->count + 1) * sizeof *guests->fds);
    guests->fds[guests->count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    size_t len = strlen(guests->names);
    snprintf(guests->names + len, sizeof guests->names - len, "%s%s", len ? ", " : "", record->spec->name);
}

/* By the records, which are replaced whole. */
static int guests_find(const char *directory, struct err *err, struct guests *out)
{
    char top[PATH_MAX], own[PATH_MAX], path[PATH_MAX];
    snprintf(top, sizeof top, "%s/partitions", directory);
    DIR *dir = opendir(top);
    if (!dir)
        return errno == ENOENT ? 0 : err_errno(err, ERR_INTERNAL, errno, "cannot read %s", top);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        struct record record;
        struct err why;
        if (!paths_vm_id_ok(entry->d_name))
            continue;
        paths_directory(directory, entry->d_name, own);
        if (record_load(paths_file(own, PATH_RECORD, path), &why, &record) < 0)
            continue; /* gone meanwhile, or nothing that a drover-hostd would run */
        guests_add(out, &record);
        record_clear(&record);
    }
    closedir(dir);
    return 0;
}

/* Whoever holds its lock. */
static int hostd_signal(const char *directory, struct err *err)
{
    char path[PATH_MAX];
    struct process_id id;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    snprintf(path, sizeof path, "%s/hostd.lock", directory);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fcntl(fd, F_GETLK, &lock) < 0)
        return err_errno(err, ERR_UNAVAILABLE, errno, "cannot look at %s", path);
    if (lock.l_type == F_UNLCK)
        return err_set(err, ERR_UNAVAILABLE, "no drover-hostd runs here (nobody holds %s): start it first", path);
    if (process_identify(lock.l_pid, err, &id) < 0)
        return -1;
    return process_signal(id, LAST_CALL_SIGNAL, err);
}

/* 1: none is left; 0: ask again; -1: no more. */
static int call(const struct options *options, uint64_t until_ms, struct guests *guests, struct err *err)
{
    struct err why = {.code = ERR_NONE};
    /* Also where no guest is seen, so that none comes. Called again and again: it may have been starting, guests
     * booting, or on their way from or to another host. */
    (void)!hostd_signal(options->directory, &why);
    if (guests_find(options->directory, err, guests) < 0)
        return -1;
    if (guests->count == 0)
        return 1;
    if (why.code != ERR_NONE)
        log_event(LOG_WARN, "guests.not_called", "reason=%s", LOG_QUOTE(why.message));
    else
        log_event(LOG_INFO, "guests.called", "count=%zu guests=%s", guests->count, LOG_QUOTE(guests->names));
    uint64_t now_ms = clock_now_ms();
    if (now_ms >= until_ms)
        return err_set(err, ERR_TIMEOUT, "not shut down within %" PRIu64 " s: %s%s%s", options->shutdown_seconds,
            guests->names, why.code != ERR_NONE ? "; " : "", why.code != ERR_NONE ? why.message : "");
    uint64_t left_ms = until_ms - now_ms;
    (void)!poll(guests->fds, guests->count, (int)(left_ms < CALL_EVERY_MS ? left_ms : CALL_EVERY_MS));
    return 0;
}

int last_call(const struct options *options, struct err *err)
{
    uint64_t until_ms = clock_now_ms() + options->shutdown_seconds * 1000;
    int rc = 0;
    while (rc == 0) {
        struct guests guests = {0};
        rc = call(options, until_ms, &guests, err);
        guests_clear(&guests);
    }
    return rc < 0 ? -1 : 0;
}
