/* The log on disk: libraft's libuv backend, watched.
 *
 * libraft 0.22.1 ignores the failure of writing a term or a vote, and after a failed write of entries it retries with
 * the wrong timer's data (uvAppendRetryTimerCb()). So its retries are put off for ever, and this module ends the
 * process as soon as a write fails or has not come back within `stall_ms`: the other members go on, and a supervisor
 * starts this one again.
 *
 * The backend's own network is never used: sending, starting and stopping are handed to `network`. */
#ifndef RAFT_DISK_H
#define RAFT_DISK_H

#include <raft.h>
#include <stdbool.h>
#include <uv.h>

#include "base/err.h"

struct disk;

struct disk_network {
    void *user;
    /* Messages may be delivered to `receive` from now on. */
    int (*start)(void *user, struct raft_io *io, raft_io_recv_cb receive);
    int (*send)(void *user, struct raft_io_send *request, const struct raft_message *message, raft_io_send_cb done);
    /* No message any more; requests under way end now. Called again when the disk is closed: requests may have come
     * since. */
    void (*stop)(void *user);
};

/* Makes the backend for the existing directory `directory`. Without `may_be_empty`, loading it fails with RAFT_NOTFOUND
 * if it has neither entries nor a snapshot. Take: disk_free(), after raft has been closed. */
MUST_CHECK int disk_new(uv_loop_t *loop, const char *directory, uint64_t stall_ms, bool may_be_empty,
    const struct disk_network *network, struct err *err, struct disk **out);
/* What raft_init() takes. Lent. */
struct raft_io *disk_io(struct disk *disk);
void disk_free(struct disk *disk);
/* No write is under way; nor a truncation, behind which there always is one. */
bool disk_idle(const struct disk *disk);

/* Logs and ends the process: what is on disk, or what is to be, cannot be trusted any more. */
__attribute__((noreturn)) void disk_fail(const char *what, int status, const char *detail);

#endif
