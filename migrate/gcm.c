#include "migrate/gcm.h"

#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"

/* Both keyed once: setting a nonce costs little, expanding a key again does not. */
struct libcrypto {
    EVP_CIPHER_CTX *encrypting, *decrypting;
};

static bool libcrypto_usable(void)
{
    return true;
}

static void *libcrypto_open(const uint8_t key[GCM_KEY_BYTES])
{
    struct libcrypto *self = mem_zalloc(sizeof *self);
    self->encrypting = EVP_CIPHER_CTX_new();
    self->decrypting = EVP_CIPHER_CTX_new();
    ENSURE(self->encrypting && self->decrypting);
    ENSURE(EVP_EncryptInit_ex(self->encrypting, EVP_aes_256_gcm(), NULL, key, NULL) == 1);
    ENSURE(EVP_DecryptInit_ex(self->decrypting, EVP_aes_256_gcm(), NULL, key, NULL) == 1);
    return self;
}

static void libcrypto_close(void *self)
{
    struct libcrypto *s = self;
    EVP_CIPHER_CTX_free(s->encrypting);
    EVP_CIPHER_CTX_free(s->decrypting);
    free(s);
}

static void libcrypto_encrypt(void *self, const uint8_t nonce[GCM_NONCE_BYTES], const struct iovec *pieces,
    size_t count, uint8_t *out, uint8_t tag[GCM_TAG_BYTES])
{
    EVP_CIPHER_CTX *cipher = ((struct libcrypto *)self)->encrypting;
    int n = 0;
    ENSURE(EVP_EncryptInit_ex(cipher, NULL, NULL, NULL, nonce) == 1);
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].iov_len == 0)
            continue;
        ENSURE(pieces[i].iov_len <= INT_MAX);
        ENSURE(EVP_EncryptUpdate(cipher, out, &n, pieces[i].iov_base, (int)pieces[i].iov_len) == 1);
        out += n;
    }
    ENSURE(EVP_EncryptFinal_ex(cipher, out, &n) == 1 && n == 0);
    ENSURE(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, GCM_TAG_BYTES, tag) == 1);
}

static bool libcrypto_decrypt(void *self, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *data, size_t len,
    const uint8_t tag[GCM_TAG_BYTES], uint8_t *out)
{
    EVP_CIPHER_CTX *cipher = ((struct libcrypto *)self)->decrypting;
    uint8_t copy[GCM_TAG_BYTES];
    int n = 0, rest = 0;
    memcpy(copy, tag, sizeof copy);
    ENSURE(len <= INT_MAX);
    ENSURE(EVP_DecryptInit_ex(cipher, NULL, NULL, NULL, nonce) == 1);
    ENSURE(len == 0 || EVP_DecryptUpdate(cipher, out, &n, data, (int)len) == 1);
    ENSURE(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, GCM_TAG_BYTES, copy) == 1);
    return EVP_DecryptFinal_ex(cipher, out + n, &rest) == 1;
}

const struct gcm_kind gcm_libcrypto = {
    "libcrypto", libcrypto_usable, libcrypto_open, libcrypto_close, libcrypto_encrypt, libcrypto_decrypt};

const struct gcm_kind *gcm_best(void)
{
#ifdef DROVER_IPSEC_MB
    if (gcm_vaes.usable())
        return &gcm_vaes;
#endif
    return &gcm_libcrypto;
}
