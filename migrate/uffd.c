#include "migrate/uffd.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/shim.h"

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
#define UFFDS_MAX 8u

#define FEATURES_SYNC  (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)
#define FEATURES_ASYNC (UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

/* What the shim names a memfd, to say that its userfaultfds are for faults of user mode only. */
#define USER_MODE_LABEL "/memfd:" SHIM_USER_MODE_LABEL

static bool uffd_fits(enum uffd_use use, uint64_t agreed)
{
    switch (use) {
    case UFFD_TRACK_ASYNC:
        return agreed & UFFD_FEATURE_WP_ASYNC;
    case UFFD_TRACK_SYNC: /* asynchronously resolved writes would never be told */
        return (agreed & FEATURES_SYNC) == FEATURES_SYNC && !(agreed & UFFD_FEATURE_WP_ASYNC);
    case UFFD_FETCH:
        return true;
    }
    return false;
}

/* The features a descriptor has agreed on, with the kernel's own bit 31; 0: it has agreed on nothing yet. */
static uint64_t uffd_agreed(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    cleanup_file FILE *info = fopen(path, "re");
    char line[128];
    uint64_t features = 0;
    while (info && fgets(line, sizeof line, info))
        if (sscanf(line, "API: %*x:%" SCNx64, &features) == 1)
            break;
    return features;
}

static bool uffd_agree(int fd, uint64_t features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    return ioctl(fd, UFFDIO_API, &api) == 0;
}

/* Agrees on what the use needs with a descriptor that has agreed on nothing. */
static bool uffd_shake(int fd, enum uffd_use use)
{
    switch (use) {
    case UFFD_TRACK_ASYNC:
        return uffd_agree(fd, FEATURES_ASYNC);
    case UFFD_TRACK_SYNC:
        return uffd_agree(fd, FEATURES_SYNC);
    case UFFD_FETCH: /* so that the guest can leave again by the best that there is */
        return uffd_agree(fd, FEATURES_ASYNC) || uffd_agree(fd, FEATURES_SYNC) || uffd_agree(fd, 0);
    }
    return false;
}

/* What there is in the descriptor table of QEMU. */
struct found {
    int fds[UFFDS_MAX]; /* userfaultfds, taken */
    size_t count;
    bool partly;    /* there are more, which could not be taken */
    bool user_mode; /* only faults of user mode are told */
};

static int uffd_take(int pidfd, int remote, struct found *found)
{
    int fd = pidfd < 0 || found->count == UFFDS_MAX ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, remote, 0);
    if (fd >= 0)
        found->fds[found->count++] = fd;
    return fd;
}

static int uffd_find(pid_t pid, struct err *err, struct found *found)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot look into QEMU process %d", (int)pid);
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int failure = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        if (strcmp(target, "anon_inode:[userfaultfd]") == 0 && uffd_take(pidfd, atoi(entry->d_name), found) < 0)
            failure = errno;
        found->user_mode = found->user_mode || strncmp(target, USER_MODE_LABEL, strlen(USER_MODE_LABEL)) == 0;
    }
    closedir(dir);
    found->partly = failure || found->count == UFFDS_MAX;
    if (found->count == 0 && failure)
        return err_errno(err, ERR_DENIED, failure, "cannot take the userfaultfd of QEMU process %d", (int)pid);
    if (found->count == 0)
        return err_set(err, ERR_UNSUPPORTED,
            "QEMU process %d has no userfaultfd: it was started without libdrover-shim.so, or the kernel forbids "
            "userfaultfd (see sysctl vm.unprivileged_userfaultfd); stop and start the VM once that is mended, or move "
            "it with tracker qemu",
            (int)pid);
    return 0;
}

/* Chooses one that has agreed on what is needed, else one that agrees now. -1: none. */
static int uffd_choose(const struct found *found, enum uffd_use use)
{
    for (size_t i = 0; i < found->count; i++) {
        uint64_t agreed = uffd_agreed(found->fds[i]);
        if (agreed && uffd_fits(use, agreed))
            return found->fds[i];
    }
    for (size_t i = 0; i < found->count; i++)
        if (uffd_shake(found->fds[i], use))
            return found->fds[i];
    return -1;
}

static int uffd_refuse(enum uffd_use use, struct err *err)
{
    static const char *const lacks[] = {
        [UFFD_TRACK_ASYNC] = "cannot write-protect asynchronously (Linux 6.7 or later is needed)",
        [UFFD_TRACK_SYNC] = "cannot write-protect shared memory (Linux 5.19 or later is needed)",
        [UFFD_FETCH] = "cannot tell of missing pages",
    };
    return err_set(err, ERR_UNSUPPORTED,
        "this kernel %s, or other trackers have used up what this QEMU has; another tracker may do", lacks[use]);
}

/* Where memory may be watched already, it must not be for missing pages. To tell that the kernel looks at every page
 * (15 ms/GiB, with QEMU's address space locked), so it is asked only where `watched`. */
static int uffd_find_ram(pid_t pid, const struct ram *ram, bool watched, struct err *err, uint64_t *address)
{
    struct stat st;
    if (fstat(ram->fd, &st) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot stat %s", ram->path);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, watched ? "smaps" : "maps");
    cleanup_file FILE *maps = fopen(path, "re");
    if (!maps)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot read %s", path);
    cleanup_free char *line = NULL;
    size_t space = 0;
    bool found = false;
    while (getline(&line, &space, maps) > 0) {
        uint64_t start, end, offset, inode;
        unsigned major, minor; /* inodes are numbered by each file system for itself */
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64, &start, &end, &offset, &major,
                &minor, &inode) == 6) {
            found =
                makedev(major, minor) == st.st_dev && inode == st.st_ino && offset == 0 && end - start >= ram->bytes;
            if (found)
                *address = start;
            if (found && !watched)
                return 0;
        } else if (found && strncmp(line, "VmFlags:", 8) == 0) {
            if (strstr(line, " um"))
                return err_set(err, ERR_WRONG_STATE,
                    "pages of this guest are missing: the engine that fetched them by post-copy died before its end");
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "QEMU process %d does not map %s in one piece", (int)pid, ram->path);
}

int uffd_watch(const struct uffd *uffd, uint64_t mode, struct err *err)
{
    struct uffdio_register range = {.range = {uffd->address, uffd->bytes}, .mode = mode};
    if (ioctl(uffd->fd, UFFDIO_REGISTER, &range) < 0)
        return err_errno(err, ERR_UNSUPPORTED, errno, "cannot register guest RAM with userfaultfd");
    return 0;
}

void uffd_unwatch(const struct uffd *uffd)
{
    struct uffdio_range range = {uffd->address, uffd->bytes};
    if (uffd->fd < 0)
        return;
    (void)ioctl(uffd->fd, UFFDIO_UNREGISTER, &range); /* QEMU may be gone */
    (void)ioctl(uffd->fd, UFFDIO_WAKE, &range);       /* the kernel itself wakes only who waits for a missing page */
}

void uffd_close(struct uffd *uffd)
{
    if (uffd->fd >= 0)
        close(uffd->fd);
    uffd->fd = -1;
}

/* Lets go of all but `kept`. What an engine that was killed has left registered with any of them ends, and who waits
 * because of it goes on: memory is watched by one userfaultfd at a time. */
static void uffd_drop(const struct found *found, const struct uffd *kept)
{
    for (size_t i = 0; i < found->count; i++) {
        struct uffd each = {found->fds[i], kept->address, kept->bytes};
        if (kept->fd >= 0)
            uffd_unwatch(&each);
        if (each.fd != kept->fd)
            uffd_close(&each);
    }
}

static int uffd_pick(pid_t pid, const struct found *found, enum uffd_use use, struct err *err)
{
    if (found->user_mode && use == UFFD_TRACK_SYNC)
        return err_set(err, ERR_UNSUPPORTED,
            "the userfaultfds of QEMU process %d are for faults of user mode only, and system calls that write to "
            "protected memory would fail; give QEMU CAP_SYS_PTRACE or set sysctl vm.unprivileged_userfaultfd = 1, then "
            "stop and start the VM",
            (int)pid);
    int fd = uffd_choose(found, use);
    return fd < 0 ? uffd_refuse(use, err) : fd;
}

int uffd_open(pid_t pid, const struct ram *ram, enum uffd_use use, struct err *err, struct uffd *out)
{
    struct found found = {0};
    struct uffd uffd = {.fd = -1, .bytes = ram->bytes};
    if (uffd_find(pid, err, &found) < 0)
        return -1;
    bool watched = found.partly; /* who has agreed on nothing has watched nothing */
    for (size_t i = 0; i < found.count; i++)
        watched = watched || uffd_agreed(found.fds[i]);
    if (uffd_find_ram(pid, ram, watched, err, &uffd.address) == 0)
        uffd.fd = uffd_pick(pid, &found, use, err);
    uffd_drop(&found, &uffd);
    if (uffd.fd < 0)
        return -1;
    *out = uffd;
    return 0;
}

int uffd_release(pid_t pid, const struct ram *ram, struct err *err)
{
    struct found found = {0};
    struct uffd each = {.fd = -1, .bytes = ram->bytes};
    if (uffd_find(pid, err, &found) < 0)
        return -1;
    int rc = uffd_find_ram(pid, ram, true, err, &each.address);
    for (size_t i = 0; i < found.count; i++) {
        each.fd = found.fds[i];
        if (rc == 0)
            uffd_unwatch(&each);
        uffd_close(&each);
    }
    return rc;
}
