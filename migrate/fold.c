#include "migrate/fold.h"

#include <stdbool.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define WORD_BYTES  8u
#define GROUP_WORDS 8u /* of one byte of a mask */
#define GROUP_BYTES (GROUP_WORDS * WORD_BYTES)
#define MASK_BYTES  (PAGE_BYTES / GROUP_BYTES)
#define FLAG_BYTES  (FOLD_PAGES_MAX / 8)
/* A page is folded if a quarter of it goes, and pages at all if a sixteenth of them does: less would not pay for the
 * copying. */
#define KEPT_MAX   (PAGE_BYTES / WORD_BYTES / 4 * 3)
#define GAIN_SHARE 16u

_Static_assert(KEPT_MAX *WORD_BYTES + MASK_BYTES < PAGE_BYTES, "what is folded is shorter");

static uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static size_t mask_kept(const uint8_t mask[static MASK_BYTES])
{
    size_t kept = 0;
    for (size_t g = 0; g < MASK_BYTES; g += sizeof(uint64_t))
        kept += (size_t)__builtin_popcountll(word_at(mask + g));
    return kept;
}

/* Which of eight words differ from the one before them. There is a word before the first, too. */
static unsigned group_mask(const uint8_t *words)
{
    unsigned bits = 0;
#ifdef __SSE2__
    for (unsigned i = 0; i < GROUP_WORDS; i += 2) {
        __m128i these = _mm_loadu_si128((const void *)(words + i * WORD_BYTES));
        __m128i those = _mm_loadu_si128((const void *)(words + i * WORD_BYTES - WORD_BYTES));
        __m128i halves = _mm_cmpeq_epi32(these, those); /* words are equal where both halves are */
        __m128i equal = _mm_and_si128(halves, _mm_shuffle_epi32(halves, _MM_SHUFFLE(2, 3, 0, 1)));
        bits |= (unsigned)_mm_movemask_pd(_mm_castsi128_pd(equal)) << i;
    }
    return bits ^ 0xff;
#else
    for (unsigned i = 0; i < GROUP_WORDS; i++, words += WORD_BYTES)
        bits |= (unsigned)(word_at(words) != word_at(words - WORD_BYTES)) << i;
    return bits;
#endif
}

/* Which words of a page differ from the one before; returns how many. */
static size_t mask_make(const uint8_t *page, uint8_t mask[static MASK_BYTES])
{
    uint8_t first[WORD_BYTES + GROUP_BYTES] = {0};
    memcpy(first + WORD_BYTES, page, GROUP_BYTES);
    mask[0] = (uint8_t)group_mask(first + WORD_BYTES);
    for (size_t g = 1; g < MASK_BYTES; g++)
        mask[g] = (uint8_t)group_mask(page + g * GROUP_BYTES);
    return mask_kept(mask);
}

/* Returns where it ended. Writes no further than the page is long. */
static uint8_t *keep_words(const uint8_t *page, const uint8_t mask[static MASK_BYTES], uint8_t *out)
{
    for (size_t g = 0; g < MASK_BYTES; g++, page += GROUP_BYTES) {
        if (mask[g] == 0xff) {
            memcpy(out, page, GROUP_BYTES);
            out += GROUP_BYTES;
            continue;
        }
        for (unsigned bits = mask[g]; bits; bits &= bits - 1, out += WORD_BYTES)
            memcpy(out, page + (unsigned)__builtin_ctz(bits) * WORD_BYTES, WORD_BYTES);
    }
    return out;
}

size_t fold(const uint8_t *pages, size_t count, uint8_t *out)
{
    uint8_t masks[FOLD_PAGES_MAX][MASK_BYTES];
    uint64_t folded = 0;
    size_t gone = 0;
    for (size_t i = 0; i < count; i++) {
        size_t kept = mask_make(pages + i * PAGE_BYTES, masks[i]);
        if (kept > KEPT_MAX)
            continue;
        folded |= UINT64_C(1) << i;
        gone += PAGE_BYTES - kept * WORD_BYTES - MASK_BYTES;
    }
    if (gone < count * PAGE_BYTES / GAIN_SHARE)
        return 0;
    uint8_t *at = out;
    for (size_t i = 0; i < FLAG_BYTES; i++)
        *at++ = (uint8_t)(folded >> i * 8);
    for (size_t i = 0; i < count; i++) {
        if (!(folded >> i & 1))
            continue;
        memcpy(at, masks[i], MASK_BYTES);
        at += MASK_BYTES;
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *page = pages + i * PAGE_BYTES;
        if (folded >> i & 1) {
            at = keep_words(page, masks[i], at);
        } else {
            memcpy(at, page, PAGE_BYTES);
            at += PAGE_BYTES;
        }
    }
    return (size_t)(at - out);
}

static void group_fill(uint8_t *group, uint64_t word)
{
    uint64_t words[GROUP_WORDS] = {word, word, word, word, word, word, word, word};
    memcpy(group, words, sizeof words);
}

/* `words`: as many as the mask keeps. */
static void page_unfold(const uint8_t mask[static MASK_BYTES], const uint8_t *words, uint8_t *page)
{
    uint64_t word = 0;
    for (size_t g = 0; g < MASK_BYTES; g++, page += GROUP_BYTES) {
        if (mask[g] == 0) {
            group_fill(page, word);
            continue;
        }
        if (mask[g] == 0xff) {
            memcpy(page, words, GROUP_BYTES);
            words += GROUP_BYTES;
            word = word_at(words - WORD_BYTES);
            continue;
        }
        for (unsigned i = 0, bits = mask[g]; i < GROUP_WORDS; i++, bits >>= 1) {
            if (bits & 1) {
                word = word_at(words);
                words += WORD_BYTES;
            }
            memcpy(page + i * WORD_BYTES, &word, WORD_BYTES);
        }
    }
}

int unfold(const uint8_t *data, size_t len, size_t count, uint8_t *out)
{
    uint64_t folded = 0;
    if (len < FLAG_BYTES || count > FOLD_PAGES_MAX)
        return -1;
    for (size_t i = 0; i < FLAG_BYTES; i++)
        folded |= (uint64_t)data[i] << i * 8;
    if (count < FOLD_PAGES_MAX && folded >> count)
        return -1;
    const uint8_t *mask = data + FLAG_BYTES;
    size_t left = len - FLAG_BYTES, masks = (size_t)__builtin_popcountll(folded) * MASK_BYTES;
    if (left < masks)
        return -1;
    const uint8_t *contents = mask + masks;
    left -= masks;
    for (size_t i = 0; i < count; i++, out += PAGE_BYTES) {
        bool is_folded = folded >> i & 1;
        size_t bytes = is_folded ? mask_kept(mask) * WORD_BYTES : PAGE_BYTES;
        if (left < bytes)
            return -1;
        if (is_folded) {
            page_unfold(mask, contents, out);
            mask += MASK_BYTES;
        } else {
            memcpy(out, contents, PAGE_BYTES);
        }
        contents += bytes;
        left -= bytes;
    }
    return left == 0 ? 0 : -1;
}
