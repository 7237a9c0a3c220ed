/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "base/mac.h"

static void the_address_of_one_card(void **unused)
{
    (void)unused;
    uint8_t mac[MAC_BYTES];
    assert_true(mac_parse("52:54:00:12:34:56", mac));
    assert_memory_equal(mac, ((uint8_t[]){0x52, 0x54, 0, 0x12, 0x34, 0x56}), MAC_BYTES);
    assert_true(mac_parse("AA:bb:Cc:dD:EE:ff", mac));
    assert_memory_equal(mac, ((uint8_t[]){0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}), MAC_BYTES);
    assert_true(mac_parse("00:00:00:00:00:01", mac));
}

static void anything_else_is_refused_and_changes_nothing(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"", "5", "52", "52:", "52:54:00:12:34", "52:54:00:12:34:", "52:54:00:12:34:5",
        "52:54:00:12:34:567", "52:54:00:12:34:56:", "52:54:00:12:34:56 ", " 52:54:00:12:34:56", "52-54-00-12-34-56",
        "52:54:00:12:34:5g", "52:54:00:12:34:5G", "525400123456", "5::54:00:12:34:56", "52:54:00:12:34:+6",
        "52:54:00:12:34:0x", "52:54:00:1@:34:56", "52:54:00:12:34:\xc3\xa4",
        /* of many stations, of none */
        "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "00:00:00:00:00:00"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t mac[MAC_BYTES] = {1, 2, 3, 4, 5, 6};
        assert_false(mac_parse(bad[i], mac));
        assert_memory_equal(mac, ((uint8_t[]){1, 2, 3, 4, 5, 6}), MAC_BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_address_of_one_card),
        cmocka_unit_test(anything_else_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
