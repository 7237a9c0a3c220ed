#include "proto/idmap.h"

#include "base/buf.h"
#include "base/ensure.h"

#define IDMAP_BUCKETS_MIN 64

/* Keys are counters: their low bits spread well as they are. */
static struct idmap_node **idmap_bucket(const struct idmap *map, uint64_t key)
{
    return &map->buckets[key & (map->bucket_count - 1)];
}

static void idmap_grow(struct idmap *map)
{
    struct idmap grown = {.bucket_count = map->bucket_count ? map->bucket_count * 2 : IDMAP_BUCKETS_MIN};
    grown.buckets = mem_zalloc(grown.bucket_count * sizeof(struct idmap_node *));
    for (size_t i = 0; i < map->bucket_count; i++) {
        while (map->buckets[i]) {
            struct idmap_node *node = map->buckets[i];
            map->buckets[i] = node->next;
            struct idmap_node **bucket = idmap_bucket(&grown, node->key);
            node->next = *bucket;
            *bucket = node;
        }
    }
    free(map->buckets);
    map->buckets = grown.buckets;
    map->bucket_count = grown.bucket_count;
}

void idmap_add(struct idmap *map, uint64_t key, struct idmap_node *node)
{
    ENSURE(idmap_find(map, key) == NULL);
    if (map->count >= map->bucket_count)
        idmap_grow(map);
    struct idmap_node **bucket = idmap_bucket(map, key);
    node->key = key;
    node->next = *bucket;
    *bucket = node;
    map->count++;
}

struct idmap_node *idmap_find(const struct idmap *map, uint64_t key)
{
    if (map->bucket_count == 0)
        return NULL;
    struct idmap_node *node = *idmap_bucket(map, key);
    while (node && node->key != key)
        node = node->next;
    return node;
}

void idmap_remove(struct idmap *map, struct idmap_node *node)
{
    ENSURE(map->count > 0);
    struct idmap_node **at = idmap_bucket(map, node->key);
    while (*at && *at != node)
        at = &(*at)->next;
    ENSURE(*at == node);
    *at = node->next;
    node->next = NULL;
    map->count--;
}

void idmap_free(struct idmap *map)
{
    ENSURE(map->count == 0);
    free(map->buckets);
    *map = (struct idmap){0};
}
