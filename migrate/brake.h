/* brake: slows a guest down by pausing its vCPU threads for a part of every few milliseconds, so that it writes less.
 *
 *      |<- on ->|<------ off ------>|<- on ->|            percent = on / (on + off)
 *
 * Each vCPU has a rhythm of its own: it is looked at after `on`, pays with a pause for the CPU time it has used, and
 * what it did not use counts as paid. One that sleeps or serves an interrupt now and then is left alone, so the brake
 * is on those who write. It works by ptrace(2): seize, interrupt, wait, detach. That needs no cgroup and no privilege
 * beyond what taking QEMU's userfaultfd needs anyway, and the kernel itself undoes it: when the thread that paused a
 * vCPU ends, for whatever reason, SIGKILL included, the vCPU runs on. Nobody has to clean up.
 *
 * A paused vCPU may hold a lock of QEMU's; whoever needs it waits for the rest of the pause, at most
 * BRAKE_PAUSE_MAX_MS. One thread of its own. A thread that cannot be seized (a debugger has it) is not slowed down;
 * brake_check() says so. */
#ifndef MIGRATE_BRAKE_H
#define MIGRATE_BRAKE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define BRAKE_THREADS_MAX  512u
#define BRAKE_PAUSE_MAX_MS 60u

struct brake;

/* Can these threads of process `pid` be paused? Pauses each for a moment. ERR_UNSUPPORTED says what is in the way. The
 * process's first thread cannot: its end is told only once all others are reaped, so whoever waits for it while it
 * and another of them are seized would wait for ever. QEMU's runs no vCPU. */
MUST_CHECK int brake_check(pid_t pid, const pid_t *threads, size_t count, struct err *err);
/* The threads keep `percent` (1 to 99) of their CPU time. `threads` is copied. Take: brake_release(). */
struct brake *brake_apply(pid_t pid, const pid_t *threads, size_t count, uint32_t percent);
void brake_set(struct brake *brake, uint32_t percent);
/* All run freely when this returns. NULL is fine. */
void brake_release(struct brake *brake);

#endif
