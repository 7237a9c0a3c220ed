/* wp-async: the kernel notes and resolves; we ask it with PAGEMAP_SCAN. tracker.h has the contract. */
#include "migrate/tracker_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "migrate/uffd.h"

/* ABI of Linux 6.7, which the headers of older distributions lack (Documentation/admin-guide/mm/pagemap.rst). */
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

struct async {
    struct uffd uffd;
    int pagemap;
    struct scan_region regions[SCAN_REGIONS];
};

static int async_register(struct async *async, struct err *err)
{
    if (uffd_watch(&async->uffd, UFFDIO_REGISTER_MODE_WP, err) < 0)
        return -1;
    struct uffdio_writeprotect protect = {
        .range = {async->uffd.address, async->uffd.bytes}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    if (ioctl(async->uffd.fd, UFFDIO_WRITEPROTECT, &protect) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot write-protect guest RAM");
    return 0;
}

static void async_close(void *state)
{
    struct async *async = state;
    uffd_unwatch(&async->uffd); /* lifts the protection */
    uffd_close(&async->uffd);
    if (async->pagemap >= 0)
        close(async->pagemap);
    free(async);
}

static int async_open(pid_t pid, const struct ram *ram, int lock_fd, struct err *err, void **out)
{
    struct async *async = mem_zalloc(sizeof *async);
    (void)lock_fd;
    async->pagemap = -1;
    async->uffd = UFFD_CLOSED;
    if (uffd_open(pid, ram, UFFD_TRACK_ASYNC, err, &async->uffd) < 0)
        goto fail;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    async->pagemap = open(path, O_RDONLY | O_CLOEXEC);
    if (async->pagemap < 0) {
        err_errno(err, ERR_DENIED, errno, "cannot open %s", path);
        goto fail;
    }
    if (async_register(async, err) < 0)
        goto fail;
    *out = async;
    return 0;
fail:
    async_close(async);
    return -1;
}

/* What one call may find. */
struct finds {
    struct scan_region *regions;
    size_t max;
};

/* One call: finds written ranges in [start, end) and adds them to `written`; `*walked` is where it stopped. Returns
 * their number. */
static int async_walk_once(const struct async *async, struct finds finds, uint64_t start, uint64_t end, uint64_t flags,
    struct err *err, struct bitmap *written, uint64_t *walked)
{
    struct scan_arg arg = {
        .size = sizeof arg,
        .flags = flags | SCAN_CHECK_WPASYNC,
        .start = start,
        .end = end,
        .vec = (uint64_t)(uintptr_t)finds.regions,
        .vec_len = finds.max,
        .category_mask = SCAN_WRITTEN,
        .return_mask = SCAN_WRITTEN,
    };
    int n;
    do
        n = ioctl(async->pagemap, SCAN_IOCTL, &arg);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(err, errno == ENOTTY ? ERR_UNSUPPORTED : ERR_INTERNAL, errno, "cannot scan guest RAM");
    for (int i = 0; i < n; i++)
        bitmap_set_range(written, (finds.regions[i].start - async->uffd.address) / PAGE_BYTES,
            (finds.regions[i].end - async->uffd.address) / PAGE_BYTES);
    *walked = arg.walk_end;
    return n;
}

static int async_protect(const struct async *async, struct finds finds, uint64_t start, uint64_t end, struct err *err,
    struct bitmap *written)
{
    while (start < end)
        if (async_walk_once(async, finds, start, end, SCAN_PROTECT, err, written, &start) < 0)
            return -1;
    return 0;
}

static int async_collect(const struct async *async, struct finds finds, uint64_t start, uint64_t end, struct err *err,
    struct bitmap *written)
{
    uint64_t walked;
    int found = async_walk_once(async, finds, start, end, 0, err, written, &walked);
    if (found < 0)
        return -1;
    if (found > NARROW_REGIONS || walked < end)
        return async_protect(async, finds, start, end, err, written);

    struct scan_region narrow[NARROW_REGIONS];
    memcpy(narrow, finds.regions, (size_t)found * sizeof *narrow);
    for (int i = 0; i < found; i++)
        if (async_protect(async, finds, narrow[i].start, narrow[i].end, err, written) < 0)
            return -1;
    return 0;
}

static int async_scan(void *state, struct err *err, struct bitmap *written)
{
    struct async *async = state;
    uint64_t start = async->uffd.address;
    return async_collect(
        async, (struct finds){async->regions, SCAN_REGIONS}, start, start + async->uffd.bytes, err, written);
}

static int async_rescan(void *state, size_t first, size_t pages, struct err *err, struct bitmap *written)
{
    const struct async *async = state;
    struct scan_region regions[NARROW_REGIONS + 1];
    uint64_t start = async->uffd.address + first * PAGE_BYTES;
    return async_collect(
        async, (struct finds){regions, NARROW_REGIONS + 1}, start, start + pages * PAGE_BYTES, err, written);
}

const struct tracker_backend tracker_async = {"wp-async", async_open, async_scan, async_rescan, async_close};
