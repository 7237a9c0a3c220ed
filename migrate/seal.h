/* seal: authenticated encryption of the messages of one direction of one stripe (AES-256-GCM, NIST SP 800-38D).
 *
 *     u64 sequence | ciphertext | 16 bytes tag
 *
 * The nonce is (direction and stripe, sequence), so no nonce comes twice under a migration's key; the receiver takes
 * sequences in order only, so nothing can be replayed, dropped or swapped unnoticed. One struct belongs to one thread.
 */
#ifndef MIGRATE_SEAL_H
#define MIGRATE_SEAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define SEAL_KEY_BYTES 32
#define SEAL_HEAD      8u /* ahead of the ciphertext */
#define SEAL_OVERHEAD  24u

enum seal_direction { SEAL_TO_DESTINATION, SEAL_TO_SOURCE };

struct seal;

/* A new random key. */
void seal_make_key(uint8_t key[SEAL_KEY_BYTES]);
/* A number that follows from the key and `label` and tells nothing of the key. */
uint64_t seal_derive(const uint8_t key[SEAL_KEY_BYTES], const char *label);
/* Take: seal_free(). */
struct seal *seal_new(const uint8_t key[SEAL_KEY_BYTES], enum seal_direction direction, uint32_t stripe);
void seal_free(struct seal *seal);
/* Seals `len` bytes as the next message into `out` (len + SEAL_OVERHEAD long); returns its length. */
size_t seal_close(struct seal *seal, const uint8_t *data, size_t len, uint8_t *out);
/* The same for a message that lies in pieces. */
size_t seal_close_pieces(struct seal *seal, const struct iovec *pieces, size_t count, uint8_t *out);
/* Opens the next message into `out` (len - SEAL_OVERHEAD long), which may be data + SEAL_HEAD. ERR_PROTOCOL: forged,
 * damaged or out of order; the next message is still the same, and what is in `out` must not be used. */
MUST_CHECK int seal_open(struct seal *seal, const uint8_t *data, size_t len, struct err *err, uint8_t *out);

#endif
