#include "migrate/pack.h"

#include <lz4.h>

#include "base/ensure.h"

size_t pack(const uint8_t *data, size_t len, uint8_t *out)
{
    ENSURE(len > 0 && len <= PACK_BYTES_MAX);
    int n = LZ4_compress_default((const char *)data, (char *)out, (int)len, (int)len - 1);
    return n > 0 ? (size_t)n : 0;
}

const uint8_t *unpack(const uint8_t *data, size_t len, size_t raw_len, struct err *err, uint8_t *out)
{
    bool fits = len <= PACK_BYTES_MAX && raw_len <= PACK_BYTES_MAX;
    if (fits && raw_len == 0)
        return data;
    if (fits && LZ4_decompress_safe((const char *)data, (char *)out, (int)len, (int)raw_len) == (int)raw_len)
        return out;
    err_set(err, ERR_PROTOCOL, "%zu bytes do not unpack to the %zu that they should", len, raw_len);
    return NULL;
}
