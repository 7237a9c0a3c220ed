#include "migrate/uffd.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* ABI of Linux 6.7, which the headers of older distributions lack (Documentation/admin-guide/mm/userfaultfd.rst). */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1u << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1u << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1u << 15)
#endif
/* Missing pages of shared memory need no feature of their own. */
#define FEATURES (UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

static int uffd_take(pid_t pid, struct err *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot look into QEMU process %d", (int)pid);
    int remote = -1;
    for (struct dirent *entry; remote < 0 && (entry = readdir(dir));) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        if (strcmp(target, "anon_inode:[userfaultfd]") == 0)
            remote = atoi(entry->d_name);
    }
    closedir(dir);
    if (remote < 0)
        return err_set(err, ERR_UNSUPPORTED,
            "QEMU process %d has no userfaultfd: it was started without libdrover-shim.so, or the kernel forbids "
            "userfaultfd (see sysctl vm.unprivileged_userfaultfd); stop and start the VM once that is mended",
            (int)pid);
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, remote, 0);
    if (fd < 0)
        return err_errno(err, ERR_DENIED, errno, "cannot take the userfaultfd of QEMU process %d", (int)pid);
    return fd;
}

static int uffd_find_ram(pid_t pid, const struct ram *ram, struct err *err, uint64_t *address)
{
    struct stat st;
    if (fstat(ram->fd, &st) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot stat %s", ram->path);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    cleanup_file FILE *maps = fopen(path, "re");
    if (!maps)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot read %s", path);
    cleanup_free char *line = NULL;
    size_t space = 0;
    bool found = false;
    while (getline(&line, &space, maps) > 0) {
        uint64_t start, end, offset, inode;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %" SCNu64, &start, &end, &offset, &inode) == 4) {
            found = inode == st.st_ino && offset == 0 && end - start >= ram->bytes;
            if (found)
                *address = start;
        } else if (found && strncmp(line, "VmFlags:", 8) == 0) {
            if (strstr(line, " um"))
                return err_set(err, ERR_STATE,
                    "pages of this guest are missing: the engine that fetched them by post-copy died before its end");
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "QEMU process %d does not map %s in one piece", (int)pid, ram->path);
}

int uffd_open(pid_t pid, const struct ram *ram, struct err *err, struct uffd *out)
{
    struct uffd uffd = {.bytes = ram->bytes};
    uffd.fd = uffd_take(pid, err);
    if (uffd.fd < 0)
        return -1;
    if (uffd_find_ram(pid, ram, err, &uffd.address) < 0) {
        uffd_close(&uffd);
        return -1;
    }
    /* EINVAL also when an earlier migration of this QEMU has agreed on the same features already: then what follows
     * decides. */
    struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
    uffd.shaken = ioctl(uffd.fd, UFFDIO_API, &api) == 0;
    *out = uffd;
    return 0;
}

int uffd_watch(const struct uffd *uffd, uint64_t mode, struct err *err)
{
    struct uffdio_register range = {.range = {uffd->address, uffd->bytes}, .mode = mode};
    if (ioctl(uffd->fd, UFFDIO_REGISTER, &range) < 0)
        return err_errno(err, ERR_UNSUPPORTED, errno, "%s",
            uffd->shaken ? "cannot register guest RAM with userfaultfd"
                         : "this kernel cannot write-protect asynchronously (Linux 6.7 or later is needed)");
    return 0;
}

void uffd_unwatch(const struct uffd *uffd)
{
    struct uffdio_range range = {uffd->address, uffd->bytes};
    if (uffd->fd >= 0)
        (void)ioctl(uffd->fd, UFFDIO_UNREGISTER, &range); /* QEMU may be gone */
}

void uffd_close(struct uffd *uffd)
{
    if (uffd->fd >= 0)
        close(uffd->fd);
    uffd->fd = -1;
}
