#include "migrate/batch.h"

#include <endian.h>
#include <lz4.h>
#include <string.h>

#include "base/ensure.h"
#include "migrate/fold.h"

#define KIND_SHIFT 6
#define PAGES_MASK 63u
/* Of LZ4 where CPU time is dear (README.md, Few bytes). */
#define QUICK_ACCELERATION 12
/* What a block promises is seen by a part of every SAMPLE_EVERY-th page of it. */
#define SAMPLE_EVERY 4u
#define SAMPLE_BYTES 512u
#define SAMPLE_GAIN  64u /* a 64th of the sample is gain enough */

static void put_u16(uint8_t *at, size_t value)
{
    uint16_t little = htole16((uint16_t)value);
    memcpy(at, &little, sizeof little);
}

static uint16_t get_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return le16toh(value);
}

static void put_u32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof value);
}

static uint32_t get_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return le32toh(value);
}

void batch_begin(struct batch *b)
{
    b->runs = b->full_bytes = b->folded_bytes = b->packed_bytes = b->delta_bytes = b->reused_pages = 0;
}

bool batch_has_room(const struct batch *b, uint32_t pages)
{
    return b->runs + pages <= BATCH_RUNS && b->full_bytes + pages * PAGE_BYTES <= BATCH_FULL_BYTES &&
           b->delta_bytes + pages * (BATCH_DELTA_MAX + 2) <= BATCH_DELTA_BYTES &&
           b->reused_pages + pages <= BATCH_REUSED_PAGES;
}

uint8_t *batch_room(struct batch *b)
{
    return b->full + b->full_bytes;
}

static bool batch_extend(struct batch *b, uint32_t page, enum batch_kind kind, uint32_t at)
{
    struct batch_run *last = b->runs ? &b->run[b->runs - 1] : NULL;
    if (last && last->kind == kind && last->pages < BATCH_RUN_PAGES && last->first + last->pages == page) {
        last->pages++;
        return false;
    }
    ENSURE(b->runs < BATCH_RUNS);
    b->run[b->runs++] = (struct batch_run){.first = page, .kind = (uint8_t)kind, .pages = 1, .at = at};
    return true;
}

bool batch_add_zero(struct batch *b, uint32_t page)
{
    return batch_extend(b, page, BATCH_ZERO, 0);
}

bool batch_add_reused(struct batch *b, uint32_t page)
{
    ENSURE(b->reused_pages < BATCH_REUSED_PAGES);
    b->reused_pages++;
    return batch_extend(b, page, BATCH_REUSED, 0);
}

bool batch_add_full(struct batch *b, uint32_t page, const uint8_t *content)
{
    ENSURE(b->full_bytes + PAGE_BYTES <= BATCH_FULL_BYTES);
    bool begun = batch_extend(b, page, BATCH_FULL, b->full_bytes);
    if (content != b->full + b->full_bytes)
        memcpy(b->full + b->full_bytes, content, PAGE_BYTES);
    b->full_bytes += PAGE_BYTES;
    return begun;
}

bool batch_add_delta(struct batch *b, uint32_t page, const uint8_t *delta, size_t len)
{
    ENSURE(len <= BATCH_DELTA_MAX && b->delta_bytes + 2 + len <= BATCH_DELTA_BYTES);
    bool begun = batch_extend(b, page, BATCH_DELTA, b->delta_bytes);
    put_u16(b->deltas + b->delta_bytes, len);
    memcpy(b->deltas + b->delta_bytes + 2, delta, len);
    b->delta_bytes += 2 + (uint32_t)len;
    return begun;
}

/* Does the block look as if it would shrink? Where guests hold what does not (compressed, encrypted, media), trying LZ4
 * on all of it took a tenth of both sides' CPU time, this takes a hundredth. */
static bool batch_promises(const struct batch *b)
{
    uint8_t sample[BATCH_FULL_PAGES / SAMPLE_EVERY * SAMPLE_BYTES], packed[sizeof sample];
    uint32_t len = 0;
    for (uint32_t at = 0, slot = 0; at < b->full_bytes; at += SAMPLE_EVERY * PAGE_BYTES, len += SAMPLE_BYTES) {
        memcpy(sample + len, b->full + at + slot, SAMPLE_BYTES); /* each from another place in its page */
        slot = (slot + SAMPLE_BYTES) % PAGE_BYTES;
    }
    return LZ4_compress_default((const char *)sample, (char *)packed, (int)len, (int)(len - len / SAMPLE_GAIN)) > 0;
}

/* Folds the full pages, then packs them into `out`. What does not shrink stays where it is. */
static void batch_pack(struct batch *b, uint8_t *out)
{
    b->folded_bytes = b->packed_bytes = b->full_bytes;
    if (b->full_bytes == 0 || (b->vain && !batch_promises(b)))
        return;
    size_t folded = fold(b->full, b->full_bytes / PAGE_BYTES, b->folded);
    if (folded)
        b->folded_bytes = b->packed_bytes = (uint32_t)folded;
    int n = LZ4_compress_fast((const char *)(folded ? b->folded : b->full), (char *)out, (int)b->folded_bytes,
        (int)b->folded_bytes - 1, b->quick ? QUICK_ACCELERATION : 1);
    b->vain = n <= 0 && !folded;
    if (n > 0)
        b->packed_bytes = (uint32_t)n;
}

size_t batch_encode_pieces(struct batch *b, uint8_t *space, struct iovec pieces[static BATCH_PIECES])
{
    uint8_t *at = space + BATCH_HEADER;
    for (uint32_t i = 0; i < b->runs; i++, at += BATCH_RUN_BYTES) {
        put_u32(at, b->run[i].first);
        at[4] = (uint8_t)(b->run[i].kind << KIND_SHIFT | (b->run[i].pages - 1));
    }
    batch_pack(b, at);
    put_u32(space, b->runs);
    put_u32(space + 4, b->full_bytes);
    put_u32(space + 8, b->folded_bytes);
    put_u32(space + 12, b->packed_bytes);
    put_u32(space + 16, b->delta_bytes);
    bool packed = b->packed_bytes < b->folded_bytes;
    pieces[0] = (struct iovec){space, (size_t)(at - space) + (packed ? b->packed_bytes : 0)};
    pieces[1] = (struct iovec){b->folded_bytes < b->full_bytes ? b->folded : b->full, packed ? 0 : b->folded_bytes};
    pieces[2] = (struct iovec){b->deltas, b->delta_bytes};
    return pieces[0].iov_len + pieces[1].iov_len + pieces[2].iov_len;
}

size_t batch_encode(struct batch *b, uint8_t *out)
{
    struct iovec pieces[BATCH_PIECES];
    size_t len = batch_encode_pieces(b, out, pieces);
    uint8_t *at = out + pieces[0].iov_len; /* the first lies there already */
    for (size_t i = 1; i < BATCH_PIECES; at += pieces[i].iov_len, i++)
        memcpy(at, pieces[i].iov_base, pieces[i].iov_len);
    return len;
}

/* Where the run's contents are; `*deltas` goes on behind them. */
static int batch_place_deltas(const struct batch *b, struct batch_run *run, uint32_t *deltas)
{
    run->at = *deltas;
    for (uint32_t i = 0; i < run->pages; i++) {
        if (b->delta_bytes - *deltas < 2)
            return -1;
        uint32_t len = get_u16(b->delta + *deltas);
        if (len > BATCH_DELTA_MAX || b->delta_bytes - *deltas - 2 < len)
            return -1;
        *deltas += 2 + len;
    }
    return 0;
}

static int batch_decode_runs(const uint8_t *at, size_t page_limit, struct err *err, struct batch *b)
{
    uint32_t full = 0, deltas = 0;
    for (uint32_t i = 0; i < b->runs; i++, at += BATCH_RUN_BYTES) {
        struct batch_run *run = &b->run[i];
        *run = (struct batch_run){
            .first = get_u32(at), .kind = at[4] >> KIND_SHIFT, .pages = (uint8_t)((at[4] & PAGES_MASK) + 1)};
        if ((size_t)run->first + run->pages > page_limit)
            return err_set(err, ERR_PROTOCOL, "batch names page %u beyond the end of RAM", run->first);
        if (run->kind == BATCH_REUSED)
            b->reused_pages += run->pages;
        if (run->kind == BATCH_FULL) {
            run->at = full;
            full += run->pages * PAGE_BYTES;
        } else if (run->kind == BATCH_DELTA && batch_place_deltas(b, run, &deltas) < 0) {
            return err_set(err, ERR_PROTOCOL, "batch has fewer deltas than it names");
        }
    }
    if (full != b->full_bytes || deltas != b->delta_bytes)
        return err_set(err, ERR_PROTOCOL, "batch of %u bytes of pages and %u of deltas holds %u and %u", full, deltas,
            b->full_bytes, b->delta_bytes);
    if (b->reused_pages > BATCH_REUSED_PAGES)
        return err_set(
            err, ERR_PROTOCOL, "batch names %u pages to be reused, more than %u", b->reused_pages, BATCH_REUSED_PAGES);
    return 0;
}

/* The contents of full pages, from where they lie in the message. */
static int batch_unpack(struct batch *b, const uint8_t *at, struct err *err)
{
    bool folded = b->folded_bytes < b->full_bytes;
    if (b->packed_bytes < b->folded_bytes) {
        uint8_t *to = folded ? b->folded : b->full;
        if (LZ4_decompress_safe((const char *)at, (char *)to, (int)b->packed_bytes, (int)b->folded_bytes) !=
            (int)b->folded_bytes)
            return err_set(err, ERR_PROTOCOL, "batch does not unpack to the %u bytes it names", b->folded_bytes);
        at = to;
    }
    b->pages = folded ? b->full : at;
    if (folded && unfold(at, b->folded_bytes, b->full_bytes / PAGE_BYTES, b->full) < 0)
        return err_set(err, ERR_PROTOCOL, "batch does not unfold to the %u bytes it names", b->full_bytes);
    return 0;
}

int batch_decode(const uint8_t *data, size_t len, size_t page_limit, struct err *err, struct batch *out)
{
    if (len < BATCH_HEADER)
        return err_set(err, ERR_PROTOCOL, "batch of %zu bytes is too short", len);
    uint32_t runs = get_u32(data), full = get_u32(data + 4), folded = get_u32(data + 8), packed = get_u32(data + 12);
    uint32_t deltas = get_u32(data + 16);
    if (runs > BATCH_RUNS || full > BATCH_FULL_BYTES || folded > full || packed > folded ||
        deltas > BATCH_DELTA_BYTES || len != BATCH_HEADER + (size_t)runs * BATCH_RUN_BYTES + packed + deltas)
        return err_set(err, ERR_PROTOCOL,
            "batch of %u runs, %u bytes full, %u folded, %u packed and %u of deltas does not add up", runs, full,
            folded, packed, deltas);
    out->runs = runs;
    out->full_bytes = full;
    out->folded_bytes = folded;
    out->packed_bytes = packed;
    out->delta_bytes = deltas;
    out->reused_pages = 0;
    out->delta = data + len - deltas;
    if (batch_decode_runs(data + BATCH_HEADER, page_limit, err, out) < 0)
        return -1;
    return batch_unpack(out, out->delta - packed, err);
}

const uint8_t *batch_delta(const struct batch *b, uint32_t *at, size_t *len)
{
    const uint8_t *delta = b->delta + *at + 2;
    *len = get_u16(b->delta + *at);
    *at += 2 + (uint32_t)*len;
    return delta;
}
