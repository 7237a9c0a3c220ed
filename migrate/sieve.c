#include "migrate/sieve.h"

void sieve_begin(struct sieve *p)
{
    batch_begin(&p->batch);
}

bool sieve_has_room(const struct sieve *p, uint32_t pages)
{
    return batch_has_room(&p->batch, pages);
}

static void sieve_count(struct sieve *p, enum page_class class, uint64_t bytes)
{
    p->counts.pages[class]++;
    p->counts.bytes[class] += bytes;
}

/* Notes what the destination will hold; false if it holds that already. */
static bool sieve_is_news(struct sieve *p, uint32_t page, struct digest digest)
{
    if (!p->digests)
        return true;
    if (digest_equal(p->digests->page[page], digest))
        return false;
    p->digests->page[page] = digest;
    return true;
}

static void sieve_add_zero(struct sieve *p, uint32_t page)
{
    uint64_t bytes = 0;
    if (sieve_is_news(p, page, (struct digest){0}) && batch_add_zero(&p->batch, page))
        bytes = BATCH_RUN_BYTES;
    sieve_count(p, CLASS_ZERO, bytes);
}

void sieve_add(struct sieve *p, uint32_t page, const uint8_t *content)
{
    if (page_is_zero(content)) {
        sieve_add_zero(p, page);
        return;
    }
    struct digest digest = p->digests ? digests_make(p->digests, content) : (struct digest){0};
    if (!sieve_is_news(p, page, digest))
        sieve_count(p, CLASS_SILENT, 0);
    else
        batch_add_full(&p->batch, page, content); /* counted when it is known what LZ4 makes of it */
}

static void sieve_count_full(struct sieve *p)
{
    const struct batch *b = &p->batch;
    enum page_class class = b->packed_bytes < b->full_bytes ? CLASS_LZ4 : CLASS_RAW;
    for (uint32_t i = 0; i < b->runs; i++)
        if (b->run[i].kind == BATCH_FULL)
            p->counts.bytes[class] += BATCH_RUN_BYTES;
    p->counts.pages[class] += b->full_bytes / PAGE_BYTES;
    p->counts.bytes[class] += b->packed_bytes;
}

size_t sieve_finish(struct sieve *p, uint8_t *out)
{
    if (p->batch.runs == 0)
        return 0;
    size_t len = batch_encode(&p->batch, out);
    sieve_count_full(p);
    return len;
}
