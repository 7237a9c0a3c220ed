#include "migrate/delta.h"

#include <endian.h>
#include <string.h>

#include "migrate/ram.h"

/* So many equal bytes end a run: naming a further run costs two bytes or more. */
#define GAP_BYTES  4u
#define VARINT_MAX 2u /* a number up to PAGE_BYTES */

static uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return le64toh(word);
}

/* The first byte at or after `at` that differs, or PAGE_BYTES. */
static size_t skip_equal(const uint8_t *a, const uint8_t *b, size_t at)
{
    for (; at + 8 <= PAGE_BYTES; at += 8) {
        uint64_t changed = word_at(a + at) ^ word_at(b + at);
        if (changed)
            return at + (size_t)__builtin_ctzll(changed) / 8;
    }
    while (at < PAGE_BYTES && a[at] == b[at])
        at++;
    return at;
}

/* The end of the run of changed bytes that begins at `at`: GAP_BYTES equal ones follow, or the end of the page. */
static size_t skip_changed(const uint8_t *a, const uint8_t *b, size_t at)
{
    size_t equal = 0;
    for (; at < PAGE_BYTES && equal < GAP_BYTES; at++)
        equal = a[at] == b[at] ? equal + 1 : 0;
    return at - equal;
}

static size_t put_varint(uint8_t *out, size_t value)
{
    if (value < 0x80) {
        out[0] = (uint8_t)value;
        return 1;
    }
    out[0] = (uint8_t)(value | 0x80);
    out[1] = (uint8_t)(value >> 7);
    return 2;
}

static size_t get_varint(const uint8_t *at, const uint8_t *end, size_t *value)
{
    if (at >= end)
        return 0;
    *value = at[0] & 0x7fu;
    if (at[0] < 0x80)
        return 1;
    if (at + 1 >= end || at[1] >= 0x80)
        return 0;
    *value |= (size_t)at[1] << 7;
    return 2;
}

bool delta_encode(const uint8_t *base, const uint8_t *page, uint8_t *out, size_t max, size_t *len)
{
    size_t used = 0;
    for (size_t from = 0, end;; from = end) {
        size_t first = skip_equal(base, page, from);
        if (first == PAGE_BYTES)
            break;
        end = skip_changed(base, page, first);
        if (used + VARINT_MAX * 2 + (end - first) > max)
            return false;
        used += put_varint(out + used, first - from);
        used += put_varint(out + used, end - first);
        memcpy(out + used, page + first, end - first);
        used += end - first;
    }
    *len = used;
    return true;
}

int delta_apply(const uint8_t *delta, size_t len, struct err *err, uint8_t *page)
{
    const uint8_t *at = delta, *end = delta + len;
    size_t place = 0, equal, changed, n;
    while (at < end) {
        if ((n = get_varint(at, end, &equal)) == 0)
            goto senseless;
        at += n;
        if ((n = get_varint(at, end, &changed)) == 0)
            goto senseless;
        at += n;
        if (equal > PAGE_BYTES - place || changed > PAGE_BYTES - place - equal || changed > (size_t)(end - at))
            goto senseless;
        memcpy(page + place + equal, at, changed);
        at += changed;
        place += equal + changed;
    }
    return 0;
senseless:
    return err_set(err, ERR_PROTOCOL, "delta of %zu bytes makes no sense", len);
}
