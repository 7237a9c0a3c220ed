#include "hostd/child.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/ensure.h"

struct child {
    uv_poll_t poll;
    struct process_id id;
    int pidfd;
    int gate; /* our end of the socket the process waits at; -1 once it is released */
    bool ours;
    bool ended;
    child_exit_fn fn;
    void *user;
};

static void child_closed(uv_handle_t *handle)
{
    struct child *child = handle->data;
    close(child->pidfd);
    free(child);
}

static void child_ended(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct child *child = poll->data;
    siginfo_t info = {0};
    int wait_status = -1;
    if (child->ours && waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0)
        wait_status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
    uv_poll_stop(&child->poll);
    child->ended = true;
    if (child->fn)
        child->fn(child->user, wait_status);
    else
        child_free(child);
}

static struct child *child_make(
    uv_loop_t *loop, struct process_id id, int pidfd, bool ours, child_exit_fn fn, void *user)
{
    struct child *child = mem_zalloc(sizeof *child);
    *child = (struct child){.id = id, .pidfd = pidfd, .gate = -1, .ours = ours, .fn = fn, .user = user};
    ENSURE(uv_poll_init(loop, &child->poll, pidfd) == 0);
    child->poll.data = child;
    ENSURE(uv_poll_start(&child->poll, UV_READABLE, child_ended) == 0);
    return child;
}

/* What the new process does until its program runs. Other threads of hostd (ZeroMQ's) may hold locks at the fork, so
 * only calls that are safe in signal handlers are made here. Reports errno through the gate, which a successful exec
 * closes. */
static _Noreturn void child_become(
    const struct child_options *o, char *const *env, const char *program, int gate, int log)
{
    char go;
    setsid();
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    signal(SIGPIPE, SIG_IGN); /* hostd is a client of what it starts: its death must not be theirs */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (o->mortal && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) /* before the gate: a hostd dead by now is found out there */
        _exit(127);
    ssize_t n;
    do
        n = read(gate, &go, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(127); /* hostd died before it wrote this process down */
    for (size_t i = 0; i < o->cgroup_count; i++)
        if (write(o->cgroup_fds[i], "0", 1) < 0)
            goto fail;
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        goto fail;
    if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        goto fail;
    for (size_t i = 0; i < o->keep_count; i++)
        if (fcntl(o->keep_fds[i], F_SETFD, 0) < 0)
            goto fail;
    execve(program, o->argv, env);
fail:;
    int why = errno;
    (void)!write(gate, &why, sizeof why);
    _exit(127);
}

/* Finds a program as execvp() would; done before the fork because it allocates. */
static int program_find(const char *name, struct err *err, char out[static PATH_MAX])
{
    if (strchr(name, '/')) {
        if (strlen(name) >= PATH_MAX || access(name, X_OK) < 0)
            return err_errno(err, ERR_NOT_FOUND, errno, "cannot run %s", name);
        strcpy(out, name);
        return 0;
    }
    const char *path = getenv("PATH");
    cleanup_free char *list = mem_strdup(path && *path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
    char *save = NULL;
    for (char *part = strtok_r(list, ":", &save); part; part = strtok_r(NULL, ":", &save))
        if (snprintf(out, PATH_MAX, "%s/%s", part, name) < PATH_MAX && access(out, X_OK) == 0)
            return 0;
    return err_set(err, ERR_NOT_FOUND, "program %s is not installed (not found in PATH)", name);
}

/* Our environment with LD_PRELOAD as asked for. Take: free() the array and its first element when `preload` is set. */
static char **child_environment(const char *preload)
{
    size_t count = 0, used = 0;
    while (environ[count])
        count++;
    char **env = mem_zalloc((count + 2) * sizeof *env);
    if (preload)
        env[used++] = mem_printf("LD_PRELOAD=%s", preload);
    for (size_t i = 0; i < count; i++)
        if (!preload || strncmp(environ[i], "LD_PRELOAD=", 11) != 0)
            env[used++] = environ[i];
    return env;
}

int child_fork(uv_loop_t *loop, const struct child_options *options, child_exit_fn fn, void *user, struct err *err,
    struct child **out)
{
    char program[PATH_MAX];
    if (program_find(options->argv[0], err, program) < 0)
        return -1;
    cleanup_fd int log = open(options->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot open %s", options->log_path);
    int gate[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot make a socket pair");
    char **env = child_environment(options->preload);
    pid_t pid = fork();
    if (pid == 0) {
        close(gate[0]);
        child_become(options, env, program, gate[1], log);
    }
    int why = errno;
    if (options->preload)
        free(env[0]);
    free(env);
    close(gate[1]);
    if (pid < 0) {
        close(gate[0]);
        return err_errno(err, ERR_INTERNAL, why, "cannot fork");
    }
    struct process_id id;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0 || process_identify(pid, err, &id) < 0) {
        if (pidfd < 0)
            err_errno(err, ERR_INTERNAL, errno, "cannot watch process %d", (int)pid);
        else
            close(pidfd);
        close(gate[0]); /* it ends by itself */
        waitpid(pid, NULL, 0);
        return -1;
    }
    *out = child_make(loop, id, pidfd, true, fn, user);
    (*out)->gate = gate[0];
    return 0;
}

int child_release(struct child *child, struct err *err)
{
    ENSURE(child->gate >= 0);
    int gate = child->gate, why = 0;
    child->gate = -1;
    ssize_t n = -1;
    if (send(gate, "g", 1, MSG_NOSIGNAL) == 1)
        do /* ends within moments: the gate closes when the program is being run, or when the process dies */
            n = recv(gate, &why, sizeof why, MSG_WAITALL);
        while (n < 0 && errno == EINTR);
    close(gate);
    if (n == 0)
        return 0;
    if (n == (ssize_t)sizeof why)
        return err_errno(err, ERR_INTERNAL, why, "cannot run the program");
    return err_set(err, ERR_INTERNAL, "the process died before it ran its program");
}

int child_adopt(
    uv_loop_t *loop, struct process_id id, child_exit_fn fn, void *user, struct err *err, struct child **out)
{
    if (id.pid <= 1)
        return err_set(err, ERR_NOT_FOUND, "no process is recorded");
    int pidfd = (int)syscall(SYS_pidfd_open, id.pid, 0);
    if (pidfd < 0)
        return err_errno(err, errno == ESRCH ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "process %d", (int)id.pid);
    if (!process_alive(id)) {
        close(pidfd);
        return err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)id.pid);
    }
    *out = child_make(loop, id, pidfd, false, fn, user);
    return 0;
}

struct process_id child_id(const struct child *child)
{
    return child->id;
}

bool child_running(const struct child *child)
{
    return !child->ended;
}

void child_signal(struct child *child, int signal)
{
    if (!child->ended)
        syscall(SYS_pidfd_send_signal, child->pidfd, signal, NULL, 0);
}

void child_abandon(struct child *child)
{
    child_signal(child, SIGKILL);
    child->fn = NULL;
    if (child->ended)
        child_free(child);
}

void child_free(struct child *child)
{
    if (!child)
        return;
    if (child->gate >= 0) {
        close(child->gate);
        waitpid(child->id.pid, NULL, 0); /* it ends at once, without having run anything */
    }
    uv_poll_stop(&child->poll);
    uv_close((uv_handle_t *)&child->poll, child_closed);
}

void child_last_line(const char *path, size_t size, char *out)
{
    char text[1024];
    out[0] = '\0';
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t start = end > (off_t)sizeof text ? end - (off_t)sizeof text : 0;
    ssize_t n = fd < 0 ? 0 : pread(fd, text, sizeof text, start);
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    if (n <= 0)
        return;
    const char *line = memrchr(text, '\n', (size_t)n);
    line = line ? line + 1 : text;
    size_t len = (size_t)(text + n - line), used = 0;
    for (; used < len && used < size - 1; used++)
        out[used] = isprint((unsigned char)line[used]) ? line[used] : '?';
    out[used] = '\0';
}
