/* What NBD's client and server say, appended to a buffer. */
#ifndef TESTS_UNIT_MIGRATE_NBD_WORDS_H
#define TESTS_UNIT_MIGRATE_NBD_WORDS_H

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "base/buf.h"

/* How a reply begins. */
#define WORDS_SIMPLE     0x67446698u
#define WORDS_STRUCTURED 0x668e33efu
#define WORDS_EXTENDED   0x6e8a278cu

static inline void words_number(struct buf *out, unsigned bytes, uint64_t value)
{
    value = htobe64(value);
    buf_append(out, (const uint8_t *)&value + 8 - bytes, bytes);
}

static inline void words_zeroes(struct buf *out, size_t bytes)
{
    memset(buf_reserve(out, bytes), 0, bytes);
    out->len += bytes;
}

static inline void words_greeting(struct buf *out)
{
    buf_append(out, "NBDMAGICIHAVEOPT\0\3", 18);
}

/* The client's flags and an option with four bytes of data. */
static inline void words_option(struct buf *out)
{
    words_number(out, 4, 3);
    buf_append(out, "IHAVEOPT", 8);
    words_number(out, 4, 7);
    words_number(out, 4, 4);
    words_number(out, 4, 0);
}

static inline void words_option_reply(struct buf *out, uint32_t type)
{
    words_number(out, 8, 0x0003e889045565a9);
    words_number(out, 4, 7);
    words_number(out, 4, type);
    words_number(out, 4, 6);
    words_zeroes(out, 6);
}

/* Of `len` bytes at 4096, which follow if it is a write. */
static inline void words_request(struct buf *out, bool extended, uint16_t type, uint64_t cookie, uint32_t len)
{
    words_number(out, 4, extended ? 0x21e41c71 : 0x25609513);
    words_number(out, 2, 0);
    words_number(out, 2, type);
    words_number(out, 8, cookie);
    words_number(out, 8, 4096);
    words_number(out, extended ? 8 : 4, len);
    if (type == 1)
        words_zeroes(out, len);
}

/* The last to that request, without an error, with `len` bytes of data. */
static inline void words_reply(struct buf *out, uint32_t form, uint64_t cookie, uint32_t len)
{
    words_number(out, 4, form);
    words_number(out, 4, form == WORDS_SIMPLE ? 0 : 1u << 16);
    words_number(out, 8, cookie);
    if (form == WORDS_EXTENDED)
        words_number(out, 8, 4096);
    if (form != WORDS_SIMPLE)
        words_number(out, form == WORDS_EXTENDED ? 8 : 4, len);
    words_zeroes(out, len);
}

#endif
