/* gcm: AES-256-GCM (NIST SP 800-38D, 12 bytes of nonce, 16 of tag, no additional data) of one key. Pure.
 *
 * The same bytes by more than one implementation: libcrypto's, which is everywhere, and for CPUs with vector AES
 * (VAES, VPCLMULQDQ) that of libIPSec_MB, which Debian's libcrypto 3.0 has no match for: 0.12 to 0.38 CPU seconds a
 * GiB. A key's struct belongs to one thread. */
#ifndef MIGRATE_GCM_H
#define MIGRATE_GCM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define GCM_KEY_BYTES   32
#define GCM_NONCE_BYTES 12
#define GCM_TAG_BYTES   16

struct gcm_kind {
    const char *name;
    bool (*usable)(void); /* on this CPU */
    /* Take: close(), which forgets the key. */
    void *(*open)(const uint8_t key[GCM_KEY_BYTES]);
    void (*close)(void *self);
    /* Encrypts the pieces, one behind the other, into `out`. A piece may lie exactly where it will be in `out`. */
    void (*encrypt)(void *self, const uint8_t nonce[GCM_NONCE_BYTES], const struct iovec *pieces, size_t count,
        uint8_t *out, uint8_t tag[GCM_TAG_BYTES]);
    /* `out` may be `data`. False: not genuine; what is in `out` then must not be used. */
    bool (*decrypt)(void *self, const uint8_t nonce[GCM_NONCE_BYTES], const uint8_t *data, size_t len,
        const uint8_t tag[GCM_TAG_BYTES], uint8_t *out);
};

extern const struct gcm_kind gcm_libcrypto;
#ifdef DROVER_IPSEC_MB
extern const struct gcm_kind gcm_vaes;
#endif

/* The fastest that is usable. */
const struct gcm_kind *gcm_best(void);

#endif
