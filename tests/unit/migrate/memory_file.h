/* A RAM file on tmpfs for a test: made, opened, and removed at once (the descriptor keeps it). */
#ifndef TESTS_MIGRATE_MEMORY_FILE_H
#define TESTS_MIGRATE_MEMORY_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "migrate/ram.h"

static inline struct ram memory_file(size_t pages)
{
    char path[] = "/dev/shm/drover-test-XXXXXX";
    int fd = mkstemp(path);
    struct ram ram;
    struct err err;
    if (fd < 0 || ftruncate(fd, (off_t)(pages * PAGE_BYTES)) < 0 ||
        ram_open(path, pages * (uint64_t)PAGE_BYTES, &err, &ram) < 0)
        abort();
    close(fd);
    unlink(path);
    return ram;
}

/* Fills one page with bytes that depend on (page, seed). */
static inline void memory_fill(const struct ram *ram, size_t page, unsigned seed)
{
    uint32_t words[PAGE_BYTES / 4];
    struct err err;
    for (size_t i = 0; i < PAGE_BYTES / 4; i++)
        words[i] = (uint32_t)((page + 1) * 2654435761u + seed * 40503u + (i / 8) * 97u);
    if (ram_write(ram, page, 1, words, &err) < 0)
        abort();
}

#endif
