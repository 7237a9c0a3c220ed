#include "migrate/pages.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/ensure.h"

static size_t pages_words(const struct pages *pages)
{
    return (pages->count + 63) / 64;
}

static uint64_t bit_of(size_t page)
{
    return UINT64_C(1) << (page % 64);
}

void pages_init(struct pages *pages, size_t count)
{
    *pages = (struct pages){.count = count};
    pages->stale = mem_zalloc(pages_words(pages) * sizeof *pages->stale);
    pages->claimed = mem_zalloc(pages_words(pages) * sizeof *pages->claimed);
    pages->done = mem_zalloc(pages_words(pages) * sizeof *pages->done);
    pages->wanted = mem_zalloc(pages_words(pages) * sizeof *pages->wanted);
}

void pages_free(struct pages *pages)
{
    free(pages->stale);
    free(pages->claimed);
    free(pages->done);
    free(pages->wanted);
    *pages = (struct pages){0};
}

uint64_t pages_add_stale(struct pages *pages, size_t index, uint64_t word)
{
    ENSURE(!atomic_load(&pages->sealed) && index < pages_words(pages));
    uint64_t fresh = word & ~atomic_fetch_or(&pages->stale[index], word);
    atomic_fetch_add(&pages->missing, (size_t)__builtin_popcountll(fresh));
    return fresh;
}

void pages_seal(struct pages *pages)
{
    atomic_store(&pages->sealed, true);
}

bool pages_is_stale(const struct pages *pages, size_t page)
{
    return atomic_load(&pages->stale[page / 64]) & bit_of(page);
}

bool pages_claim(struct pages *pages, size_t page)
{
    if (!atomic_load(&pages->sealed) || !pages_is_stale(pages, page))
        return false;
    return !(atomic_fetch_or(&pages->claimed[page / 64], bit_of(page)) & bit_of(page));
}

void pages_unclaim(struct pages *pages, size_t page)
{
    ENSURE(!pages_is_done(pages, page));
    atomic_fetch_and(&pages->claimed[page / 64], ~bit_of(page));
}

/* Finishing sets `done` and then looks at `wanted`; wanting sets `wanted` and then looks at `done`. Both sequentially
 * consistent, so at least one of the two sees the other. */
bool pages_finish(struct pages *pages, size_t page)
{
    uint64_t before = atomic_fetch_or(&pages->done[page / 64], bit_of(page));
    ENSURE(!(before & bit_of(page)));
    atomic_fetch_sub(&pages->missing, 1);
    return atomic_load(&pages->wanted[page / 64]) & bit_of(page);
}

bool pages_want(struct pages *pages, size_t page)
{
    uint64_t before = atomic_fetch_or(&pages->wanted[page / 64], bit_of(page));
    return !(before & bit_of(page)) && !pages_is_done(pages, page);
}

bool pages_is_done(const struct pages *pages, size_t page)
{
    return atomic_load(&pages->done[page / 64]) & bit_of(page);
}

bool pages_complete(const struct pages *pages)
{
    return atomic_load(&pages->sealed) && atomic_load(&pages->missing) == 0;
}

uint64_t pages_missing_word(const struct pages *pages, size_t index)
{
    return atomic_load(&pages->stale[index]) & ~atomic_load(&pages->done[index]);
}
