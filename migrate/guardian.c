#include "migrate/guardian.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"

struct guardian {
    pid_t pid;
    int pidfd;
    int leash; /* our end of it */
};

#define KEPT 3u

/* In the guardian's process, which is a copy of a program with threads: nothing but system calls. */
static void guardian_close_others(int kept[static KEPT])
{
    for (size_t i = 1; i < KEPT; i++)
        for (size_t k = i; k > 0 && kept[k] < kept[k - 1]; k--) {
            int swap = kept[k];
            kept[k] = kept[k - 1];
            kept[k - 1] = swap;
        }
    unsigned from = 0;
    for (size_t i = 0; i < KEPT; i++) {
        if ((unsigned)kept[i] > from)
            (void)syscall(SYS_close_range, from, (unsigned)kept[i] - 1, 0);
        from = (unsigned)kept[i] + 1;
    }
    (void)syscall(SYS_close_range, from, ~0u, 0);
}

_Noreturn static void guardian_main(const struct uffd *uffd, int lock_fd, int leash)
{
    char word;
    ssize_t n;
    setsid(); /* what is sent to the engine's process group is not for us */
    (void)prctl(PR_SET_NAME, "drover-guardian");
    guardian_close_others((int[KEPT]){uffd->fd, lock_fd, leash});
    do
        n = read(leash, &word, 1);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        uffd_unwatch(uffd);
    _exit(0);
}

int guardian_start(const struct uffd *uffd, int lock_fd, struct err *err, struct guardian **out)
{
    int leash[2];
    sigset_t all, old;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, leash) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot make a pair of sockets");
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the guardian keeps this mask: only SIGKILL ends it */
    pid_t pid = fork();
    if (pid == 0) /* which closes the other end, too */
        guardian_main(uffd, lock_fd, leash[0]);
    int why = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(leash[0]);
    struct guardian *guardian = mem_zalloc(sizeof *guardian);
    *guardian = (struct guardian){.pid = pid, .pidfd = -1, .leash = leash[1]};
    if (pid > 0) {
        guardian->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        why = errno;
    }
    if (guardian->pidfd < 0) {
        guardian_dismiss(guardian);
        return err_errno(err, ERR_INTERNAL, why, "cannot start the guardian of the guest's memory");
    }
    *out = guardian;
    return 0;
}

int guardian_fd(const struct guardian *guardian)
{
    return guardian->pidfd;
}

void guardian_dismiss(struct guardian *guardian)
{
    if (!guardian)
        return;
    (void)send(guardian->leash, "", 1, MSG_NOSIGNAL); /* it may have been killed */
    close(guardian->leash);
    while (guardian->pid > 0 && waitpid(guardian->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    if (guardian->pidfd >= 0)
        close(guardian->pidfd);
    free(guardian);
}
