#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "migrate/pack.h"

static uint8_t raw[PACK_BYTES_MAX], packed[PACK_BYTES_MAX], back[PACK_BYTES_MAX];

static void what_is_packed_comes_back(void **state)
{
    (void)state;
    struct err err;
    memset(raw, 0, sizeof raw);
    memcpy(raw + 1000, "virtio", 6);
    size_t len = pack(raw, sizeof raw, packed);
    assert_in_range(len, 1, 2000);
    const uint8_t *got = unpack(packed, len, sizeof raw, &err, back);
    assert_ptr_equal(got, back);
    assert_memory_equal(back, raw, sizeof raw);
}

static void what_does_not_shrink_goes_as_it_is(void **state)
{
    (void)state;
    struct err err;
    const uint8_t noise[] = {7, 1, 200, 33, 90, 4, 18, 77, 250, 3};
    assert_int_equal(pack(noise, sizeof noise, packed), 0);
    assert_ptr_equal(unpack(noise, sizeof noise, 0, &err, back), noise);
}

static void nothing_is_no_piece(void **state)
{
    (void)state;
    struct err err = {0};
    assert_null(unpack(NULL, 0, 0, &err, back));
    assert_int_equal(err.code, ERR_PROTOCOL);
    err.code = ERR_NONE;
    assert_null(unpack(packed, 0, 1, &err, back));
    assert_int_equal(err.code, ERR_PROTOCOL);
}

static void lengths_that_lie_are_refused(void **state)
{
    (void)state;
    struct err err;
    memset(raw, 5, 4096);
    size_t len = pack(raw, 4096, packed);
    assert_int_not_equal(len, 0);
    assert_null(unpack(packed, len, 4095, &err, back));
    assert_null(unpack(packed, len, 4097, &err, back));
    assert_null(unpack(packed, len - 1, 4096, &err, back));
    assert_null(unpack(packed, len, PACK_BYTES_MAX + 1, &err, back));
    assert_null(unpack(packed, PACK_BYTES_MAX + 1, 0, &err, back));
    assert_int_equal(err.code, ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_comes_back),
        cmocka_unit_test(what_does_not_shrink_goes_as_it_is),
        cmocka_unit_test(nothing_is_no_piece),
        cmocka_unit_test(lengths_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
