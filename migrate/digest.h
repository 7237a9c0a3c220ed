/* digest: a hash of every page of RAM, as the source knows the destination to hold it or the destination does hold it,
 * and a hash over all of them: the receipt of a migration.
 *
 * XXH3 with 128 bits and a seed of this migration's own, unknown to the guest. 64 bits would not do: the digest alone
 * decides that a page need not be sent again, and with 10^10 such decisions the chance of one lost write would be
 * 5 * 10^-10; with 128 bits it is 3 * 10^-29. A zero page has the digest zero, so a set of zero-filled digests is that
 * of empty RAM. Memory: 16 bytes a page, allocated as they are set.
 *
 * The receipt is a tree: its leaves are the sums over 1 MiB of what each page that is not zero contributes (its number
 * and its digest, hashed again), its root is a hash of the leaves. Sums because they can be kept as pages come, in any
 * order and by many threads: at the switch there is nothing left to hash but 16 bytes a MiB.
 *
 * Different threads may get and set different pages. */
#ifndef MIGRATE_DIGEST_H
#define MIGRATE_DIGEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest {
    uint64_t low, high;
};

#define DIGEST_LEAF_PAGES 256u
#define DIGEST_TEXT       33 /* a root as text */

struct digest_leaf {
    _Atomic uint64_t low, high;
};

struct digests {
    size_t pages;
    uint64_t seed;
    struct digest *page;
    struct digest_leaf *leaf; /* NULL: no receipt is wanted */
};

/* Of a page that holds something, nobody knows what: like no page there is. Has no place in a receipt. */
static const struct digest digest_unknown = {UINT64_MAX, UINT64_MAX};

/* All pages zero. Take: digests_free(). */
void digests_init(struct digests *digests, size_t pages, uint64_t seed, bool receipt);
void digests_free(struct digests *digests);
/* What the page holds from now on. */
void digests_set(struct digests *digests, size_t page, struct digest digest);
/* The receipt, if it is wanted, of RAM that nobody sets pages of. About 1 us a GiB. */
void digests_root(const struct digests *digests, char out[static DIGEST_TEXT]);
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
