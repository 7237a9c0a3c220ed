#include "migrate/gcm.h"

#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"

/* Aligned as the library's own struct says. The context is of one message. */
struct vaes {
    struct gcm_key_data key;
    struct gcm_context_data message;
};

/* The library's table of functions for this CPU; NULL: not a CPU for it. Made once, never changed, never freed. */
static IMB_MGR *manager;
static pthread_once_t manager_once = PTHREAD_ONCE_INIT;

static void manager_make(void)
{
    const uint64_t needed = IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ;
    IMB_ARCH arch = IMB_ARCH_NONE;
    manager = alloc_mb_mgr(0);
    if (!manager)
        return;
    init_mb_mgr_auto(manager, &arch);
    if (imb_get_errno(manager) == 0 && arch == IMB_ARCH_AVX512 && (manager->features & needed) == needed)
        return;
    free_mb_mgr(manager);
    manager = NULL;
}

static bool vaes_usable(void)
{
    pthread_once(&manager_once, manager_make);
    return manager != NULL;
}

static void *vaes_open(const uint8_t key[GCM_KEY_BYTES])
{
    struct vaes *self = aligned_alloc(_Alignof(struct vaes), sizeof *self);
    ENSURE(self && vaes_usable());
    memset(self, 0, sizeof *self);
    IMB_AES256_GCM_PRE(manager, key, &self->key);
    return self;
}

static void vaes_close(void *self)
{
    explicit_bzero(self, sizeof(struct vaes));
    free(self);
}

static void vaes_encrypt(void *self, const uint8_t nonce[GCM_NONCE_BYTES], const struct iovec *pieces, size_t count,
    uint8_t *out, uint8_t tag[GCM_TAG_BYTES])
{
    struct vaes *s = self;
    IMB_AES256_GCM_INIT(manager, &s->key, &s->message, nonce, (const uint8_t *)"", 0);
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].iov_len == 0)
            continue;
        IMB_AES256_GCM_ENC_UPDATE(manager, &s->key, &s->message, out, pieces[i].iov_base, pieces[i].iov_len);
        out += pieces[i].iov_len;
    }
    IMB_AES256_GCM_ENC_FINALIZE(manager, &s->key, &s->message, tag, GCM_TAG_BYTES);
}

static bool vaes_decrypt(void *self, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *data, size_t len,
    const uint8_t tag[GCM_TAG_BYTES], uint8_t *out)
{
    struct vaes *s = self;
    uint8_t is[GCM_TAG_BYTES];
    IMB_AES256_GCM_INIT(manager, &s->key, &s->message, nonce, (const uint8_t *)"", 0);
    if (len > 0)
        IMB_AES256_GCM_DEC_UPDATE(manager, &s->key, &s->message, out, data, len);
    IMB_AES256_GCM_DEC_FINALIZE(manager, &s->key, &s->message, is, GCM_TAG_BYTES);
    return CRYPTO_memcmp(is, tag, GCM_TAG_BYTES) == 0;
}

const struct gcm_kind gcm_vaes = {"vaes", vaes_usable, vaes_open, vaes_close, vaes_encrypt, vaes_decrypt};
