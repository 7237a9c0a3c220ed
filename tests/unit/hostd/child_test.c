/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "base/loop.h"
#include "hostd/child.h"

static uv_loop_t loop;
static char directory[64];
static char log_path[96];
static int told, last_status;

static int setup(void **unused)
{
    (void)unused;
    strcpy(directory, "/tmp/drover-child-test.XXXXXX");
    told = 0;
    ENSURE(mkdtemp(directory) && uv_loop_init(&loop) == 0);
    snprintf(log_path, sizeof log_path, "%s/log", directory);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    struct err err;
    loop_close(&loop);
    return file_remove_tree(directory, &err);
}

static void ended(void *user, int status)
{
    (void)user;
    told++;
    last_status = status;
    uv_stop(&loop);
}

static struct child *start(const char *script, const char *preload)
{
    struct err err;
    struct child *child;
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)(uintptr_t)script, NULL};
    struct child_options options = {.argv = argv, .log_path = log_path, .preload = preload};
    assert_int_equal(child_fork(&loop, &options, ended, NULL, &err, &child), 0);
    return child;
}

static void its_end_is_told_once(void **unused)
{
    (void)unused;
    struct err err;
    char line[64];
    struct child *child = start("echo first; echo 'last words' >&2; exit 3", NULL);
    assert_int_equal(child_release(child, &err), 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(told, 1);
    assert_int_equal(WEXITSTATUS(last_status), 3);
    assert_false(child_running(child));
    child_free(child);
    child_last_line(log_path, sizeof line, line);
    assert_string_equal(line, "last words");
}

/* What hostd's death between the fork and the record amounts to. */
static void a_process_that_was_not_released_runs_nothing(void **unused)
{
    (void)unused;
    char mark[96], script[200];
    snprintf(mark, sizeof mark, "%s/mark", directory);
    snprintf(script, sizeof script, "echo > %s", mark);
    struct child *child = start(script, NULL);
    struct process_id id = child_id(child);
    assert_true(process_alive(id));
    child_free(child);
    assert_false(process_alive(id));
    assert_int_equal(access(mark, F_OK), -1);
}

/* In a process of its own, which starts one that is to die with it, says which, and ends as if it were killed. */
static _Noreturn void be_hostd(int says)
{
    struct err err;
    struct child *child;
    char *argv[] = {(char *)"sleep", (char *)"1000", NULL};
    struct child_options options = {.argv = argv, .log_path = log_path, .mortal = true};
    ENSURE(uv_loop_fork(&loop) == 0);
    if (child_fork(&loop, &options, ended, NULL, &err, &child) < 0 || child_release(child, &err) < 0)
        _exit(1);
    struct process_id id = child_id(child);
    _exit(write(says, &id, sizeof id) == (ssize_t)sizeof id && process_alive(id) ? 0 : 1);
}

static void a_mortal_one_dies_with_hostd(void **unused)
{
    (void)unused;
    int says[2], status;
    struct process_id id;
    ENSURE(pipe(says) == 0);
    pid_t hostd = fork();
    if (hostd == 0)
        be_hostd(says[1]);
    assert_int_equal(read(says[0], &id, sizeof id), sizeof id);
    assert_int_equal(waitpid(hostd, &status, 0), hostd);
    assert_int_equal(status, 0);
    for (int i = 0; i < 6000 && process_alive(id); i++)
        poll(NULL, 0, 10);
    assert_false(process_alive(id));
    close(says[0]);
    close(says[1]);
}

static void a_missing_program_is_an_error(void **unused)
{
    (void)unused;
    struct err err;
    struct child *child;
    char *argv[] = {(char *)"drover-no-such-program", NULL};
    struct child_options options = {.argv = argv, .log_path = log_path};
    assert_int_equal(child_fork(&loop, &options, ended, NULL, &err, &child), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    cleanup_free char *script = mem_printf("%s/script", directory);
    assert_int_equal(file_write(script,
                         "\x7f"
                         "ELF nonsense",
                         12, 0755, &err),
        0);
    char *broken[] = {script, NULL};
    options.argv = broken;
    assert_int_equal(child_fork(&loop, &options, ended, NULL, &err, &child), 0);
    assert_int_equal(child_release(child, &err), -1);
    child_free(child);
}

/* A session of its own, no descriptors but those named, no LD_PRELOAD but the one given. */
static void it_inherits_only_what_is_named(void **unused)
{
    (void)unused;
    struct err err;
    struct child *child;
    cleanup_fd int kept = open("/dev/null", O_RDONLY | O_CLOEXEC), other = open("/dev/null", O_RDONLY);
    char *argv[] = {(char *)"sh", (char *)"-c",
        (char *)"cd /proc/self/fd && for f in [3-9] [1-9][0-9]; do [ ! -e $f ] || echo -n \"$f \"; done; "
                "echo \"preload=$LD_PRELOAD\"; set -- $(cat /proc/$$/stat); echo \"leader=$(($1 == $6))\"",
        NULL};
    struct child_options options = {.argv = argv, .log_path = log_path, .keep_fds = &kept, .keep_count = 1};
    setenv("LD_PRELOAD", "", 1);
    assert_int_equal(child_fork(&loop, &options, ended, NULL, &err, &child), 0);
    assert_int_equal(child_release(child, &err), 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    child_free(child);
    cleanup_buf struct buf text = {0};
    assert_int_equal(file_read(log_path, 4096, &err, &text), 0);
    char expected[64];
    snprintf(expected, sizeof expected, "%d preload=\nleader=1\n", kept);
    assert_string_equal(buf_str(&text), expected);
}

static void an_adopted_process_is_watched_too(void **unused)
{
    (void)unused;
    struct err err;
    struct child *child = start("exec sleep 60", NULL), *adopted;
    assert_int_equal(child_release(child, &err), 0);
    struct process_id id = child_id(child), wrong = {id.pid, id.start_ticks + 1};
    child_free(child); /* as a hostd that was restarted */
    assert_int_equal(child_adopt(&loop, wrong, ended, NULL, &err, &adopted), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(child_adopt(&loop, id, ended, NULL, &err, &adopted), 0);
    child_signal(adopted, SIGKILL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(told, 1);
    child_free(adopted);
    waitpid(id.pid, NULL, 0);
}

static void an_abandoned_process_is_reaped_in_silence(void **unused)
{
    (void)unused;
    struct err err;
    struct child *child = start("exec sleep 60", NULL);
    assert_int_equal(child_release(child, &err), 0);
    struct process_id id = child_id(child);
    child_abandon(child);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(told, 0);
    assert_false(process_alive(id));
    assert_int_equal(waitpid(id.pid, NULL, WNOHANG), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(its_end_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_process_that_was_not_released_runs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_mortal_one_dies_with_hostd, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_program_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(it_inherits_only_what_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(an_adopted_process_is_watched_too, setup, teardown),
        cmocka_unit_test_setup_teardown(an_abandoned_process_is_reaped_in_silence, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
