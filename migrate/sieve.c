#include "migrate/sieve.h"

#include <string.h>

#include "migrate/delta.h"

void sieve_begin(struct sieve *s)
{
    batch_begin(&s->batch);
    s->batch.quick = !s->thorough;
}

bool sieve_has_room(const struct sieve *s, uint32_t pages)
{
    return batch_has_room(&s->batch, pages);
}

static void sieve_count(struct sieve *s, enum page_class class, uint64_t bytes)
{
    s->counts.pages[class]++;
    s->counts.bytes[class] += bytes;
}

/* Notes what the destination will hold; false if it holds that already and need not be told. `*before`: what it holds
 * now. */
static bool sieve_is_news(struct sieve *s, uint32_t page, struct digest digest, struct digest *before)
{
    *before = (struct digest){0};
    if (!s->digests)
        return true;
    *before = s->digests->page[page];
    digests_set(s->digests, page, digest);
    return !s->silent || !digest_equal(*before, digest) || digest_equal(digest, digest_unknown);
}

/* Of a page that is not zero. */
static struct digest sieve_digest(const struct sieve *s, const uint8_t *content)
{
    if (!s->digests)
        return (struct digest){0};
    return s->thorough || s->digests->leaf ? digests_make(s->digests, content) : digest_unknown;
}

static void sieve_add_zero(struct sieve *s, uint32_t page)
{
    struct digest before;
    uint64_t bytes = 0;
    if (sieve_is_news(s, page, (struct digest){0}, &before)) {
        if (s->copies && !digest_is_zero(before))
            copies_drop(s->copies, page);
        if (batch_add_zero(&s->batch, page))
            bytes = BATCH_RUN_BYTES;
    }
    sieve_count(s, CLASS_ZERO, bytes);
}

/* Sent for the first time: room that nobody needs so far may as well hold it. */
static void sieve_try_copy(struct sieve *s, uint32_t page, const uint8_t *content)
{
    uint8_t *copy = copies_try(s->copies, page);
    if (!copy)
        return;
    memcpy(copy, content, PAGE_BYTES);
    copies_useless(s->copies, page);
}

/* True: the destination has it from the guest's last visit. What was sent before has changed since, so it is not asked
 * of that. */
static bool sieve_add_reused(struct sieve *s, uint32_t page, const uint8_t *content)
{
    if (!s->offer || !offer_holds(s->offer, s->cipher, page, content))
        return false;
    sieve_count(s, CLASS_REUSED, batch_add_reused(&s->batch, page) ? BATCH_RUN_BYTES : 0);
    return true;
}

/* True: it was sent as a delta. Either way the copy, if there is one, is what was sent. */
static bool sieve_add_delta(struct sieve *s, uint32_t page, const uint8_t *content)
{
    uint8_t delta[BATCH_DELTA_MAX];
    size_t len;
    uint8_t *copy = copies_find(s->copies, page);
    if (!copy) { /* sent for the second time at least, so there may be a third */
        copy = s->thorough ? copies_admit(s->copies, page) : NULL;
        if (copy)
            memcpy(copy, content, PAGE_BYTES);
        return false;
    }
    bool small = delta_encode(copy, content, delta, sizeof delta, &len);
    memcpy(copy, content, PAGE_BYTES);
    if (!small) {
        copies_useless(s->copies, page);
        return false;
    }
    uint64_t run = batch_add_delta(&s->batch, page, delta, len) ? BATCH_RUN_BYTES : 0;
    sieve_count(s, CLASS_DELTA, run + 2 + len);
    return true;
}

void sieve_add(struct sieve *s, uint32_t page, const uint8_t *content)
{
    struct digest before;
    if (page_is_zero(content)) {
        sieve_add_zero(s, page);
        return;
    }
    struct digest digest = sieve_digest(s, content);
    if (!sieve_is_news(s, page, digest, &before)) {
        sieve_count(s, CLASS_SILENT, 0);
        return;
    }
    bool first = digest_is_zero(before);
    if (s->copies && first && s->thorough)
        sieve_try_copy(s, page, content);
    else if (s->copies && !first && sieve_add_delta(s, page, content))
        return;
    if (first && sieve_add_reused(s, page, content))
        return;
    batch_add_full(&s->batch, page, content); /* counted when it is known what LZ4 makes of it */
}

static void sieve_count_full(struct sieve *s)
{
    const struct batch *b = &s->batch;
    enum page_class class = b->packed_bytes < b->full_bytes ? CLASS_LZ4 : CLASS_RAW;
    for (uint32_t i = 0; i < b->runs; i++)
        if (b->run[i].kind == BATCH_FULL)
            s->counts.bytes[class] += BATCH_RUN_BYTES;
    s->counts.pages[class] += b->full_bytes / PAGE_BYTES;
    s->counts.bytes[class] += b->packed_bytes;
}

size_t sieve_finish(struct sieve *s, uint8_t *out)
{
    if (s->batch.runs == 0)
        return 0;
    size_t len = batch_encode(&s->batch, out);
    sieve_count_full(s);
    return len;
}

size_t sieve_finish_pieces(struct sieve *s, uint8_t *space, struct iovec pieces[static BATCH_PIECES])
{
    if (s->batch.runs == 0)
        return 0;
    size_t len = batch_encode_pieces(&s->batch, space, pieces);
    sieve_count_full(s);
    return len;
}
