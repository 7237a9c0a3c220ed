/* The map of numbers to structs, beside a plain array that says what should be in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/idmap.h"

#define ITEMS 3000

struct item {
    int number;
    struct idmap_node node;
    bool in;
};

static struct item items[ITEMS];

/* Keys that share their low bits, so that buckets fill up. */
static uint64_t key_of(size_t i)
{
    return (uint64_t)i * 64 + (i % 3);
}

static void check(const struct idmap *map)
{
    size_t count = 0;
    for (size_t i = 0; i < ITEMS; i++) {
        struct idmap_node *node = idmap_find(map, key_of(i));
        assert_int_equal(node != NULL, items[i].in);
        if (node)
            assert_int_equal(IDMAP_ENTRY(node, struct item, node)->number, (int)i);
        count += items[i].in;
    }
    assert_int_equal(map->count, count);
}

static void test_add_find_remove(void **state)
{
    (void)state;
    struct idmap map = {0};
    assert_null(idmap_find(&map, 0));
    uint32_t random = 1;
    for (int step = 0; step < 20000; step++) {
        random = random * 1664525 + 1013904223;
        size_t i = (random >> 8) % ITEMS;
        items[i].number = (int)i;
        if (items[i].in)
            idmap_remove(&map, &items[i].node);
        else
            idmap_add(&map, key_of(i), &items[i].node);
        items[i].in = !items[i].in;
        if (step % 1000 == 0)
            check(&map);
    }
    check(&map);
    for (size_t i = 0; i < ITEMS; i++)
        if (items[i].in)
            idmap_remove(&map, &items[i].node);
    idmap_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_add_find_remove)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
