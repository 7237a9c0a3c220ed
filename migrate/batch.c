#include "migrate/batch.h"

#include <endian.h>
#include <lz4.h>
#include <string.h>

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

size_t batch_encode(const struct batch *batch, uint8_t *out)
{
    uint8_t *at = out + BATCH_HEADER;
    for (uint32_t i = 0; i < batch->count; i++, at += 4)
        put_u32(at, batch->page[i]);
    uint32_t packed = 0;
    if (batch->raw_bytes) {
        int n = LZ4_compress_default(
            (const char *)batch->data, (char *)at, (int)batch->raw_bytes, LZ4_compressBound((int)batch->raw_bytes));
        packed = n > 0 ? (uint32_t)n : batch->raw_bytes;
        if (packed >= batch->raw_bytes) {
            packed = batch->raw_bytes;
            memcpy(at, batch->data, packed);
        }
    }
    put_u32(out, batch->count);
    put_u32(out + 4, batch->raw_bytes);
    put_u32(out + 8, packed);
    return (size_t)(at - out) + packed;
}

int batch_decode(const uint8_t *data, size_t len, size_t page_limit, struct err *err, struct batch *out)
{
    if (len < BATCH_HEADER)
        return err_set(err, ERR_PROTOCOL, "batch of %zu bytes is too short", len);
    uint32_t count = get_u32(data), raw = get_u32(data + 4), packed = get_u32(data + 8);
    if (count > BATCH_PAGES || raw > count * PAGE_BYTES || packed > raw ||
        len != BATCH_HEADER + (size_t)count * 4 + packed)
        return err_set(
            err, ERR_PROTOCOL, "batch of %u pages, %u bytes raw and %u packed does not add up", count, raw, packed);
    const uint8_t *at = data + BATCH_HEADER;
    uint32_t full = 0;
    for (uint32_t i = 0; i < count; i++, at += 4) {
        out->page[i] = get_u32(at);
        if ((out->page[i] & ~BATCH_ZERO) >= page_limit)
            return err_set(err, ERR_PROTOCOL, "batch names page %u beyond the end of RAM", out->page[i] & ~BATCH_ZERO);
        full += !(out->page[i] & BATCH_ZERO);
    }
    if (raw != full * PAGE_BYTES)
        return err_set(err, ERR_PROTOCOL, "batch of %u full pages has %u bytes", full, raw);
    if (packed == raw)
        memcpy(out->data, at, raw);
    else if (LZ4_decompress_safe((const char *)at, (char *)out->data, (int)packed, (int)raw) != (int)raw)
        return err_set(err, ERR_PROTOCOL, "batch does not unpack to the %u bytes it names", raw);
    out->count = count;
    out->raw_bytes = raw;
    return 0;
}
