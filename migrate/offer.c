#include "migrate/offer.h"

struct offer {
    size_t pages;
    uint8_t *tags;
    uint8_t key[IMAGE_KEY_BYTES];
};

struct offer *offer_new(size_t pages, const uint8_t key[IMAGE_KEY_BYTES])
{
    struct offer *o = mem_zalloc(sizeof *o);
    o->pages = pages;
    o->tags = mem_zalloc(pages * IMAGE_TAG_BYTES);
    memcpy(o->key, key, sizeof o->key);
    return o;
}

void offer_free(struct offer *o)
{
    if (!o)
        return;
    free(o->tags);
    explicit_bzero(o->key, sizeof o->key);
    free(o);
}

int offer_add(struct offer *o, uint64_t first, const uint8_t *tags, size_t len, struct err *err)
{
    if (len % IMAGE_TAG_BYTES || first > o->pages || len / IMAGE_TAG_BYTES > o->pages - first)
        return err_set(err, ERR_PROTOCOL, "%zu bytes of tags from page %llu on do not fit this guest", len,
            (unsigned long long)first);
    memcpy(o->tags + first * IMAGE_TAG_BYTES, tags, len);
    return 0;
}

struct image_cipher *offer_cipher(const struct offer *o)
{
    return image_cipher_new(o->key);
}

bool offer_holds(const struct offer *o, struct image_cipher *cipher, size_t page, const uint8_t *content)
{
    const uint8_t *offered = o->tags + page * IMAGE_TAG_BYTES;
    uint8_t tag[IMAGE_TAG_BYTES];
    if (image_tag_is_zero(offered))
        return false;
    image_tag(cipher, page, content, tag);
    return memcmp(tag, offered, sizeof tag) == 0;
}
