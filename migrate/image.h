/* image: what a guest's RAM held when it left this host, kept on disk for the case that it comes back.
 *
 *     page p, sealed, at p * PAGE_BYTES | tag of page p at RAM's length + p * IMAGE_TAG_BYTES
 *
 * Each page is sealed by AES-256-GCM under a key of this image's own with the page's number as nonce; what is zero is a
 * hole, with the tag zero. The key lies in a file of its own, which is to be on tmpfs: the disk alone tells nothing of
 * the guest, and a reboot makes the image worthless. The key is written last, so an image with a key is whole.
 *
 * The tag does three things: it proves on reading that the page is what was kept; it is the digest by which the other
 * side, which gets the key, finds out whether it holds the same; and nobody can make two pages that share it on
 * purpose: GCM's tag is a universal hash under a secret (GHASH), so for any two pages that whoever does not know the
 * key can think of, the chance is below 257 / 2^128 (NIST SP 800-38D; McGrew and Viega, 2004). The guest never learns
 * key or tags.
 *
 * An image is only a hint: nothing is wrong without it. */
#ifndef MIGRATE_IMAGE_H
#define MIGRATE_IMAGE_H

#include "migrate/ram.h"

#define IMAGE_KEY_BYTES 32 /* as gcm.h has them */
#define IMAGE_TAG_BYTES 16u
#define IMAGE_RUN_PAGES 64u

struct image;
struct image_cipher;

/* One belongs to one thread. Take: image_cipher_free(). */
struct image_cipher *image_cipher_new(const uint8_t key[IMAGE_KEY_BYTES]);
void image_cipher_free(struct image_cipher *cipher);
/* The tag that a page has under this key. */
void image_tag(struct image_cipher *cipher, size_t page, const uint8_t *content, uint8_t tag[static IMAGE_TAG_BYTES]);
bool image_tag_is_zero(const uint8_t tag[static IMAGE_TAG_BYTES]);

/* Keeps what `ram` holds at `path` and its key at `key_path`, both of mode 0600, in place of what was there; frees the
 * pages of `ram` on its way. ERR_CAPACITY: more than `max_bytes` would be written. On failure there is no image. */
MUST_CHECK int image_keep(
    const struct ram *ram, const char *path, const char *key_path, uint64_t max_bytes, struct err *err);
/* ERR_NOT_FOUND: there is none, or it is of RAM of another size. Take: image_close(). */
MUST_CHECK int image_open(
    const char *path, const char *key_path, uint64_t ram_bytes, struct err *err, struct image **out);
void image_close(struct image *image);
const uint8_t *image_key(const struct image *image);
/* Tags of up to `max` pages from the first at or after `*page` whose neighbourhood holds any: `*page` is where they
 * begin, the result how many there are; 0: no more follow. */
MUST_CHECK int image_tags(const struct image *image, size_t max, struct err *err, size_t *page, uint8_t *out);
/* Reads `pages` (up to IMAGE_RUN_PAGES) neighbours from `first` on, with two calls of the disk. ERR_CORRUPT: one is not
 * what was kept or cannot be read, and the image is gone now. Thread safe. */
MUST_CHECK int image_read(
    const struct image *image, struct image_cipher *cipher, size_t first, size_t pages, struct err *err, uint8_t *out);

#endif
