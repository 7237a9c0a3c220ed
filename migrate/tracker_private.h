/* Private to the tracker's files: what a back end is. Contracts as in tracker.h; `lock_fd` is lent until close. */
#ifndef MIGRATE_TRACKER_PRIVATE_H
#define MIGRATE_TRACKER_PRIVATE_H

#include "migrate/tracker.h"

struct tracker_backend {
    const char *name;
    int (*open)(pid_t pid, const struct ram *ram, int lock_fd, struct err *err, void **out);
    int (*scan)(void *state, struct err *err, struct bitmap *written);
    int (*rescan)(void *state, size_t first, size_t pages, struct err *err, struct bitmap *written);
    void (*close)(void *state);
};

extern const struct tracker_backend tracker_async, tracker_sync;

#endif
