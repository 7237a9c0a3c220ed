/* A map from numbers to structs that embed a node: requests under way by id, sessions by routing id. It owns nothing
 * but its buckets; zero-initialize it, idmap_free() it once it is empty. */
#ifndef PROTO_IDMAP_H
#define PROTO_IDMAP_H

#include <stddef.h>
#include <stdint.h>

struct idmap_node {
    uint64_t key;
    struct idmap_node *next;
};

struct idmap {
    struct idmap_node **buckets;
    size_t bucket_count; /* a power of two, or 0 while nothing was ever added */
    size_t count;
};

/* Adds `node` under `key`, which must not be in the map. The node is lent until it is removed. */
void idmap_add(struct idmap *map, uint64_t key, struct idmap_node *node);
/* NULL when there is none. */
struct idmap_node *idmap_find(const struct idmap *map, uint64_t key);
/* Removes a node that is in the map. */
void idmap_remove(struct idmap *map, struct idmap_node *node);
void idmap_free(struct idmap *map);

#define IDMAP_ENTRY(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#endif
