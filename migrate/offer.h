/* offer: what the destination says it holds in an image of the guest's last visit there (image.h), as the source knows
 * it: the image's key and a tag a page. Pure.
 *
 * It may be incomplete; a page of which nothing is known is not offered. Filled by one thread, then read by many, each
 * with a cipher of its own. Memory: 16 bytes a page, allocated as they are set. */
#ifndef MIGRATE_OFFER_H
#define MIGRATE_OFFER_H

#include "migrate/image.h"

struct offer;

/* Nothing offered. Take: offer_free(). */
struct offer *offer_new(size_t pages, const uint8_t key[IMAGE_KEY_BYTES]);
void offer_free(struct offer *offer);
/* Tags of the pages from `first` on. ERR_PROTOCOL: they do not fit. */
MUST_CHECK int offer_add(struct offer *offer, uint64_t first, const uint8_t *tags, size_t len, struct err *err);
/* Take: image_cipher_free(). */
struct image_cipher *offer_cipher(const struct offer *offer);
/* True: the destination holds exactly this as page `page`. */
bool offer_holds(const struct offer *offer, struct image_cipher *cipher, size_t page, const uint8_t *content);

#endif
