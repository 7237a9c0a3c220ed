#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"

void *buf_reserve(struct buf *buf, size_t more)
{
    ENSURE(more <= SIZE_MAX - buf->len);
    size_t need = buf->len + more;
    if (need > buf->cap) {
        size_t cap = buf->cap ? buf->cap : 64;
        while (cap < need)
            cap = cap > SIZE_MAX / 2 ? need : cap * 2;
        buf->data = mem_realloc(buf->data, cap);
        buf->cap = cap;
    }
    return buf->data + buf->len;
}

void buf_append(struct buf *buf, const void *data, size_t len)
{
    if (len == 0)
        return;
    memcpy(buf_reserve(buf, len), data, len);
    buf->len += len;
}

void buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ENSURE(n >= 0);
    vsnprintf(buf_reserve(buf, (size_t)n + 1), (size_t)n + 1, fmt, again);
    va_end(again);
    buf->len += (size_t)n;
}

void buf_consume(struct buf *buf, size_t len)
{
    ENSURE(len <= buf->len);
    buf->len -= len;
    if (buf->len)
        memmove(buf->data, buf->data + len, buf->len);
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
}

void buf_free(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){0};
}

const char *buf_str(struct buf *buf)
{
    *(char *)buf_reserve(buf, 1) = '\0';
    return (const char *)buf->data;
}

void *mem_alloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    ENSURE(p != NULL);
    return p;
}

void *mem_zalloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);
    ENSURE(p != NULL);
    return p;
}

void *mem_realloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    ENSURE(p != NULL);
    return p;
}

char *mem_strdup(const char *text)
{
    char *p = strdup(text);
    ENSURE(p != NULL);
    return p;
}

char *mem_printf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    ENSURE(n >= 0);
    return text;
}
