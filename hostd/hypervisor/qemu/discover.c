#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hostd/hypervisor/qemu/private.h"
#include "proto/trackers.h"

#define DISCOVER_TIMEOUT_MS 15000
#define DISCOVER_BYTES_MAX  (1u << 20)

/* Newer than the headers of Debian 12. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* The program reads `input` to its end; it is short enough for a pipe. */
static pid_t discover_spawn(char *const argv[], const char *input, int output)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[0], 0);
        dup2(output, 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    size_t len = strlen(input);
    if (pid > 0 && len && write(ends[1], input, len) != (ssize_t)len)
        kill(pid, SIGKILL);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

int discover_run(char *const argv[], const char *input, struct err *err, struct buf *out)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot make a pipe");
    pid_t pid = discover_spawn(argv, input, ends[1]);
    int failed = errno;
    close(ends[1]);
    uint64_t deadline = clock_now_ms() + DISCOVER_TIMEOUT_MS;
    buf_clear(out);
    while (pid > 0 && out->len < DISCOVER_BYTES_MAX) {
        uint64_t now = clock_now_ms();
        struct pollfd ready = {.fd = ends[0], .events = POLLIN};
        if (now >= deadline || poll(&ready, 1, (int)(deadline - now)) <= 0)
            break;
        ssize_t n = read(ends[0], buf_reserve(out, 4096), 4096);
        if (n <= 0)
            break;
        out->len += (size_t)n;
    }
    close(ends[0]);
    if (pid < 0)
        return err_errno(err, ERR_INTERNAL, failed, "cannot run %s", argv[0]);
    int status;
    if (clock_now_ms() >= deadline)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return err_set(err, ERR_NOT_FOUND, "%s cannot be run; install QEMU or set hypervisor.qemu", argv[0]);
    if (status != 0)
        return err_set(err, ERR_UNSUPPORTED, "%s %s %s failed", argv[0], argv[1], argv[2]);
    return 0;
}

static int discover_output(const char *program, const char *one, const char *two, struct err *err, struct buf *out)
{
    char *const argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t)one, (char *)(uintptr_t)two, NULL};
    return discover_run(argv, "", err, out);
}

int discover_program(const char *program, struct err *err, struct hypervisor_facts *out)
{
    cleanup_buf struct buf text = {0};
    if (discover_output(program, "-nodefaults", "-version", err, &text) < 0)
        return -1;
    char version[32];
    int major, minor;
    if (sscanf(buf_str(&text), "QEMU emulator version %31[0-9.]", version) != 1 ||
        sscanf(version, "%d.%d", &major, &minor) != 2)
        return err_set(err, ERR_UNSUPPORTED, "%s does not say which version of QEMU it is", program);
    if (major < 7 || (major == 7 && minor < 2))
        return err_set(err, ERR_UNSUPPORTED, "%s is QEMU %s; 7.2 or later is needed", program, version);
    snprintf(out->version, sizeof out->version, "QEMU %s", version);
    if (discover_output(program, "-machine", "help", err, &text) < 0)
        return -1;
    char *save = NULL;
    for (char *line = strtok_r((char *)(uintptr_t)buf_str(&text), "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        line[strcspn(line, " ")] = '\0';
        if (strncmp(line, "pc-q35-", 7) == 0 && out->machine_count < HYPERVISOR_MACHINES_MAX)
            out->machines[out->machine_count++] = mem_strdup(line);
    }
    return 0;
}

/* What the kernel and the shim give; the rest is QEMU's own. */
static const char *discover_protection(const char *shim, char *why, size_t size)
{
    const uint64_t sync = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    const uint64_t async = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    if (access(shim, R_OK) < 0) {
        snprintf(why, size, "%s cannot be read: %s", shim, strerror(errno));
        return "qemu";
    }
    /* For faults of user mode only it may be allowed to everybody: enough where the kernel itself resolves writes. */
    cleanup_fd int all = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    cleanup_fd int user = all >= 0 ? -1 : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    if ((all < 0 && user < 0) || ioctl(all >= 0 ? all : user, UFFDIO_API, &api) < 0) {
        snprintf(why, size, "userfaultfd is not allowed: %s", strerror(errno));
        return "qemu";
    }
    if ((api.features & async) == async)
        return "wp-async";
    snprintf(why, size, "the kernel has no asynchronous write protection (Linux 6.7)");
    if (all >= 0 && (api.features & sync) == sync)
        return "wp-sync";
    snprintf(why, size, "%s",
        all >= 0 ? "the kernel cannot write-protect shared memory (Linux 5.19)"
                 : "userfaultfd is allowed for faults of user mode only");
    return "qemu";
}

void discover_tracker(const char *shim, const char *wanted, struct hypervisor_facts *out)
{
    bool any = trackers_any(wanted);
    const char *best = discover_protection(shim, out->tracker_reason, sizeof out->tracker_reason);
    out->tracker = any ? best : wanted;
    if (!any && !trackers_had(best, wanted))
        out->tracker = "none"; /* the reason is there */
    int major = atoi(out->version + strcspn(out->version, "0123456789"));
    if (strcmp(out->tracker, "qemu") == 0 && major < 8 && strcmp(out->accelerator, "kvm") != 0) {
        snprintf(out->tracker_reason, sizeof out->tracker_reason,
            "%s loses writes of guests that run without KVM when it migrates by itself, and nothing else can be used",
            out->version);
        out->tracker = "none";
    }
}
