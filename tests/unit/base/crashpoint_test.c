#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crashpoint.h"

static char directory[] = "/tmp/crashpoint-test-XXXXXX", file[64], hit[80];

static int setup(void **state)
{
    (void)state;
    strcpy(directory + strlen(directory) - 6, "XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(file, sizeof file, "%s/points", directory);
    snprintf(hit, sizeof hit, "%s.hit", file);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(file);
    unlink(hit);
    rmdir(directory);
    return 0;
}

static void name(const char *line)
{
    FILE *out = fopen(file, "we");
    assert_non_null(out);
    fprintf(out, "%s\n", line);
    assert_int_equal(fclose(out), 0);
}

/* A process that passes source.precopy twice and then exits with 7. Returns wait(2)'s status. */
static int pass(bool watched, pid_t companion)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (watched)
            setenv(CRASHPOINT_FILE, file, 1);
        else
            unsetenv(CRASHPOINT_FILE);
        crashpoint_open(companion);
        crashpoint("source", "precopy");
        crashpoint("source", "precopy");
        _exit(7);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_stops_where_named(void **state)
{
    (void)state;
    name("source.precopy pause");
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv(CRASHPOINT_FILE, file, 1);
        crashpoint_open(getppid());
        crashpoint("source", "precopy");
        _exit(7);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(access(hit, F_OK), 0);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 7 << 8);
}

static void test_inert_without_the_variable(void **state)
{
    (void)state;
    name("source.precopy");
    assert_int_equal(pass(false, 0), 7 << 8);
    assert_int_equal(access(file, F_OK), 0);
}

static void test_dies_where_named_and_once(void **state)
{
    (void)state;
    name("source.switching");
    assert_int_equal(pass(true, 0), 7 << 8);
    name("source.precopy");
    assert_int_equal(pass(true, 0), SIGKILL);
    assert_int_equal(access(hit, F_OK), 0);
    assert_int_not_equal(access(file, F_OK), 0);
    assert_int_equal(pass(true, 0), 7 << 8);
}

static void test_companion_dies_instead(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t companion = fork();
    assert_true(companion >= 0);
    if (companion == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
    name("source.precopy companion");
    assert_int_equal(pass(true, companion), 7 << 8);
    int status;
    assert_int_equal(waitpid(companion, &status, 0), companion);
    assert_int_equal(status, SIGKILL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_inert_without_the_variable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stops_where_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dies_where_named_and_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_companion_dies_instead, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
