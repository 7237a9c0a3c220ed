#include "migrate/pack.h"

#include <endian.h>
#include <lz4.h>
#include <string.h>

#include "base/ensure.h"

size_t pack(const uint8_t *data, size_t len, uint8_t *out)
{
    ENSURE(len > 0 && len <= PACK_BYTES_MAX);
    int n = LZ4_compress_default((const char *)data, (char *)out, (int)len, (int)len - 1);
    return n > 0 ? (size_t)n : 0;
}

const uint8_t *unpack(const uint8_t *data, size_t len, size_t raw_len, struct err *err, uint8_t *out)
{
    bool fits = len > 0 && len <= PACK_BYTES_MAX && raw_len <= PACK_BYTES_MAX;
    if (fits && raw_len == 0)
        return data;
    if (fits && LZ4_decompress_safe((const char *)data, (char *)out, (int)len, (int)raw_len) == (int)raw_len)
        return out;
    err_set(err, ERR_PROTOCOL, "%zu bytes do not unpack to the %zu that they should", len, raw_len);
    return NULL;
}

size_t pack_headed(const uint8_t *data, size_t len, uint8_t *out)
{
    size_t packed = pack(data, len, out + PACK_HEAD_BYTES);
    uint32_t raw_len = packed ? htole32((uint32_t)len) : 0;
    memcpy(out, &raw_len, sizeof raw_len);
    if (!packed)
        memcpy(out + PACK_HEAD_BYTES, data, len);
    return PACK_HEAD_BYTES + (packed ? packed : len);
}

const uint8_t *unpack_headed(const uint8_t *data, size_t len, struct err *err, uint8_t *out, size_t *bytes)
{
    uint32_t raw_len;
    if (len <= PACK_HEAD_BYTES) {
        err_set(err, ERR_PROTOCOL, "a piece of QEMU's migration is empty");
        return NULL;
    }
    memcpy(&raw_len, data, sizeof raw_len);
    raw_len = le32toh(raw_len);
    const uint8_t *raw = unpack(data + PACK_HEAD_BYTES, len - PACK_HEAD_BYTES, raw_len, err, out);
    if (raw)
        *bytes = raw_len ? raw_len : len - PACK_HEAD_BYTES;
    return raw;
}
