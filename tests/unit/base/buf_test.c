#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"

static void grows_and_keeps(void **state)
{
    (void)state;
    struct buf b = {0};
    for (unsigned i = 0; i < 10000; i++)
        buf_append(&b, &i, sizeof i);
    assert_int_equal(b.len, 10000 * sizeof(unsigned));
    for (unsigned i = 0; i < 10000; i++)
        assert_memory_equal(b.data + i * sizeof i, &i, sizeof i);
    buf_free(&b);
    assert_null(b.data);
    buf_free(&b);
}

static void appending_nothing_is_fine(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append(&b, NULL, 0);
    assert_int_equal(b.len, 0);
    assert_string_equal(buf_str(&b), "");
    buf_free(&b);
}

static void printf_appends(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_printf(&b, "%s-%d", "a", 1);
    buf_printf(&b, "%0500d", 7);
    assert_int_equal(b.len, 503);
    assert_memory_equal(buf_str(&b), "a-1000", 6);
    assert_int_equal(buf_str(&b)[502], '7');
    buf_free(&b);
}

static void consume_drops_the_front(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append(&b, "abcdef", 6);
    buf_consume(&b, 2);
    assert_string_equal(buf_str(&b), "cdef");
    buf_consume(&b, 0);
    buf_consume(&b, 4);
    assert_int_equal(b.len, 0);
    buf_append(&b, "x", 1);
    assert_string_equal(buf_str(&b), "x");
    buf_free(&b);
}

static void str_is_not_counted(void **state)
{
    (void)state;
    struct buf b = {0};
    for (size_t i = 0; i < 200; i++) { /* at every fill level, also a full one */
        assert_int_equal(strlen(buf_str(&b)), i);
        assert_int_equal(b.len, i);
        buf_append(&b, "x", 1);
    }
    buf_free(&b);
}

static void reserve_leaves_length(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append(&b, "ab", 2);
    memcpy(buf_reserve(&b, 100), "cd", 2);
    assert_int_equal(b.len, 2);
    b.len += 2;
    assert_string_equal(buf_str(&b), "abcd");
    buf_free(&b);
}

static void mem_never_returns_null(void **state)
{
    (void)state;
    void *a = mem_alloc(0), *z = mem_zalloc(0);
    assert_non_null(a);
    assert_non_null(z);
    a = mem_realloc(a, 0);
    assert_non_null(a);
    char *text = mem_printf("%s%d", "x", 1), *copy = mem_strdup(text);
    assert_string_equal(copy, "x1");
    free(a);
    free(z);
    free(text);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_keeps),
        cmocka_unit_test(appending_nothing_is_fine),
        cmocka_unit_test(printf_appends),
        cmocka_unit_test(consume_drops_the_front),
        cmocka_unit_test(str_is_not_counted),
        cmocka_unit_test(reserve_leaves_length),
        cmocka_unit_test(mem_never_returns_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
