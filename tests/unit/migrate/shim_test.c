/* The library that QEMU is started with: the heap of a QEMU that waits for a guest. This program stands for QEMU and is
 * run again with the library; what it does to it is seen in how many pages of the heap fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS      64u
#define BLOCK_BYTES (64u << 10)
#define PAGES       (BLOCKS * (BLOCK_BYTES >> 12))

enum verdict { FAULTLESS = 10, FAULTS, FAULTS_ONCE_TRIMMED };

static bool runs;

/* QEMU's, which the library asks. */
bool runstate_is_running(void);
bool runstate_is_running(void)
{
    return runs;
}

/* The faults that it takes to fill some of the heap, which is free again thereafter. */
static unsigned filling(void)
{
    static char *blocks[BLOCKS];
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK_BYTES);
        if (blocks[i])
            explicit_bzero(blocks[i], BLOCK_BYTES);
    }
    getrusage(RUSAGE_SELF, &after);
    for (unsigned i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    return (unsigned)(after.ru_minflt - before.ru_minflt);
}

static int child(void)
{
    const unsigned few = PAGES / 8, many = PAGES / 2;
    if (filling() > few)
        return FAULTS;
    malloc_trim(0);
    if (filling() > few)
        return FAULTS;
    runs = true;
    malloc_trim(0);
    return filling() > many ? FAULTS_ONCE_TRIMMED : FAULTLESS;
}

static int run(const char *argument)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        setenv("LD_PRELOAD", SHIM, 1);
        execl("/proc/self/exe", "qemu", argument, "defer", NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_who_waits_for_a_guest_has_its_heap_until_it_runs(void **state)
{
    (void)state;
    assert_int_equal(run("-incoming"), FAULTS_ONCE_TRIMMED);
}

static void test_who_does_not_wait_has_none(void **state)
{
    (void)state;
    assert_int_equal(run("-S"), FAULTS);
}

int main(int argc, char **argv)
{
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_waits_for_a_guest_has_its_heap_until_it_runs),
        cmocka_unit_test(test_who_does_not_wait_has_none),
    };
    return argc > 1 ? child() : cmocka_run_group_tests(tests, NULL, NULL);
}
