/* Whose memory it is that a QEMU maps, with this very process in QEMU's place. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate/uffd.h"

#define PAGES 16u
#define FILES 2

struct fixture {
    pid_t keeper; /* of two file systems, each with one file; -1: they cannot be had here */
    char directory[32];
    struct ram ram[FILES];
    void *mapped[FILES];
    int uffd;
    struct err err;
};

static struct fixture fixture;

static void file_path(const char *directory, int number, char *out, size_t size)
{
    snprintf(out, size, "%.64s/%d/ram", directory, number);
}

static bool file_system_make(const char *directory, int number)
{
    char path[128];
    snprintf(path, sizeof path, "%.64s/%d", directory, number);
    if (mkdir(path, 0700) < 0 || mount("none", path, "tmpfs", 0, NULL) < 0)
        return false;
    file_path(directory, number, path, sizeof path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool made = fd >= 0 && ftruncate(fd, PAGES * PAGE_BYTES) == 0;
    close(fd);
    return made;
}

/* In a mount namespace of its own: over with this process. */
static pid_t keeper_start(const char *directory)
{
    int ready[2];
    char word = 'n';
    if (pipe(ready) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bool made = unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                    mount("none", directory, "tmpfs", 0, NULL) == 0;
        for (int i = 0; i < FILES; i++)
            made = made && file_system_make(directory, i);
        (void)!write(ready[1], made ? "y" : "n", 1);
        for (;;)
            pause();
    }
    (void)!read(ready[0], &word, 1);
    close(ready[0]);
    close(ready[1]);
    if (word == 'y')
        return pid;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return -1;
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    *f = (struct fixture){.directory = "/tmp/drover-test-XXXXXX", .uffd = -1};
    if (!mkdtemp(f->directory))
        return -1;
    f->keeper = keeper_start(f->directory);
    for (int i = 0; i < FILES && f->keeper > 0; i++) {
        char path[128], root[64];
        snprintf(root, sizeof root, "/proc/%d/root%s", (int)f->keeper, f->directory);
        file_path(root, i, path, sizeof path);
        if (ram_open(path, PAGES * PAGE_BYTES, &f->err, &f->ram[i]) < 0)
            return -1;
    }
    f->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < FILES && f->keeper > 0; i++) {
        if (f->mapped[i])
            munmap(f->mapped[i], f->ram[i].bytes);
        ram_close(&f->ram[i]);
    }
    if (f->keeper > 0) {
        kill(f->keeper, SIGKILL);
        waitpid(f->keeper, NULL, 0);
    }
    if (f->uffd >= 0)
        close(f->uffd);
    return rmdir(f->directory);
}

static void map(struct fixture *f, int number)
{
    f->mapped[number] = mmap(NULL, f->ram[number].bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->ram[number].fd, 0);
    assert_ptr_not_equal(f->mapped[number], MAP_FAILED);
}

/* Each file system counts its inodes by itself: a file of the same number elsewhere is another one. */
static void test_a_file_of_another_file_system_is_not_ram(void **state)
{
    struct fixture *f = *state;
    struct stat one, other;
    struct uffd found;
    if (f->keeper < 0 || f->uffd < 0)
        skip();
    assert_int_equal(fstat(f->ram[0].fd, &one), 0);
    assert_int_equal(fstat(f->ram[1].fd, &other), 0);
    assert_int_equal(one.st_ino, other.st_ino);
    map(f, 0);
    assert_int_equal(uffd_open(getpid(), &f->ram[1], UFFD_FETCH, &f->err, &found), -1);
    assert_int_equal(f->err.code, ERR_INVALID);
    map(f, 1);
    assert_int_equal(uffd_open(getpid(), &f->ram[1], UFFD_FETCH, &f->err, &found), 0);
    assert_int_equal(found.address, (uintptr_t)f->mapped[1]);
    uffd_close(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_file_of_another_file_system_is_not_ram, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
