#include "migrate/tracker.h"

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

struct tracker {
    struct uffd uffd;
    int pagemap;
    struct scan_region regions[SCAN_REGIONS];
};

const char *tracker_name(const struct tracker *tracker)
{
    (void)tracker;
    return "wp-async";
}

static int tracker_register(struct tracker *tracker, struct err *err)
{
    if (uffd_watch(&tracker->uffd, UFFDIO_REGISTER_MODE_WP, err) < 0)
        return -1;
    struct uffdio_writeprotect protect = {
        .range = {tracker->uffd.address, tracker->uffd.bytes}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    if (ioctl(tracker->uffd.fd, UFFDIO_WRITEPROTECT, &protect) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot write-protect guest RAM");
    return 0;
}

int tracker_open(pid_t pid, const struct ram *ram, struct err *err, struct tracker **out)
{
    struct tracker *tracker = mem_zalloc(sizeof *tracker);
    tracker->pagemap = -1;
    tracker->uffd = UFFD_CLOSED;
    if (uffd_open(pid, ram, err, &tracker->uffd) < 0)
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
    uffd_unwatch(&tracker->uffd); /* lifts the protection */
    uffd_close(&tracker->uffd);
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
        bitmap_set_range(written, (tracker->regions[i].start - tracker->uffd.address) / PAGE_BYTES,
            (tracker->regions[i].end - tracker->uffd.address) / PAGE_BYTES);
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
    uint64_t start = tracker->uffd.address, end = start + tracker->uffd.bytes, walked;
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
