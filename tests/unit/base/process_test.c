#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/process.h"
#include "tests/lib/until.h"

/* A child that waits until it is killed. Its name holds what confuses naive readers of /proc/PID/stat. */
static pid_t child_start(void)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, "a) R 1 (b");
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void identity_of_ourselves(void **state)
{
    (void)state;
    struct err err;
    struct process_id id = {0}, again = {0};
    assert_int_equal(process_identify(getpid(), &err, &id), 0);
    assert_int_equal(id.pid, getpid());
    assert_true(id.start_ticks > 0);
    assert_int_equal(process_identify(getpid(), &err, &again), 0);
    assert_int_equal(id.start_ticks, again.start_ticks);
    assert_true(process_alive(id));
}

static void who_has_a_file_mapped(void **state)
{
    (void)state;
    char path[] = "/tmp/drover-process-test-XXXXXX";
    pid_t pid = 0;
    struct err err;
    int fd = mkstemp(path);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_not_equal(process_maps(path, &err, &pid), 1);
    void *data = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(data, MAP_FAILED);
    assert_int_equal(process_maps(path, &err, &pid), 1);
    assert_int_equal(pid, getpid());
    path[strlen(path) - 1] ^= 1; /* another name */
    assert_int_equal(process_maps(path, &err, &pid), 0);
    path[strlen(path) - 1] ^= 1;
    munmap(data, 4096);
    assert_int_not_equal(process_maps(path, &err, &pid), 1);
    close(fd);
    unlink(path);
}

/* Every process but ours is beyond our sight for want of descriptors: that is not nobody. */
static void what_cannot_be_seen_is_not_denied(void **state)
{
    (void)state;
    char path[] = "/tmp/drover-process-test-XXXXXX";
    pid_t pid = 0;
    struct err err;
    struct rlimit limit, few;
    int fd = mkstemp(path), next = dup(fd);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    for (int spare = 0; spare < 2; spare++) { /* none for /proc; none for what is in it */
        few.rlim_cur = (rlim_t)(next + spare);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        int rc = process_maps(path, &err, &pid);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(rc, -1);
        assert_non_null(strstr(err.message, spare ? "/maps" : "/proc"));
        assert_int_equal(pid, 0);
    }
    close(fd);
    unlink(path);
    assert_int_equal(symlink(path, path), 0); /* a name that leads nowhere */
    assert_int_equal(process_maps(path, &err, &pid), -1);
    assert_non_null(strstr(err.message, path));
    unlink(path);
    assert_int_equal(process_maps(path, &err, &pid), 0);
}

static void reused_id_is_somebody_else(void **state)
{
    (void)state;
    struct err err = {0};
    struct process_id id;
    assert_int_equal(process_identify(getpid(), &err, &id), 0);
    id.start_ticks--;
    assert_false(process_alive(id));
    assert_int_equal(process_signal(id, SIGKILL, &err), -1); /* it would end this test */
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void zombies_count_as_gone(void **state)
{
    (void)state;
    struct err err = {0};
    pid_t pid = child_start();
    struct process_id id;
    assert_int_equal(process_identify(pid, &err, &id), 0);
    assert_true(process_alive(id));
    assert_int_equal(process_signal(id, SIGKILL, &err), 0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0); /* ended, not reaped */
    assert_false(process_alive(id));
    struct process_id other = {.pid = 1};
    assert_int_equal(process_identify(pid, &err, &other), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(other.pid, 1); /* untouched on failure */
    assert_int_equal(process_signal(id, SIGTERM, &err), -1);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(process_alive(id));
    assert_int_equal(process_signal(id, SIGTERM, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void *wait_for_ever(void *unused)
{
    while (pause() < 0)
        continue;
    return unused;
}

static char state_of(pid_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    return strrchr(text, ')')[2];
}

/* Its first thread shows as a zombie, as that of a killed QEMU does whose worker hangs in a write. */
static void a_process_lives_as_long_as_one_of_its_threads(void **state)
{
    (void)state;
    struct err err = {0};
    struct process_id id;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        pthread_t thread;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (pthread_create(&thread, NULL, wait_for_ever, NULL) != 0)
            _exit(1);
        pthread_exit(NULL);
    }
    UNTIL(state_of(pid) == 'Z');
    assert_int_equal(process_identify(pid, &err, &id), 0);
    assert_true(process_alive(id));
    assert_int_equal(process_end(id, 60000, &err), 0);
    assert_false(process_alive(id));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void what_is_ended_is_gone(void **state)
{
    (void)state;
    struct err err = {0};
    pid_t pid = child_start();
    struct process_id id, other;
    assert_int_equal(process_identify(pid, &err, &id), 0);
    other = id;
    other.start_ticks--; /* whoever had the number before */
    assert_int_equal(process_end(other, 1000, &err), 0);
    assert_true(process_alive(id));
    assert_int_equal(process_end(id, 60000, &err), 0);
    assert_false(process_alive(id));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(process_end(id, 0, &err), 0);
    assert_int_equal(process_end((struct process_id){0, 0}, 0, &err), 0);
}

/* A killed process that is held up on its way out, here by its tracer. */
static void what_does_not_go_is_said_within_the_bound(void **state)
{
    (void)state;
    struct err err = {0};
    pid_t pid = child_start();
    struct process_id id;
    int status;
    assert_int_equal(process_identify(pid, &err, &id), 0);
    if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)PTRACE_O_TRACEEXIT) < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        skip(); /* not allowed here */
    }
    assert_int_equal(process_end(id, 20, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_non_null(strstr(err.message, "was killed"));
    assert_true(process_alive(id));
    assert_int_equal(waitpid(pid, &status, __WALL), pid);
    assert_int_equal(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
    assert_int_equal(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    assert_int_equal(process_end(id, 60000, &err), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void nobody_is_not_alive(void **state)
{
    (void)state;
    assert_false(process_alive((struct process_id){0, 0}));
    assert_false(process_alive((struct process_id){-1, 0}));
    struct err err = {0};
    assert_int_equal(process_signal((struct process_id){0, 0}, SIGTERM, &err), -1);
}

static void usage_grows_with_work(void **state)
{
    (void)state;
    struct err err;
    struct process_usage before, after;
    assert_int_equal(process_usage(getpid(), &err, &before), 0);
    assert_true(before.rss_bytes > 100000);
    uint64_t end = clock_now_ns() + 60000000000u; /* only so that a broken clock ends the test */
    volatile unsigned work = 0;
    do {
        for (unsigned i = 0; i < 1000000; i++)
            work += i;
        assert_int_equal(process_usage(getpid(), &err, &after), 0);
    } while (after.cpu_ns == before.cpu_ns && clock_now_ns() < end);
    assert_true(after.cpu_ns > before.cpu_ns);
    assert_int_equal(process_usage(0x3fffffff, &err, &after), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity_of_ourselves),
        cmocka_unit_test(who_has_a_file_mapped),
        cmocka_unit_test(what_cannot_be_seen_is_not_denied),
        cmocka_unit_test(reused_id_is_somebody_else),
        cmocka_unit_test(zombies_count_as_gone),
        cmocka_unit_test(a_process_lives_as_long_as_one_of_its_threads),
        cmocka_unit_test(what_is_ended_is_gone),
        cmocka_unit_test(what_does_not_go_is_said_within_the_bound),
        cmocka_unit_test(nobody_is_not_alive),
        cmocka_unit_test(usage_grows_with_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
