/* Processes: an identity that survives reuse of process ids (id and start time), and what /proc says of one. */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* A process is named by its id and the clock tick it was started at, so that a reused id is never mistaken for it. */
struct process_id {
    pid_t pid;
    uint64_t start_ticks;
};

struct process_usage {
    uint64_t cpu_ns;    /* user and system time of all its threads */
    uint64_t rss_bytes; /* resident memory, file-backed and shared included */
};

/* Identity of the process that has `pid` now; ERR_NOT_FOUND when there is none (a zombie counts as none). */
MUST_CHECK int process_identify(pid_t pid, struct err *err, struct process_id *out);
/* True while that very process runs (zombies do not), and also when nobody can tell: only certainty counts as dead. */
bool process_alive(struct process_id id);
/* Sends a signal to that very process; ERR_NOT_FOUND when it is gone. Race-free by pidfd. */
MUST_CHECK int process_signal(struct process_id id, int signal, struct err *err);
/* Kills that very process and waits until it is gone, one that is gone already included. ERR_TIMEOUT: killed, and there
 * after `within_ms` all the same: the kernel holds it, e.g. for storage that does not answer. */
MUST_CHECK int process_end(struct process_id id, unsigned within_ms, struct err *err);
MUST_CHECK int process_usage(pid_t pid, struct err *err, struct process_usage *out);
/* 1: a process has the file at `path` (links resolved) mapped now, and its id is written; 0: none has, or there is no
 * such file; -1: none was found, but not all could be looked at. Looks at all processes but init, which
 * hides itself in containers: some milliseconds. */
MUST_CHECK int process_maps(const char *path, struct err *err, pid_t *out);

#endif
