/* A guest's RAM as a file on tmpfs. Read and written with pread(2) and pwrite(2): no page of it is mapped here, so
 * there are no faults to pay for, and reading a hole does not allocate it. Thread safe. */
#ifndef MIGRATE_RAM_H
#define MIGRATE_RAM_H

#include <stdint.h>

#include "base/err.h"
#include "migrate/bitmap.h"

#define PAGE_BYTES    4096u
#define RAM_BYTES_MAX (UINT64_C(1) << 43) /* 8 TiB: a batch numbers pages with 31 bits */
#define RAM_HASH_TEXT 33

struct ram {
    int fd;
    uint64_t bytes;
    size_t pages;
    char path[256];
};

/* Opens the file and checks that it is `bytes` long. Take: ram_close(). */
MUST_CHECK int ram_open(const char *path, uint64_t bytes, struct err *err, struct ram *out);
void ram_close(struct ram *ram);
/* Adds every allocated page to `map`; what is not allocated reads as zeros. */
MUST_CHECK int ram_allocated(const struct ram *ram, struct err *err, struct bitmap *map);
/* The first allocated run of [from, end): [*first, *last), empty when there is none. */
MUST_CHECK int ram_allocated_run(
    const struct ram *ram, size_t from, size_t end, struct err *err, size_t *first, size_t *last);
MUST_CHECK int ram_read(const struct ram *ram, size_t page, size_t count, struct err *err, void *out);
MUST_CHECK int ram_write(const struct ram *ram, size_t page, size_t count, const void *data, struct err *err);
/* Makes pages zero by freeing them. */
MUST_CHECK int ram_punch(const struct ram *ram, size_t page, size_t count, struct err *err);
/* True if none of the pages is allocated. */
bool ram_is_hole(const struct ram *ram, size_t page, size_t count);
/* Hash over (number, content) of all pages that are not zero, as text: the same for equal memory, however it is
 * allocated. */
MUST_CHECK int ram_hash(const struct ram *ram, struct err *err, char out[static RAM_HASH_TEXT]);
bool page_is_zero(const void *page);

#endif
