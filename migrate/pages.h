/* pages: what has become of each page in post-copy. Pure, lock free; any thread may call, but for pages_add_stale() and
 * pages_seal(), which come before the others.
 *
 *     fresh (never stale)        it is here, or zero
 *     stale -> claimed -> done   it is at the source; one thread is putting it in place; it is here
 *
 * A page is claimed before it is put in place, so that of two copies that arrive only one is used: what the guest has
 * written since is never overwritten. `wanted` marks stale pages that somebody waits for. */
#ifndef MIGRATE_PAGES_H
#define MIGRATE_PAGES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pages {
    size_t count;
    _Atomic uint64_t *stale, *claimed, *done, *wanted;
    atomic_size_t missing; /* stale and not done */
    atomic_bool sealed;    /* no page becomes stale any more */
};

void pages_init(struct pages *pages, size_t count);
void pages_free(struct pages *pages);

/* Makes the pages of `word` stale, numbered from 64 * index on; returns those of them that were not. */
uint64_t pages_add_stale(struct pages *pages, size_t index, uint64_t word);
/* From here on pages may be claimed. */
void pages_seal(struct pages *pages);

bool pages_is_stale(const struct pages *pages, size_t page);
/* True: the caller, and nobody else, puts it in place; then pages_finish(), or pages_unclaim() if it could not.
 * False: it is fresh, claimed or done; or nothing is sealed yet. */
bool pages_claim(struct pages *pages, size_t page);
void pages_unclaim(struct pages *pages, size_t page);
/* It is here. True: somebody wanted it. */
bool pages_finish(struct pages *pages, size_t page);
/* Marks it as wanted. True: it is still missing and was not wanted yet. */
bool pages_want(struct pages *pages, size_t page);
bool pages_is_done(const struct pages *pages, size_t page);
/* True once every stale page is done. */
bool pages_complete(const struct pages *pages);
/* Those still missing, of the 64 pages from 64 * index on. */
uint64_t pages_missing_word(const struct pages *pages, size_t index);

#endif
