/* Processes that outlive hostd: QEMU and the migration engine. Each runs in a session of its own, so that it does not
 * end with hostd, and is watched through a pidfd, so that a restarted hostd watches it just the same.
 *
 *   child_fork -> (the process exists and waits; write its identity down) -> child_release -> it runs its program
 *
 * If hostd dies before the release, the process ends without having run anything: there is never a program running
 * that no record names. Failure modes: the program cannot be run: child_release() says why, the process is gone.
 * Single-threaded: everything on the loop's thread. */
#ifndef HOSTD_CHILD_H
#define HOSTD_CHILD_H

#include <uv.h>

#include "base/err.h"
#include "base/process.h"

struct child;

struct child_options {
    char *const *argv;    /* argv[0] is looked up in PATH */
    const char *preload;  /* LD_PRELOAD of this program alone; NULL: none */
    const char *log_path; /* its stdout and stderr, appended */
    const int *keep_fds;  /* stay open under the same numbers; all others are closed */
    size_t keep_count;
    const int *cgroup_fds; /* cgroup.procs files it is put into */
    size_t cgroup_count;
    bool mortal; /* it is killed when hostd dies, however that dies */
};

/* Told once, when it has ended and is reaped. `status` is wait(2)'s, or -1 when it was not our child. */
typedef void (*child_exit_fn)(void *user, int status);

/* Take: child_free(). */
MUST_CHECK int child_fork(uv_loop_t *loop, const struct child_options *options, child_exit_fn fn, void *user,
    struct err *err, struct child **out);
MUST_CHECK int child_release(struct child *child, struct err *err);
/* Watches a process that an earlier hostd started; ERR_NOT_FOUND when it is gone. Take: child_free(). */
MUST_CHECK int child_adopt(
    uv_loop_t *loop, struct process_id id, child_exit_fn fn, void *user, struct err *err, struct child **out);
struct process_id child_id(const struct child *child);
bool child_running(const struct child *child); /* its end has not been told yet */
void child_signal(struct child *child, int signal);
/* Kills it; it is reaped when it has ended, and nobody is told. Takes the child. */
void child_abandon(struct child *child);
/* Stops watching; the process goes on, unless it was never released: then it ends. NULL is fine. */
void child_free(struct child *child);

/* Copies the last line of the file at `path` that says something into `out`, as printable ASCII; "" when there is none.
 */
void child_last_line(const char *path, size_t size, char *out);

#endif
