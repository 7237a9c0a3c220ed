/* A set of pages. Owner: whoever made it with bitmap_new(). Not thread safe; several threads may read while nobody
 * writes. */
#ifndef MIGRATE_BITMAP_H
#define MIGRATE_BITMAP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct bitmap {
    uint64_t *words;
    size_t bits;
};

static inline size_t bitmap_words(const struct bitmap *map)
{
    return (map->bits + 63) / 64;
}

static inline struct bitmap bitmap_new(size_t bits)
{
    return (struct bitmap){mem_zalloc((bits + 63) / 64 * sizeof(uint64_t)), bits};
}

static inline void bitmap_free(struct bitmap *map)
{
    free(map->words);
    *map = (struct bitmap){0};
}

static inline void bitmap_set(struct bitmap *map, size_t bit)
{
    map->words[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static inline void bitmap_unset(struct bitmap *map, size_t bit)
{
    map->words[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

static inline bool bitmap_test(const struct bitmap *map, size_t bit)
{
    return map->words[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set_range(struct bitmap *map, size_t first, size_t end)
{
    for (; first < end && first % 64; first++)
        bitmap_set(map, first);
    for (; first + 64 <= end; first += 64)
        map->words[first / 64] = UINT64_MAX;
    for (; first < end; first++)
        bitmap_set(map, first);
}

static inline void bitmap_clear(struct bitmap *map)
{
    memset(map->words, 0, bitmap_words(map) * sizeof *map->words);
}

/* Adds all of `from`. */
static inline void bitmap_add(struct bitmap *map, const struct bitmap *from)
{
    for (size_t i = 0; i < bitmap_words(map); i++)
        map->words[i] |= from->words[i];
}

static inline size_t bitmap_count(const struct bitmap *map)
{
    size_t count = 0;
    for (size_t i = 0; i < bitmap_words(map); i++)
        count += (size_t)__builtin_popcountll(map->words[i]);
    return count;
}

#endif
