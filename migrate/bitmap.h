/* A set of pages. Owner: whoever made it with bitmap_new(). Not thread safe; several threads may read while nobody
 * writes. */
#ifndef MIGRATE_BITMAP_H
#define MIGRATE_BITMAP_H

#include <endian.h>
#include <stdbool.h>
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

/* The next run of set bits at or after `from`: [*first, *end). False: there is none. */
static inline bool bitmap_next_run(const struct bitmap *map, size_t from, size_t *first, size_t *end)
{
    while (from < map->bits && !bitmap_test(map, from))
        from = map->words[from / 64] >> (from % 64) ? from + 1 : (from / 64 + 1) * 64;
    if (from >= map->bits)
        return false;
    *first = from;
    while (from < map->bits && bitmap_test(map, from))
        from = from % 64 == 0 && map->words[from / 64] == UINT64_MAX ? from + 64 : from + 1;
    *end = from < map->bits ? from : map->bits;
    return true;
}

/* Sets the bits between runs that lie no more than `gap` apart; returns how many runs are left. */
static inline size_t bitmap_close_gaps(struct bitmap *map, size_t gap)
{
    size_t runs = 0, first, end = 0, last = 0;
    while (bitmap_next_run(map, end, &first, &end)) {
        if (runs > 0 && first - last <= gap)
            bitmap_set_range(map, last, first);
        else
            runs++;
        last = end;
    }
    return runs;
}

/* Words as they travel: 8 bytes each, little endian. */
static inline void bitmap_pack(const uint64_t *words, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t word = htole64(words[i]);
        memcpy(out + i * sizeof word, &word, sizeof word);
    }
}

static inline void bitmap_unpack(const uint8_t *data, size_t count, uint64_t *words)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t word;
        memcpy(&word, data + i * sizeof word, sizeof word);
        words[i] = le64toh(word);
    }
}

#endif
