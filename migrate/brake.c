#include "migrate/brake.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
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
#define PAUSE_NS    (BRAKE_PAUSE_MAX_MS * UINT64_C(1000000))

struct vcpu {
    pid_t thread;
    int stat_fd, schedstat_fd; /* of /proc; -1: the kernel does not say */
    uint64_t looked_ns;        /* when, and what CPU time it had had then */
    uint64_t run_ns;
    uint64_t owed_ns;  /* it has to stand still for so long */
    uint64_t until_ns; /* end of its pause; 0: it runs as it likes */
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

static int vcpu_open(pid_t pid, pid_t thread, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", (int)pid, (int)thread, file);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool proc_read(int fd, char *text, size_t size)
{
    ssize_t got = pread(fd, text, size - 1, 0);
    if (got <= 0)
        return false;
    text[got] = '\0';
    return true;
}

/* CPU time it has had; false: it is gone, or the kernel does not say. Exact for one that does not run; the figure of
 * one that does is as old as the kernel's last tick on its processor, up to 10 ms. */
static bool vcpu_run_ns(const struct vcpu *v, uint64_t *out)
{
    char text[96];
    return proc_read(v->schedstat_fd, text, sizeof text) && sscanf(text, "%" SCNu64, out) == 1;
}

/* Has a processor, or waits for one. */
static bool vcpu_runs(const struct vcpu *v)
{
    char text[256];
    const char *name_end = proc_read(v->stat_fd, text, sizeof text) ? strrchr(text, ')') : NULL;
    return name_end && strncmp(name_end, ") R", 3) == 0;
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

/* What it owes for the CPU time it has used since the last look, at so many percent. It goes by what was used, not by
 * what was to be: on a busy host the look may come late. Time that it stood still of its own accord counts as paid. */
static void vcpu_charge(struct vcpu *v, uint64_t percent)
{
    uint64_t now_ns = clock_now_ns(), given_ns = now_ns - v->looked_ns, before = v->run_ns, used_ns = given_ns;
    if (vcpu_run_ns(v, &v->run_ns))
        used_ns = v->run_ns - before;
    uint64_t idle_ns = used_ns < given_ns ? given_ns - used_ns : 0;
    v->looked_ns = now_ns;
    v->owed_ns += used_ns * (100 - percent) / percent;
    v->owed_ns = v->owed_ns > idle_ns ? v->owed_ns - idle_ns : 0;
    if (v->owed_ns > OWED_NS_MAX)
        v->owed_ns = OWED_NS_MAX;
}

/* Whether it has to stand still now. If it ran it has been seized before, and stops here: its figures are exact then.
 */
static void vcpu_judge(struct vcpu *v, uint64_t percent)
{
    vcpu_wait(v);
    vcpu_charge(v, percent);
    if (v->owed_ns < ON_NS_MIN) {
        vcpu_let_go(v);
        return;
    }
    if (!v->seized) {
        vcpu_seize(v);
        vcpu_wait(v);
    }
    if (v->seized)
        v->until_ns = v->looked_ns + (v->owed_ns < PAUSE_NS ? v->owed_ns : PAUSE_NS);
}

/* Its pause is over. */
static void vcpu_resume(struct vcpu *v)
{
    uint64_t now_ns = clock_now_ns(), paused_ns = now_ns - v->looked_ns;
    v->owed_ns = v->owed_ns > paused_ns ? v->owed_ns - paused_ns : 0;
    v->looked_ns = now_ns;
    v->until_ns = 0;
    vcpu_let_go(v);
}

/* ---- the rhythm ---- */

/* Sleeps, but not beyond the brake's end; false: it has come. */
static bool brake_sleep(struct brake *b, uint64_t until_ns)
{
    struct timespec at; /* another clock than ours, which conditions do not have */
    uint64_t now_ns = clock_now_ns(), ns = until_ns > now_ns ? until_ns - now_ns : 0;
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

/* Looks at every vCPU. Returns when to look again. */
static uint64_t brake_look(struct brake *b)
{
    uint64_t percent = atomic_load(&b->percent), on_ns = PERIOD_NS * percent / 100, now_ns = clock_now_ns();
    uint64_t next_ns = UINT64_MAX;
    for (size_t i = 0; i < b->count; i++) /* all are interrupted before the first is waited for */
        if (!b->vcpus[i].until_ns && vcpu_runs(&b->vcpus[i]))
            vcpu_seize(&b->vcpus[i]);
    for (size_t i = 0; i < b->count; i++) {
        struct vcpu *v = &b->vcpus[i];
        if (!v->until_ns)
            vcpu_judge(v, percent);
        else if (v->until_ns <= now_ns)
            vcpu_resume(v);
        uint64_t at_ns = v->until_ns ? v->until_ns : clock_now_ns() + (on_ns < ON_NS_MIN ? ON_NS_MIN : on_ns);
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    return next_ns;
}

/* The guest runs until this thread has the processor again, so that it must not wait for one: where it may, it goes
 * before everybody else. It needs one for some 10 us in a period and vCPU. */
static void brake_hurry(void)
{
    const struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_FIFO)};
    (void)pthread_setschedparam(pthread_self(), SCHED_FIFO, &lowest);
}

static void *brake_run(void *user)
{
    struct brake *b = user;
    uint64_t next_ns;
    brake_hurry();
    do
        next_ns = brake_look(b);
    while (brake_sleep(b, next_ns));
    for (size_t i = 0; i < b->count; i++)
        vcpu_let_go(&b->vcpus[i]);
    return NULL;
}

/* ---- life ---- */

int brake_check(pid_t pid, const pid_t *threads, size_t count, struct err *err)
{
    if (count == 0 || count > BRAKE_THREADS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "a guest with %zu vCPUs cannot be slowed down; up to %u can", count,
            BRAKE_THREADS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct vcpu vcpu = {.thread = threads[i]};
        if (threads[i] == pid)
            return err_set(err, ERR_UNSUPPORTED,
                "a vCPU in the first thread of process %d cannot be paused; choose another --on-no-convergence",
                (int)pid);
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
    for (size_t i = 0; i < count; i++) {
        struct vcpu *v = &b->vcpus[i];
        *v = (struct vcpu){.thread = threads[i], .looked_ns = clock_now_ns()};
        v->stat_fd = vcpu_open(pid, threads[i], "stat");
        v->schedstat_fd = vcpu_open(pid, threads[i], "schedstat");
        (void)vcpu_run_ns(v, &v->run_ns);
    }
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
    for (size_t i = 0; i < b->count; i++) {
        if (b->vcpus[i].stat_fd >= 0)
            close(b->vcpus[i].stat_fd);
        if (b->vcpus[i].schedstat_fd >= 0)
            close(b->vcpus[i].schedstat_fd);
    }
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}
