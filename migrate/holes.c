#include "migrate/holes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux 5.14, which the headers of older distributions lack. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define ENTRIES       8192u               /* of the page map, read at once */
#define ENTRY_PRESENT (UINT64_C(1) << 63) /* Documentation/admin-guide/mm/pagemap.rst */

struct holes {
    const struct ram *ram;
    uint8_t *map;
    int pagemap, notices;
    struct bitmap watched;
    uint64_t entries[ENTRIES];
};

int holes_open(const struct ram *ram, struct err *err, struct holes **out)
{
    struct holes *holes = mem_zalloc(sizeof *holes);
    holes->ram = ram;
    holes->watched = bitmap_new(ram->pages);
    holes->notices = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    holes->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", ram->fd);
    holes->map = mmap(NULL, ram->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd, 0);
    if (holes->notices < 0 || holes->pagemap < 0 || holes->map == MAP_FAILED ||
        inotify_add_watch(holes->notices, path, IN_MODIFY) < 0) {
        err_errno(err, ERR_INTERNAL, errno, "cannot watch %s for freed pages", ram->path);
        holes_close(holes);
        return -1;
    }
    *out = holes;
    return 0;
}

void holes_close(struct holes *holes)
{
    if (!holes)
        return;
    if (holes->map != MAP_FAILED)
        munmap(holes->map, holes->ram->bytes);
    if (holes->pagemap >= 0)
        close(holes->pagemap);
    if (holes->notices >= 0)
        close(holes->notices);
    bitmap_free(&holes->watched);
    free(holes);
}

/* A page that is freed between looking and populating comes back as a page of zeros, which is as good as a hole: it is
 * read after this. One that is freed after it was populated is missing again, whether it counts as watched yet or not.
 */
static int holes_populate(struct holes *holes, int how, size_t first, size_t end, struct err *err)
{
    int rc;
    do
        rc = madvise(holes->map + first * PAGE_BYTES, (end - first) * PAGE_BYTES, how);
    while (rc < 0 && (errno == EINTR || errno == EAGAIN));
    if (rc < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot map guest RAM %s", holes->ram->path);
    bitmap_set_range(&holes->watched, first, end);
    return 0;
}

/* As if to write, which changes nothing: a fault to read maps what there is of the 64 KiB around it ("fault-around"),
 * also a watched page that was freed and touched again since the last scan, which would then look as if it had stayed.
 * While none is watched there is nothing to hide, and reading takes less than half the time. */
int holes_watch(struct holes *holes, const struct bitmap *pages, struct err *err)
{
    size_t first, end = 0;
    struct bitmap fresh = bitmap_new(pages->bits);
    int how = bitmap_count(&holes->watched) ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    int rc = 0;
    for (size_t i = 0; i < bitmap_words(pages); i++)
        fresh.words[i] = pages->words[i] & ~holes->watched.words[i];
    while (rc == 0 && bitmap_next_run(&fresh, end, &first, &end)) {
        size_t start, stop = first;
        while (rc == 0 && (rc = ram_allocated_run(holes->ram, stop, end, err, &start, &stop)) == 0 && start < stop)
            rc = holes_populate(holes, how, start, stop, err);
    }
    bitmap_free(&fresh);
    return rc;
}

/* Has anything been freed since this was asked last? The kernel tells before the call that frees returns. */
static bool holes_noticed(struct holes *holes)
{
    char events[4096];
    bool any = false;
    for (ssize_t n; (n = read(holes->notices, events, sizeof events)) > 0 || (n < 0 && errno == EINTR);)
        any = any || n > 0;
    return any;
}

int holes_scan(struct holes *holes, struct err *err, struct bitmap *freed)
{
    if (!holes_noticed(holes))
        return 0;
    for (size_t page = 0; page < holes->ram->pages; page += ENTRIES) {
        size_t count = holes->ram->pages - page < ENTRIES ? holes->ram->pages - page : ENTRIES;
        ssize_t want = (ssize_t)(count * sizeof *holes->entries);
        off_t at = (off_t)(((uintptr_t)holes->map / PAGE_BYTES + page) * sizeof *holes->entries);
        if (pread(holes->pagemap, holes->entries, (size_t)want, at) != want)
            return err_errno(err, ERR_INTERNAL, errno, "cannot read the page map");
        for (size_t i = 0; i < count; i++)
            if (!(holes->entries[i] & ENTRY_PRESENT) && bitmap_test(&holes->watched, page + i)) {
                bitmap_set(freed, page + i);
                bitmap_unset(&holes->watched, page + i);
            }
    }
    return 0;
}

const struct bitmap *holes_watched(const struct holes *holes)
{
    return &holes->watched;
}
