/* Key pairs (Curve25519, as CURVE uses them) and their files. A pair is two files: NAME.key holds the secret and the
 * public key and has mode 0600, NAME.pub holds the public key. In text a key is 40 characters of Z85 (ZeroMQ RFC 32).
 */
#ifndef PROTO_KEYS_H
#define PROTO_KEYS_H

#include <stdint.h>

#include "base/err.h"

#define KEY_BYTES 32
#define KEY_TEXT  41 /* with the NUL */

struct key_pair {
    uint8_t public_key[KEY_BYTES];
    uint8_t secret_key[KEY_BYTES];
};

MUST_CHECK int key_generate(struct err *err, struct key_pair *out);
/* Writes PREFIX.key (0600) and PREFIX.pub (0644), durably; never overwrites: ERR_EXISTS. On failure neither is left. */
MUST_CHECK int key_save(const char *prefix, const struct key_pair *key, struct err *err);
/* Reads a .key file. ERR_DENIED: it is neither root's nor the running user's, or others may read it; `err` says what
 * mends that. */
MUST_CHECK int key_load(const char *path, struct err *err, struct key_pair *out);
/* Reads a .pub file. */
MUST_CHECK int key_load_public(const char *path, struct err *err, uint8_t out[KEY_BYTES]);
MUST_CHECK int key_parse(const char *text, struct err *err, uint8_t out[KEY_BYTES]);
void key_format(const uint8_t key[KEY_BYTES], char out[static KEY_TEXT]);
/* Overwrites secret memory in a way the compiler keeps. */
void key_wipe(void *memory, size_t len);

#endif
