/* Pauses real threads of a child process: one that does nothing but count and one that sleeps. Its first thread is
 * neither, as in QEMU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "migrate/brake.h"

/* Shared with the child: a thread that burns and one that sleeps. */
struct shared {
    _Atomic pid_t burner, sleeper;
    _Atomic uint64_t wakes;
};

struct world {
    struct shared *shared;
    pid_t pid;
};

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void *sleep_all_day(void *user)
{
    struct shared *shared = user;
    atomic_store(&shared->sleeper, (pid_t)syscall(SYS_gettid));
    for (;;) {
        pause_ms(1);
        atomic_fetch_add(&shared->wakes, 1);
    }
    return NULL;
}

static void *burn_all_day(void *user)
{
    struct shared *shared = user;
    atomic_store(&shared->burner, (pid_t)syscall(SYS_gettid));
    for (volatile uint64_t i = 0;; i++)
        ;
    return NULL;
}

static void child_run(struct shared *shared)
{
    pthread_t threads[2];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (pthread_create(&threads[0], NULL, sleep_all_day, shared) != 0 ||
        pthread_create(&threads[1], NULL, burn_all_day, shared) != 0)
        _exit(1);
    for (;;)
        pause();
}

static int begin(void **state)
{
    static struct world w;
    w.shared = mmap(NULL, sizeof *w.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w.shared == MAP_FAILED)
        return -1;
    w.pid = fork();
    if (w.pid == 0)
        child_run(w.shared);
    while (!atomic_load(&w.shared->burner) || !atomic_load(&w.shared->sleeper))
        pause_ms(1);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    kill(w->pid, SIGKILL);
    waitpid(w->pid, NULL, 0);
    munmap(w->shared, sizeof *w->shared);
    return 0;
}

/* CPU time of the child in a while, in ns; and how long that was. */
static double share(const struct world *w)
{
    clockid_t clock;
    struct timespec cpu[2], wall[2];
    assert_int_equal(clock_getcpuclockid(w->pid, &clock), 0);
    for (int i = 0; i < 2; i++) {
        clock_gettime(clock, &cpu[i]);
        clock_gettime(CLOCK_MONOTONIC, &wall[i]);
        if (i == 0)
            pause_ms(500);
    }
#define BETWEEN(t) ((double)(t[1].tv_sec - t[0].tv_sec) + (double)(t[1].tv_nsec - t[0].tv_nsec) / 1e9)
    return BETWEEN(cpu) / BETWEEN(wall);
}

static char thread_state(pid_t pid, pid_t thread)
{
    char path[64], text[256], letter = '?';
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, (int)thread);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    sscanf(strrchr(text, ')'), ") %c", &letter);
    return letter;
}

/* Waits until it is seen standing still. */
static void await_pause(const struct world *w)
{
    while (thread_state(w->pid, w->shared->burner) != 't')
        pause_ms(1);
}

static void test_a_thread_is_held_back_and_gets_all_of_it_back(void **state)
{
    struct world *w = *state;
    struct err err;
    const pid_t threads[] = {w->shared->burner, w->shared->sleeper};
    assert_int_equal(brake_check(w->pid, threads, 2, &err), 0);
    double before = share(w);
    struct brake *brake = brake_apply(w->pid, threads, 2, 20);
    await_pause(w);
    double slowed = share(w);
    brake_set(brake, 3);
    double crawling = share(w);
    await_pause(w);
    uint64_t wakes = w->shared->wakes;
    while (w->shared->wakes == wakes) /* who does not burn goes on */
        pause_ms(1);
    brake_release(brake);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(thread_state(w->pid, threads[0]), 'R');
        pause_ms(1);
    }
    print_message("of a core: %.2f, at 20 %%: %.2f, at 3 %%: %.2f, after: %.2f\n", before, slowed, crawling, share(w));
}

/* The promise: whoever kills the one who brakes lets the guest go. */
static void test_killed_while_it_brakes(void **state)
{
    struct world *w = *state;
    const pid_t threads[] = {w->shared->burner};
    for (int i = 0; i < 20; i++) {
        pid_t engine = fork();
        if (engine == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)brake_apply(w->pid, threads, 1, 2); /* nearly always in a pause */
            for (;;)
                pause();
        }
        pause_ms(5 + 3 * i);
        kill(engine, SIGKILL);
        waitpid(engine, NULL, 0);
        char letter = thread_state(w->pid, threads[0]);
        assert_true(letter == 'R');
    }
}

static void test_what_cannot_be_slowed_down_is_refused(void **state)
{
    struct world *w = *state;
    struct err err;
    assert_int_equal(brake_check(w->pid, NULL, 0, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_int_equal(brake_check(w->pid, &w->pid, 1, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    const pid_t nobody = 4194000;
    assert_int_equal(brake_check(w->pid, &nobody, 1, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    brake_release(NULL);
}

static void test_a_process_that_ends_meanwhile(void **state)
{
    struct world *w = *state;
    const pid_t threads[] = {w->shared->burner, w->shared->sleeper};
    struct brake *brake = brake_apply(w->pid, threads, 2, 10);
    pause_ms(30);
    kill(w->pid, SIGKILL);
    pause_ms(30);
    brake_release(brake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_thread_is_held_back_and_gets_all_of_it_back, begin, end),
        cmocka_unit_test_setup_teardown(test_killed_while_it_brakes, begin, end),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_slowed_down_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(test_a_process_that_ends_meanwhile, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
