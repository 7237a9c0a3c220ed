/* What the two engines of a migration send each other: batches of pages, packed device state, the guest's clock in
 * it, and pieces of QEMU's own migration. What is let through must stay within the limits that its reader relies on. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/ensure.h"
#include "migrate/batch.h"
#include "migrate/guestclock.h"
#include "migrate/pack.h"

#define PAGE_LIMIT 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_run(const struct batch *batch, const struct batch_run *run)
{
    ENSURE(run->kind < BATCH_KINDS && run->pages > 0 && (size_t)run->first + run->pages <= PAGE_LIMIT);
    if (run->kind == BATCH_FULL)
        ENSURE((size_t)run->at + (size_t)run->pages * 4096 <= batch->full_bytes);
    if (run->kind != BATCH_DELTA)
        return;
    uint32_t at = run->at;
    for (uint32_t i = 0; i < run->pages; i++) {
        size_t len;
        const uint8_t *delta = batch_delta(batch, &at, &len);
        ENSURE(delta >= batch->delta && delta + len <= batch->delta + batch->delta_bytes);
    }
}

static void fuzz_batch(const uint8_t *data, size_t size)
{
    struct err err;
    cleanup_free struct batch *batch = mem_alloc(sizeof *batch);
    if (batch_decode(data, size, PAGE_LIMIT, &err, batch) < 0)
        return;
    ENSURE(
        batch->runs <= BATCH_RUNS && batch->full_bytes <= BATCH_FULL_BYTES && batch->delta_bytes <= BATCH_DELTA_BYTES);
    bool packed = batch->pages == batch->full;
    ENSURE(packed || (batch->pages >= data && batch->pages + batch->full_bytes <= batch->delta));
    ENSURE(batch->delta >= data && batch->delta + batch->delta_bytes == data + size);
    for (uint32_t i = 0; i < batch->runs; i++)
        check_run(batch, &batch->run[i]);
}

static void fuzz_pack(const uint8_t *data, size_t size)
{
    struct err err;
    cleanup_free uint8_t *out = mem_alloc(PACK_BYTES_MAX);
    size_t raw_len = size > 1 ? (size_t)data[0] << 8 | data[1] : 0;
    if (size > 1)
        (void)unpack(data + 2, size - 2, raw_len, &err, out);
}

/* A piece of QEMU's own migration, as a tunnel takes it: what is let through is bounded, and goes through it again. */
static void fuzz_piece(const uint8_t *data, size_t size)
{
    struct err err;
    size_t bytes, again_bytes;
    cleanup_free uint8_t *out = mem_alloc(PACK_BYTES_MAX), *sent = mem_alloc(PACK_HEAD_BYTES + PACK_BYTES_MAX);
    const uint8_t *raw = unpack_headed(data, size, &err, out, &bytes);
    if (!raw)
        return;
    ENSURE(bytes > 0 && bytes <= PACK_BYTES_MAX && (raw == out || raw + bytes == data + size));
    cleanup_free uint8_t *kept = mem_alloc(bytes);
    memcpy(kept, raw, bytes);
    const uint8_t *again = unpack_headed(sent, pack_headed(kept, bytes, sent), &err, out, &again_bytes);
    ENSURE(again && again_bytes == bytes && memcmp(again, kept, bytes) == 0);
}

/* QEMU's state in pieces: it comes out as it went in, and a section at most is added before its last byte. */
static void fuzz_clock(const uint8_t *data, size_t size)
{
    struct guestclock clock = {0};
    struct buf out = {0};
    size_t piece = size > 0 ? data[0] + 1u : 1;
    for (size_t at = 0; at < size; at += piece)
        guestclock_pass(&clock, data + at, size - at < piece ? size - at : piece, &out);
    guestclock_end(&clock, GUESTCLOCK_FORWARD_MAX_NS, 1, &out);
    bool set = size > 0 && guestclock_check(&clock) == GUESTCLOCK_SET;
    ENSURE(out.len == size + (set ? GUESTCLOCK_SECTION_BYTES : 0));
    ENSURE(size == 0 || (memcmp(out.data, data, size - 1) == 0 && out.data[out.len - 1] == data[size - 1]));
    buf_free(&out);
    guestclock_free(&clock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'b')
        fuzz_batch(data + 1, size - 1);
    else if (size > 0 && data[0] == 'u')
        fuzz_pack(data + 1, size - 1);
    else if (size > 0 && data[0] == 'c')
        fuzz_clock(data + 1, size - 1);
    else if (size > 0 && data[0] == 't')
        fuzz_piece(data + 1, size - 1);
    return 0;
}
