#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/migrate/memory_file.h"

static void test_allocated_pages_are_listed(void **state)
{
    (void)state;
    struct ram ram = memory_file(300);
    struct bitmap map = bitmap_new(ram.pages);
    struct err err;
    static const size_t used[] = {0, 1, 77, 128, 299};
    for (size_t i = 0; i < 5; i++)
        memory_fill(&ram, used[i], 1);
    assert_int_equal(ram_allocated(&ram, &err, &map), 0);
    assert_int_equal(bitmap_count(&map), 5);
    for (size_t i = 0; i < 5; i++)
        assert_true(bitmap_test(&map, used[i]));
    bitmap_free(&map);
    ram_close(&ram);
}

static void test_reading_holes_allocates_nothing(void **state)
{
    (void)state;
    struct ram ram = memory_file(64);
    struct bitmap map = bitmap_new(ram.pages);
    struct err err;
    char pages[4 * PAGE_BYTES];
    assert_int_equal(ram_read(&ram, 8, 4, &err, pages), 0);
    assert_true(page_is_zero(pages) && page_is_zero(pages + 3 * PAGE_BYTES));
    assert_int_equal(ram_allocated(&ram, &err, &map), 0);
    assert_int_equal(bitmap_count(&map), 0);
    bitmap_free(&map);
    ram_close(&ram);
}

static void test_hash_sees_content_not_allocation(void **state)
{
    (void)state;
    struct ram a = memory_file(200), b = memory_file(200);
    struct err err;
    char hash_a[RAM_HASH_TEXT], hash_b[RAM_HASH_TEXT], zeros[PAGE_BYTES] = {0};
    for (size_t page = 0; page < 200; page += 3) {
        memory_fill(&a, page, 7);
        memory_fill(&b, page, 7);
    }
    assert_int_equal(ram_write(&a, 100, 1, zeros, &err), 0); /* zero in both: allocated here, a hole there */
    assert_int_equal(ram_hash(&a, &err, hash_a), 0);
    assert_int_equal(ram_hash(&b, &err, hash_b), 0);
    assert_string_equal(hash_a, hash_b);

    memory_fill(&b, 101, 7); /* one more page */
    assert_int_equal(ram_hash(&b, &err, hash_b), 0);
    assert_string_not_equal(hash_a, hash_b);
    assert_int_equal(ram_punch(&b, 101, 1, &err), 0);
    assert_int_equal(ram_hash(&b, &err, hash_b), 0);
    assert_string_equal(hash_a, hash_b);

    memory_fill(&b, 0, 8); /* other content */
    assert_int_equal(ram_hash(&b, &err, hash_b), 0);
    assert_string_not_equal(hash_a, hash_b);
    ram_close(&a);
    ram_close(&b);
}

static void test_zero_page(void **state)
{
    (void)state;
    uint64_t page[PAGE_BYTES / 8] = {0};
    assert_true(page_is_zero(page));
    for (size_t i = 0; i < PAGE_BYTES; i += 13) {
        ((uint8_t *)page)[i] = 1;
        assert_false(page_is_zero(page));
        ((uint8_t *)page)[i] = 0;
    }
}

static void test_wrong_size_is_refused(void **state)
{
    (void)state;
    struct ram ram;
    struct err err;
    assert_int_equal(ram_open("/dev/null", 4096, &err, &ram), -1);
    assert_int_equal(ram_open("/nonexistent/ram", 4096, &err, &ram), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(ram_open("/dev/null", 4097, &err, &ram), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocated_pages_are_listed),
        cmocka_unit_test(test_reading_holes_allocates_nothing),
        cmocka_unit_test(test_hash_sees_content_not_allocation),
        cmocka_unit_test(test_zero_page),
        cmocka_unit_test(test_wrong_size_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
