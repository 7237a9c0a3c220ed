#include "migrate/tracker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* ABI of Linux 6.7, which the headers of older distributions lack (Documentation/admin-guide/mm/pagemap.rst,
 * userfaultfd.rst). */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1u << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1u << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1u << 15)
#endif
#define TRACKER_FEATURES (UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

struct scan_region {
    uint64_t start, end, categories;
};
struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL         _IOWR('f', 16, struct scan_arg)
#define SCAN_PROTECT       1u /* PM_SCAN_WP_MATCHING */
#define SCAN_CHECK_WPASYNC 2u /* PM_SCAN_CHECK_WPASYNC */
#define SCAN_WRITTEN       2u /* PAGE_IS_WRITTEN */

#define SCAN_REGIONS 4096
/* Protecting while scanning makes the kernel drop secondary (KVM) mappings of the whole range it was asked for, so
 * sparse writes are first found without protecting, then protected range by range. Beyond this many ranges one wide
 * pass is cheaper. */
#define NARROW_REGIONS 256

struct tracker {
    int uffd;
    int pagemap;
    uint64_t address; /* of RAM in QEMU */
    uint64_t bytes;
    struct scan_region regions[SCAN_REGIONS];
};

const char *tracker_name(const struct tracker *tracker)
{
    (void)tracker;
    return "wp-async";
}

static int tracker_take_uffd(pid_t pid, struct err *err)
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
            "userfaultfd "
            "(see sysctl vm.unprivileged_userfaultfd); stop and start the VM once that is mended",
            (int)pid);
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, remote, 0);
    if (fd < 0)
        return err_errno(err, ERR_DENIED, errno, "cannot take the userfaultfd of QEMU process %d", (int)pid);
    return fd;
}

static int tracker_find_ram(pid_t pid, const struct ram *ram, struct err *err, uint64_t *address)
{
    struct stat st;
    if (fstat(ram->fd, &st) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot stat %s", ram->path);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    cleanup_file FILE *maps = fopen(path, "re");
    if (!maps)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot read %s", path);
    cleanup_free char *line = NULL;
    size_t space = 0;
    while (getline(&line, &space, maps) > 0) {
        uint64_t start, end, offset, inode;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %" SCNu64, &start, &end, &offset, &inode) != 4)
            continue;
        if (inode == st.st_ino && offset == 0 && end - start >= ram->bytes) {
            *address = start;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "QEMU process %d does not map %s in one piece", (int)pid, ram->path);
}

static int tracker_register(struct tracker *tracker, struct err *err)
{
    struct uffdio_api api = {.api = UFFD_API, .features = TRACKER_FEATURES};
    /* EINVAL also when an earlier migration of this QEMU has shaken hands already; then the registration below decides.
     */
    int shaken = ioctl(tracker->uffd, UFFDIO_API, &api);
    struct uffdio_register range = {.range = {tracker->address, tracker->bytes}, .mode = UFFDIO_REGISTER_MODE_WP};
    if (ioctl(tracker->uffd, UFFDIO_REGISTER, &range) < 0)
        return err_errno(err, ERR_UNSUPPORTED, errno, "%s",
            shaken < 0 ? "this kernel cannot write-protect asynchronously (Linux 6.7 or later is needed)"
                       : "cannot register guest RAM with userfaultfd");
    struct uffdio_writeprotect protect = {
        .range = {tracker->address, tracker->bytes}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    if (ioctl(tracker->uffd, UFFDIO_WRITEPROTECT, &protect) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot write-protect guest RAM");
    return 0;
}

int tracker_open(pid_t pid, const struct ram *ram, struct err *err, struct tracker **out)
{
    struct tracker *tracker = mem_zalloc(sizeof *tracker);
    tracker->pagemap = -1;
    tracker->bytes = ram->bytes;
    tracker->uffd = tracker_take_uffd(pid, err);
    if (tracker->uffd < 0 || tracker_find_ram(pid, ram, err, &tracker->address) < 0)
        goto fail;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    tracker->pagemap = open(path, O_RDONLY | O_CLOEXEC);
    if (tracker->pagemap < 0) {
        err_errno(err, ERR_DENIED, errno, "cannot open %s", path);
        goto fail;
    }
    if (tracker_register(tracker, err) < 0)
        goto fail;
    *out = tracker;
    return 0;
fail:
    tracker_close(tracker);
    return err_wrap(err, "dirty page tracking");
}

void tracker_close(struct tracker *tracker)
{
    if (!tracker)
        return;
    if (tracker->uffd >= 0) {
        struct uffdio_range range = {tracker->address, tracker->bytes};
        (void)ioctl(tracker->uffd, UFFDIO_UNREGISTER, &range); /* lifts the protection; QEMU may be gone */
        close(tracker->uffd);
    }
    if (tracker->pagemap >= 0)
        close(tracker->pagemap);
    free(tracker);
}

/* One call: finds written ranges in [start, end) and adds them to `written`; `*walked` is where it stopped. Returns
 * their number. */
static int tracker_walk_once(struct tracker *tracker, uint64_t start, uint64_t end, uint64_t flags, struct err *err,
    struct bitmap *written, uint64_t *walked)
{
    struct scan_arg arg = {
        .size = sizeof arg,
        .flags = flags | SCAN_CHECK_WPASYNC,
        .start = start,
        .end = end,
        .vec = (uint64_t)(uintptr_t)tracker->regions,
        .vec_len = SCAN_REGIONS,
        .category_mask = SCAN_WRITTEN,
        .return_mask = SCAN_WRITTEN,
    };
    int n;
    do
        n = ioctl(tracker->pagemap, SCAN_IOCTL, &arg);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(err, errno == ENOTTY ? ERR_UNSUPPORTED : ERR_INTERNAL, errno, "cannot scan guest RAM");
    for (int i = 0; i < n; i++)
        bitmap_set_range(written, (tracker->regions[i].start - tracker->address) / PAGE_BYTES,
            (tracker->regions[i].end - tracker->address) / PAGE_BYTES);
    *walked = arg.walk_end;
    return n;
}

static int tracker_protect(
    struct tracker *tracker, uint64_t start, uint64_t end, struct err *err, struct bitmap *written)
{
    while (start < end)
        if (tracker_walk_once(tracker, start, end, SCAN_PROTECT, err, written, &start) < 0)
            return -1;
    return 0;
}

int tracker_scan(struct tracker *tracker, struct err *err, struct bitmap *written)
{
    uint64_t start = tracker->address, end = start + tracker->bytes, walked;
    int found = tracker_walk_once(tracker, start, end, 0, err, written, &walked);
    if (found < 0)
        return -1;
    if (found > NARROW_REGIONS || walked < end)
        return tracker_protect(tracker, start, end, err, written);

    struct scan_region narrow[NARROW_REGIONS];
    memcpy(narrow, tracker->regions, (size_t)found * sizeof *narrow);
    for (int i = 0; i < found; i++)
        if (tracker_protect(tracker, narrow[i].start, narrow[i].end, err, written) < 0)
            return -1;
    return 0;
}
