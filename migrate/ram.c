#include "migrate/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/cleanup.h"

#define HASH_RUN_PAGES 64u

int ram_open(const char *path, uint64_t bytes, struct err *err, struct ram *out)
{
    if (bytes == 0 || bytes % PAGE_BYTES || bytes > RAM_BYTES_MAX)
        return err_set(err, ERR_INVALID, "RAM of %llu bytes is not a whole number of pages up to 8 TiB",
            (unsigned long long)bytes);
    struct ram ram = {.bytes = bytes, .pages = (size_t)(bytes / PAGE_BYTES)};
    if (snprintf(ram.path, sizeof ram.path, "%s", path) >= (int)sizeof ram.path)
        return err_set(err, ERR_INVALID, "path of the RAM file is too long: %s", path);
    ram.fd = open(path, O_RDWR | O_CLOEXEC);
    if (ram.fd < 0)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot open RAM file %s", path);
    struct stat st;
    if (fstat(ram.fd, &st) < 0 || (uint64_t)st.st_size != bytes) {
        close(ram.fd);
        return err_set(err, ERR_INVALID, "RAM file %s is not %llu bytes long", path, (unsigned long long)bytes);
    }
    *out = ram;
    return 0;
}

void ram_close(struct ram *ram)
{
    if (ram->fd > 0)
        close(ram->fd);
    ram->fd = -1;
}

/* Finds the allocated run at or after `from`, which is not empty; ERR_NOT_FOUND when there is none. */
static int ram_next_run(const struct ram *ram, uint64_t from, struct err *err, uint64_t *start, uint64_t *end)
{
    off_t data = (off_t)from, hole;
    do {
        data = lseek(ram->fd, data, SEEK_DATA);
        if (data < 0)
            return err_errno(err, errno == ENXIO ? ERR_NOT_FOUND : ERR_INTERNAL, errno, "cannot seek in %s", ram->path);
        hole = lseek(ram->fd, data, SEEK_HOLE);
        if (hole < 0)
            return err_errno(err, ERR_INTERNAL, errno, "cannot seek in %s", ram->path);
    } while (hole == data); /* its first page was freed in between */
    *start = (uint64_t)data;
    *end = (uint64_t)hole;
    return 0;
}

int ram_allocated(const struct ram *ram, struct err *err, struct bitmap *map)
{
    struct err why;
    uint64_t start, end = 0;
    while (end < ram->bytes && ram_next_run(ram, end, &why, &start, &end) == 0)
        bitmap_set_range(map, start / PAGE_BYTES, (end + PAGE_BYTES - 1) / PAGE_BYTES);
    if (end < ram->bytes && why.code != ERR_NOT_FOUND) {
        *err = why;
        return -1;
    }
    return 0;
}

int ram_allocated_run(const struct ram *ram, size_t from, size_t end, struct err *err, size_t *first, size_t *last)
{
    struct err why;
    uint64_t start = 0, stop = 0;
    if (from < end && ram_next_run(ram, from * PAGE_BYTES, &why, &start, &stop) < 0) {
        if (why.code != ERR_NOT_FOUND) {
            *err = why;
            return -1;
        }
        start = stop = end * PAGE_BYTES;
    }
    size_t a = start / PAGE_BYTES, b = (stop + PAGE_BYTES - 1) / PAGE_BYTES;
    *first = a < end ? a : end;
    *last = b < end ? b : end;
    return 0;
}

int ram_read(const struct ram *ram, size_t page, size_t count, struct err *err, void *out)
{
    size_t len = count * PAGE_BYTES;
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(ram->fd, (char *)out + done, len - done, (off_t)(page * PAGE_BYTES + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(err, ERR_INTERNAL, n < 0 ? errno : EIO, "cannot read guest RAM %s", ram->path);
        done += (size_t)n;
    }
    return 0;
}

int ram_write(const struct ram *ram, size_t page, size_t count, const void *data, struct err *err)
{
    size_t len = count * PAGE_BYTES;
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(ram->fd, (const char *)data + done, len - done, (off_t)(page * PAGE_BYTES + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(
                err, errno == ENOSPC ? ERR_CAPACITY : ERR_INTERNAL, errno, "cannot write guest RAM %s", ram->path);
        done += (size_t)n;
    }
    return 0;
}

int ram_punch(const struct ram *ram, size_t page, size_t count, struct err *err)
{
    if (fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE_BYTES),
            (off_t)(count * PAGE_BYTES)) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot free pages of %s", ram->path);
    return 0;
}

bool ram_is_hole(const struct ram *ram, size_t page, size_t count)
{
    off_t data = lseek(ram->fd, (off_t)(page * PAGE_BYTES), SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= (uint64_t)(page + count) * PAGE_BYTES;
}

bool page_is_zero(const void *page)
{
    /* The first 16 bytes are zero and every byte equals the one 16 before it. Most pages fail at the first test. */
    uint64_t words[2]; /* the page may lie anywhere, e.g. in a message */
    memcpy(words, page, sizeof words);
    return words[0] == 0 && words[1] == 0 && memcmp(page, (const char *)page + 16, PAGE_BYTES - 16) == 0;
}

int ram_hash(const struct ram *ram, struct err *err, char out[static RAM_HASH_TEXT])
{
    XXH3_state_t *state = XXH3_createState();
    cleanup_free char *run = mem_alloc(HASH_RUN_PAGES * PAGE_BYTES);
    int rc = -1;
    XXH3_128bits_reset(state);
    struct err why;
    uint64_t start, end = 0;
    while (end < ram->bytes && ram_next_run(ram, end, &why, &start, &end) == 0) {
        size_t last = (size_t)((end + PAGE_BYTES - 1) / PAGE_BYTES);
        for (size_t page = (size_t)(start / PAGE_BYTES), count; page < last; page += count) {
            count = last - page < HASH_RUN_PAGES ? last - page : HASH_RUN_PAGES;
            if (ram_read(ram, page, count, err, run) < 0)
                goto done;
            for (size_t i = 0; i < count; i++) {
                if (page_is_zero(run + i * PAGE_BYTES))
                    continue;
                uint64_t item[2] = {page + i, XXH3_64bits(run + i * PAGE_BYTES, PAGE_BYTES)};
                XXH3_128bits_update(state, item, sizeof item);
            }
        }
    }
    if (end < ram->bytes && why.code != ERR_NOT_FOUND) {
        *err = why;
        goto done;
    }
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    snprintf(out, RAM_HASH_TEXT, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
    rc = 0;
done:
    XXH3_freeState(state);
    return rc;
}
