/* migrate/seal.h without a cipher: linked in its place into bench-channel-plain, so that what sealing costs can be
 * measured although the engine has no way to leave it out. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "migrate/seal.h"

struct seal {
    uint64_t sequence;
};

void seal_make_key(uint8_t key[SEAL_KEY_BYTES])
{
    memset(key, 0, SEAL_KEY_BYTES);
}

uint64_t seal_derive(const uint8_t key[SEAL_KEY_BYTES], const char *label)
{
    return key[0] + strlen(label);
}

struct seal *seal_new(const uint8_t key[SEAL_KEY_BYTES], enum seal_direction direction, uint32_t stripe)
{
    (void)key;
    (void)direction;
    (void)stripe;
    return mem_zalloc(sizeof(struct seal));
}

void seal_free(struct seal *seal)
{
    free(seal);
}

size_t seal_close_pieces(struct seal *seal, const struct iovec *pieces, size_t count, uint8_t *out)
{
    uint64_t sequence = htole64(seal->sequence++);
    uint8_t *at = out + SEAL_HEAD;
    memcpy(out, &sequence, SEAL_HEAD);
    for (size_t i = 0; i < count; at += pieces[i].iov_len, i++)
        memcpy(at, pieces[i].iov_base, pieces[i].iov_len);
    memset(at, 0, SEAL_OVERHEAD - SEAL_HEAD);
    return (size_t)(at - out) + SEAL_OVERHEAD - SEAL_HEAD;
}

size_t seal_close(struct seal *seal, const uint8_t *data, size_t len, uint8_t *out)
{
    const struct iovec piece = {(void *)(uintptr_t)data, len}; // NOLINT: only read
    return seal_close_pieces(seal, &piece, 1, out);
}

int seal_open(struct seal *seal, const uint8_t *data, size_t len, struct err *err, uint8_t *out)
{
    if (len < SEAL_OVERHEAD)
        return err_set(err, ERR_PROTOCOL, "message of %zu bytes", len);
    seal->sequence++;
    memmove(out, data + SEAL_HEAD, len - SEAL_OVERHEAD);
    return 0;
}
