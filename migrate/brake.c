#include "migrate/brake.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/ensure.h"

#define PERIOD_NS   10000000u /* short enough that the guest's timers and its network hardly notice */
#define ON_NS_MIN   300000u   /* less is lost in waking up */
#define OWED_NS_MAX UINT64_C(1000000000)

struct vcpu {
    pid_t thread;
    uint64_t run_ns; /* at the last look */
    bool seized;
    int signal; /* it was about to take this one when it stopped */
};

struct brake {
    pid_t pid;
    _Atomic uint32_t percent;
    pthread_mutex_t lock; /* `over` */
    pthread_cond_t changed;
    bool over;
    pthread_t thread;
    size_t count;
    struct vcpu vcpus[BRAKE_THREADS_MAX];
};

/* ---- one vCPU ---- */

/* CPU time it has had; false: it is gone, or the kernel does not say. */
static bool vcpu_run_ns(pid_t pid, pid_t thread, uint64_t *out)
{
    char path[64], text[96];
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", (int)pid, (int)thread);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool read = fgets(text, sizeof text, file) && sscanf(text, "%" SCNu64, out) == 1;
    fclose(file);
    return read;
}

static void vcpu_seize(struct vcpu *v)
{
    v->seized = ptrace(PTRACE_SEIZE, v->thread, NULL, NULL) == 0;
    if (v->seized)
        ptrace(PTRACE_INTERRUPT, v->thread, NULL, NULL);
}

/* Until it stands still. It may stop at a signal that was on its way instead, which it gets when it is let go. */
static void vcpu_wait(struct vcpu *v)
{
    int status;
    pid_t got;
    v->signal = 0;
    if (!v->seized)
        return;
    do
        got = waitpid(v->thread, &status, __WALL);
    while (got < 0 && errno == EINTR);
    if (got != v->thread || !WIFSTOPPED(status))
        v->seized = false; /* it has ended */
    else if (status >> 16 == 0)
        v->signal = WSTOPSIG(status);
}

static void vcpu_let_go(struct vcpu *v)
{
    if (v->seized)
        ptrace(PTRACE_DETACH, v->thread, NULL, (void *)(intptr_t)v->signal);
    v->seized = false;
}

/* ---- the rhythm ---- */

/* Sleeps, but not beyond the brake's end; false: it has come. */
static bool brake_sleep(struct brake *b, uint64_t ns)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    ns += (uint64_t)at.tv_nsec;
    at.tv_sec += (time_t)(ns / 1000000000u);
    at.tv_nsec = (long)(ns % 1000000000u);
    pthread_mutex_lock(&b->lock);
    while (!b->over && pthread_cond_timedwait(&b->changed, &b->lock, &at) != ETIMEDOUT)
        ;
    bool on = !b->over;
    pthread_mutex_unlock(&b->lock);
    return on;
}

/* CPU time it has used since the last look; without figures, all of the time that has passed. */
static uint64_t vcpu_used_ns(const struct brake *b, struct vcpu *v, uint64_t given_ns)
{
    uint64_t before = v->run_ns;
    if (!vcpu_run_ns(b->pid, v->thread, &v->run_ns))
        return given_ns;
    return v->run_ns - before;
}

/* Seizes who has used its share, and adds the pause that the busiest of them owes. It goes by what was used, not by
 * what was to be: on a busy host this thread comes late, and the guest, too. */
static void brake_collect(struct brake *b, uint64_t given_ns, uint64_t percent, uint64_t pause_ns, uint64_t *owed_ns)
{
    uint64_t most_ns = 0;
    for (size_t i = 0; i < b->count; i++) {
        uint64_t used_ns = vcpu_used_ns(b, &b->vcpus[i], given_ns);
        if (used_ns > most_ns)
            most_ns = used_ns;
        if (used_ns * 100 > percent * (given_ns + pause_ns)) /* of the whole cycle */
            vcpu_seize(&b->vcpus[i]);
    }
    *owed_ns += most_ns * (100 - percent) / percent;
    if (*owed_ns > OWED_NS_MAX)
        *owed_ns = OWED_NS_MAX;
}

static void *brake_run(void *user)
{
    struct brake *b = user;
    uint64_t owed_ns = 0, pause_ns = 0, most_ns = BRAKE_PAUSE_MAX_MS * UINT64_C(1000000);
    for (size_t i = 0; i < b->count; i++)
        (void)vcpu_run_ns(b->pid, b->vcpus[i].thread, &b->vcpus[i].run_ns);
    for (;;) {
        uint64_t percent = atomic_load(&b->percent), on_ns = PERIOD_NS * percent / 100, began_ns = clock_now_ns();
        if (!brake_sleep(b, on_ns < ON_NS_MIN ? ON_NS_MIN : on_ns))
            return NULL;
        brake_collect(b, clock_now_ns() - began_ns, percent, pause_ns, &owed_ns);
        for (size_t i = 0; i < b->count; i++)
            vcpu_wait(&b->vcpus[i]);
        pause_ns = owed_ns < most_ns ? owed_ns : most_ns;
        (void)brake_sleep(b, pause_ns);
        owed_ns -= pause_ns;
        for (size_t i = 0; i < b->count; i++)
            vcpu_let_go(&b->vcpus[i]);
    }
}

/* ---- life ---- */

int brake_check(pid_t pid, const pid_t *threads, size_t count, struct err *err)
{
    if (count == 0 || count > BRAKE_THREADS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "a guest with %zu vCPUs cannot be slowed down; up to %u can", count,
            BRAKE_THREADS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct vcpu vcpu = {.thread = threads[i]};
        vcpu_seize(&vcpu);
        if (!vcpu.seized)
            return err_errno(err, ERR_UNSUPPORTED, errno,
                "vCPU thread %d of process %d cannot be paused, so the guest cannot be slowed down; choose another "
                "--on-no-convergence",
                (int)threads[i], (int)pid);
        vcpu_wait(&vcpu);
        vcpu_let_go(&vcpu);
    }
    return 0;
}

struct brake *brake_apply(pid_t pid, const pid_t *threads, size_t count, uint32_t percent)
{
    ENSURE(count <= BRAKE_THREADS_MAX);
    struct brake *b = mem_zalloc(sizeof *b);
    b->pid = pid;
    b->count = count;
    for (size_t i = 0; i < count; i++)
        b->vcpus[i].thread = threads[i];
    pthread_condattr_t monotonic;
    ENSURE(pthread_condattr_init(&monotonic) == 0 && pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    ENSURE(pthread_cond_init(&b->changed, &monotonic) == 0 && pthread_mutex_init(&b->lock, NULL) == 0);
    pthread_condattr_destroy(&monotonic);
    brake_set(b, percent);
    ENSURE(pthread_create(&b->thread, NULL, brake_run, b) == 0);
    return b;
}

void brake_set(struct brake *b, uint32_t percent)
{
    atomic_store(&b->percent, percent < 1 ? 1 : percent > 99 ? 99 : percent);
}

void brake_release(struct brake *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->over = true;
    pthread_cond_signal(&b->changed);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL); /* it lets go of what it holds first */
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}
