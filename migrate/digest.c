#include "migrate/digest.h"

#include <stdlib.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h> /* AVX2 and AVX-512 where the CPU has them: 0.2 us a page instead of 0.5 */
#endif

#include "base/buf.h"
#include "migrate/ram.h"

void digests_init(struct digests *digests, size_t pages, uint64_t seed)
{
    *digests = (struct digests){.pages = pages, .seed = seed, .page = mem_zalloc(pages * sizeof(struct digest))};
}

void digests_free(struct digests *digests)
{
    free(digests->page);
    *digests = (struct digests){0};
}

struct digest digests_make(const struct digests *digests, const uint8_t *content)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(content, PAGE_BYTES, digests->seed);
    struct digest digest = {hash.low64, hash.high64};
    if (digest_is_zero(digest)) /* means a zero page */
        digest.low = 1;
    return digest;
}
