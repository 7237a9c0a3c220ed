/* digest: a hash of every page of RAM, as one side of a migration believes the destination to hold it.
 *
 * XXH3 with 128 bits and a seed of this migration's own, unknown to the guest. 64 bits would not do: the digest alone
 * decides that a page need not be sent again, and with 10^10 such decisions the chance of one lost write would be
 * 5 * 10^-10; with 128 bits it is 3 * 10^-29. A zero page has the digest zero, so a set of zero-filled digests is that
 * of empty RAM. Memory: 16 bytes a page, allocated as they are set.
 *
 * Different threads may get and set different pages. */
#ifndef MIGRATE_DIGEST_H
#define MIGRATE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest {
    uint64_t low, high;
};

struct digests {
    size_t pages;
    uint64_t seed;
    struct digest *page;
};

/* All pages zero. Take: digests_free(). */
void digests_init(struct digests *digests, size_t pages, uint64_t seed);
void digests_free(struct digests *digests);
/* Of a page that is not zero. */
struct digest digests_make(const struct digests *digests, const uint8_t *content);

static inline bool digest_equal(struct digest a, struct digest b)
{
    return a.low == b.low && a.high == b.high;
}

static inline bool digest_is_zero(struct digest digest)
{
    return digest.low == 0 && digest.high == 0;
}

#endif
