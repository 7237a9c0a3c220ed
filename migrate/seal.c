#include <endian.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

#include "migrate/seal.h"

#include "base/buf.h"
#include "base/ensure.h"

#define TAG_BYTES   16
#define NONCE_BYTES 12

struct seal {
    EVP_CIPHER_CTX *cipher;
    uint32_t channel; /* first part of the nonce */
    uint64_t sequence;
    bool keyed_for_opening, keyed_for_closing;
    uint8_t key[SEAL_KEY_BYTES];
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
    seal->cipher = EVP_CIPHER_CTX_new();
    ENSURE(seal->cipher != NULL && stripe < UINT32_MAX / 2);
    seal->channel = stripe * 2 + (uint32_t)direction;
    memcpy(seal->key, key, sizeof seal->key);
    return seal;
}

void seal_free(struct seal *seal)
{
    if (!seal)
        return;
    EVP_CIPHER_CTX_free(seal->cipher);
    explicit_bzero(seal->key, sizeof seal->key);
    free(seal);
}

static void seal_nonce(const struct seal *seal, uint64_t sequence, uint8_t nonce[NONCE_BYTES])
{
    uint32_t channel = htole32(seal->channel);
    sequence = htole64(sequence);
    memcpy(nonce, &channel, 4);
    memcpy(nonce + 4, &sequence, 8);
}

size_t seal_close(struct seal *seal, const uint8_t *data, size_t len, uint8_t *out)
{
    uint8_t nonce[NONCE_BYTES];
    seal_nonce(seal, seal->sequence, nonce);
    uint64_t sequence = htole64(seal->sequence++);
    memcpy(out, &sequence, 8);
    int n = 0, rest = 0;
    if (!seal->keyed_for_closing)
        ENSURE(EVP_EncryptInit_ex(seal->cipher, EVP_aes_256_gcm(), NULL, seal->key, NULL) == 1);
    seal->keyed_for_closing = true;
    ENSURE(EVP_EncryptInit_ex(seal->cipher, NULL, NULL, NULL, nonce) == 1);
    ENSURE(EVP_EncryptUpdate(seal->cipher, out + 8, &n, data, (int)len) == 1 && (size_t)n == len);
    ENSURE(EVP_EncryptFinal_ex(seal->cipher, out + 8 + len, &rest) == 1 && rest == 0);
    ENSURE(EVP_CIPHER_CTX_ctrl(seal->cipher, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, out + 8 + len) == 1);
    return len + SEAL_OVERHEAD;
}

int seal_open(struct seal *seal, const uint8_t *data, size_t len, struct err *err, uint8_t *out)
{
    uint64_t sequence;
    if (len < SEAL_OVERHEAD || len > INT32_MAX)
        return err_set(err, ERR_PROTOCOL, "sealed message of %zu bytes", len);
    memcpy(&sequence, data, 8);
    if (le64toh(sequence) != seal->sequence)
        return err_set(err, ERR_PROTOCOL, "sealed message out of order");
    uint8_t nonce[NONCE_BYTES], tag[TAG_BYTES];
    seal_nonce(seal, seal->sequence, nonce);
    size_t body = len - SEAL_OVERHEAD;
    memcpy(tag, data + 8 + body, TAG_BYTES);
    int n = 0, rest = 0;
    if (!seal->keyed_for_opening)
        ENSURE(EVP_DecryptInit_ex(seal->cipher, EVP_aes_256_gcm(), NULL, seal->key, NULL) == 1);
    seal->keyed_for_opening = true;
    ENSURE(EVP_DecryptInit_ex(seal->cipher, NULL, NULL, NULL, nonce) == 1);
    ENSURE(EVP_DecryptUpdate(seal->cipher, out, &n, data + 8, (int)body) == 1);
    ENSURE(EVP_CIPHER_CTX_ctrl(seal->cipher, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1);
    if (EVP_DecryptFinal_ex(seal->cipher, out + n, &rest) != 1)
        return err_set(err, ERR_PROTOCOL, "sealed message is forged or damaged");
    seal->sequence++;
    return 0;
}
