#include "migrate/seal.h"

#include <endian.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "migrate/gcm.h"

_Static_assert(SEAL_KEY_BYTES == GCM_KEY_BYTES && SEAL_OVERHEAD == SEAL_HEAD + GCM_TAG_BYTES, "the format");

struct seal {
    const struct gcm_kind *kind;
    void *gcm;
    uint32_t channel; /* first part of the nonce */
    uint64_t sequence;
};

void seal_make_key(uint8_t key[SEAL_KEY_BYTES])
{
    ENSURE(RAND_bytes(key, SEAL_KEY_BYTES) == 1);
}

uint64_t seal_derive(const uint8_t key[SEAL_KEY_BYTES], const char *label)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    uint64_t number;
    ENSURE(HMAC(EVP_sha256(), key, SEAL_KEY_BYTES, (const uint8_t *)label, strlen(label), mac, &len) != NULL);
    memcpy(&number, mac, sizeof number);
    return le64toh(number);
}

struct seal *seal_new(const uint8_t key[SEAL_KEY_BYTES], enum seal_direction direction, uint32_t stripe)
{
    struct seal *seal = mem_zalloc(sizeof *seal);
    ENSURE(stripe < UINT32_MAX / 2);
    seal->channel = stripe * 2 + (uint32_t)direction;
    seal->kind = gcm_best();
    seal->gcm = seal->kind->open(key);
    return seal;
}

void seal_free(struct seal *seal)
{
    if (!seal)
        return;
    seal->kind->close(seal->gcm);
    free(seal);
}

static void seal_nonce(const struct seal *seal, uint8_t nonce[GCM_NONCE_BYTES])
{
    uint32_t channel = htole32(seal->channel);
    uint64_t sequence = htole64(seal->sequence);
    memcpy(nonce, &channel, 4);
    memcpy(nonce + 4, &sequence, 8);
}

size_t seal_close_pieces(struct seal *seal, const struct iovec *pieces, size_t count, uint8_t *out)
{
    uint8_t nonce[GCM_NONCE_BYTES];
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += pieces[i].iov_len;
    seal_nonce(seal, nonce);
    uint64_t sequence = htole64(seal->sequence++);
    memcpy(out, &sequence, SEAL_HEAD);
    seal->kind->encrypt(seal->gcm, nonce, pieces, count, out + SEAL_HEAD, out + SEAL_HEAD + len);
    return len + SEAL_OVERHEAD;
}

size_t seal_close(struct seal *seal, const uint8_t *data, size_t len, uint8_t *out)
{
    const struct iovec piece = {(void *)(uintptr_t)data, len}; // NOLINT: only read
    return seal_close_pieces(seal, &piece, 1, out);
}

int seal_open(struct seal *seal, const uint8_t *data, size_t len, struct err *err, uint8_t *out)
{
    uint64_t sequence;
    if (len < SEAL_OVERHEAD || len > INT32_MAX)
        return err_set(err, ERR_PROTOCOL, "sealed message of %zu bytes", len);
    memcpy(&sequence, data, SEAL_HEAD);
    if (le64toh(sequence) != seal->sequence)
        return err_set(err, ERR_PROTOCOL, "sealed message out of order");
    uint8_t nonce[GCM_NONCE_BYTES];
    size_t body = len - SEAL_OVERHEAD;
    seal_nonce(seal, nonce);
    if (!seal->kind->decrypt(seal->gcm, nonce, data + SEAL_HEAD, body, data + SEAL_HEAD + body, out))
        return err_set(err, ERR_PROTOCOL, "sealed message is forged or damaged");
    seal->sequence++;
    return 0;
}
