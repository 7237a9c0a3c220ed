/* Where guests' processes are put: into cgroups of ours, or by systemd, whose busctl is a script here that notes what
 * it is asked. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "base/loop.h"
#include "hostd/cgroup.h"
#include "hostd/scope.h"

#define VM    "0b7e9a2e-1f3c-4a55-9d57-5d1f3c0a7e10"
#define OTHER "7c1d2f40-88aa-4c1e-a0b3-2f6e9d4b5a21"

static uv_loop_t loop;
static char directory[64];

static int setup(void **unused)
{
    (void)unused;
    strcpy(directory, "/tmp/drover-cgroup-test.XXXXXX");
    ENSURE(mkdtemp(directory) && uv_loop_init(&loop) == 0);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    struct err err;
    loop_close(&loop);
    return file_remove_tree(directory, &err);
}

static const char *at(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static size_t matches(const char *pattern)
{
    glob_t found;
    size_t count = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return count;
}

static size_t there(const char *vm_id)
{
    char v1[PATH_MAX], v2[PATH_MAX];
    snprintf(v1, sizeof v1, "/sys/fs/cgroup/*/drover-*/%s", vm_id);
    snprintf(v2, sizeof v2, "/sys/fs/cgroup/drover-*/%s", vm_id);
    return matches(v1) + matches(v2);
}

/* A process that is in the cgroups of `fds`, which are closed. */
static pid_t process_in(const int *fds, size_t count)
{
    char number[16];
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    int len = snprintf(number, sizeof number, "%d", (int)pid);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(write(fds[i], number, (size_t)len), len);
        close(fds[i]);
    }
    return pid;
}

static void a_guests_own_goes_with_it(void **unused)
{
    (void)unused;
    int fds[CGROUP_TREES_MAX], none[CGROUP_TREES_MAX];
    uint64_t cpu_ns = UINT64_MAX;
    struct cgroups *groups = cgroups_open(&loop, directory);
    size_t count = cgroup_make(groups, VM, fds);
    if (count == 0) { /* not ours to make, here */
        cgroups_close(groups);
        skip();
    }
    pid_t pid = process_in(fds, count);
    size_t other = cgroup_make(groups, OTHER, none);
    for (size_t i = 0; i < other; i++)
        close(none[i]);
    assert_int_equal(there(VM), count);
    assert_int_equal(cgroup_cpu_ns(groups, VM, pid, &cpu_ns), 0);
    assert_true(cpu_ns < UINT64_MAX);

    /* Another hostd of this host finds them: that of the guest that runs stays. */
    cgroups_close(groups);
    groups = cgroups_open(&loop, directory);
    assert_int_equal(there(VM), count);
    assert_int_equal(there(OTHER), 0);

    /* Removed while the kernel may still count the process in. */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    cgroup_remove(groups, VM);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(there(VM), 0);
    cgroups_close(groups);
}

/* Each host on a machine has one for all its guests, which weighs as much as another's, and goes with the last. */
static void hosts_do_not_share(void **unused)
{
    (void)unused;
    int fds[CGROUP_TREES_MAX];
    size_t count = 0;
    size_t before = matches("/sys/fs/cgroup/*/drover-*") + matches("/sys/fs/cgroup/drover-*");
    struct cgroups *one = cgroups_open(&loop, at("one"));
    struct cgroups *two = cgroups_open(&loop, at("two"));
    for (int i = 0; i < 2; i++)
        for (size_t n = count = cgroup_make(i ? two : one, VM, fds); n > 0; n--)
            close(fds[n - 1]);
    assert_int_equal(there(VM), 2 * count);
    cgroup_remove(one, VM);
    assert_int_equal(there(VM), count);
    cgroup_remove(two, VM);
    assert_int_equal(there(VM), 0);
    cgroups_close(one);
    cgroups_close(two);
    assert_true(matches("/sys/fs/cgroup/*/drover-*") + matches("/sys/fs/cgroup/drover-*") <= before);
}

/* Runs one question with a busctl of these words. What it was asked is in `out`, a word a line. */
static void ask_systemd(const char *script, struct buf *out)
{
    struct err err;
    char path[PATH_MAX];
    cleanup_free char *old = mem_strdup(getenv("PATH"));
    cleanup_free char *with = mem_printf("%s:%s", directory, old);
    assert_int_equal(file_write(at("busctl"), script, strlen(script), 0700, &err), 0);
    assert_int_equal(setenv("PATH", with, 1), 0);
    assert_int_equal(setenv("ASKED", at("asked"), 1), 0);
    strcpy(path, at("log"));
    struct scopes *scopes = scopes_open(&loop, path);
    scope_ask(scopes, "drover-1-" VM "-4711.scope", "Drover VM web; rm -rf", 4711);
    uv_run(&loop, UV_RUN_DEFAULT);
    scopes_close(scopes);
    setenv("PATH", old, 1);
    assert_int_equal(file_read(at("asked"), 4096, &err, out), 0);
}

static void systemd_is_asked_for_a_scope(void **unused)
{
    (void)unused;
    cleanup_buf struct buf asked = {0};
    ask_systemd("#!/bin/sh\nfor word; do echo \"$word\"; done > \"$ASKED\"\n", &asked);
    static const char *const parts[] = {"\nStartTransientUnit\nssa(sv)a(sa(sv))\ndrover-1-" VM "-4711.scope\nfail\n8\n",
        "\nPIDs\nau\n1\n4711\n", "\nSlice\ns\ndrover.slice\n", "\nDescription\ns\nDrover VM web; rm -rf\n",
        "\nBefore\nas\n1\ndrover-guests.service\n0\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_non_null(strstr(buf_str(&asked), parts[i]));
}

static void its_refusal_is_no_ones_end(void **unused)
{
    (void)unused;
    cleanup_buf struct buf asked = {0};
    ask_systemd("#!/bin/sh\necho >\"$ASKED\"\necho 'Call failed: no' >&2\nexit 1\n", &asked);
    struct scopes *scopes = scopes_open(&loop, at("log"));
    scope_ask(scopes, "drover-1-" VM "-1.scope", "Drover VM web", 1);
    scopes_close(scopes); /* hostd ends meanwhile */
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_guests_own_goes_with_it),
        T(hosts_do_not_share),
        T(systemd_is_asked_for_a_scope),
        T(its_refusal_is_no_ones_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
