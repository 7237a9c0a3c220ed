/* A growing byte buffer. Zero-initialize it; free it with buf_free(), which may be called again and again.
 * Running out of memory ends the process: every size that comes from outside is bounded before it gets here. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
};

/* Room for `more` bytes behind the contents; returns where they go. Does not change the length. */
void *buf_reserve(struct buf *buf, size_t more);
void buf_append(struct buf *buf, const void *data, size_t len);
void buf_printf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops `len` bytes from the front. */
void buf_consume(struct buf *buf, size_t len);
void buf_clear(struct buf *buf);
void buf_free(struct buf *buf);
/* The contents as a string: a NUL is kept behind them and not counted. Never NULL. Lent until the next change. */
const char *buf_str(struct buf *buf);

/* malloc, calloc, realloc, strdup and printf into memory that never return NULL; the caller takes what they return. */
void *mem_alloc(size_t size);
void *mem_zalloc(size_t size);
void *mem_realloc(void *old, size_t size);
char *mem_strdup(const char *text);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
