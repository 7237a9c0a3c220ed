#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/neighbour.h"

static struct err err;

static void test_lines(void **state)
{
    (void)state;
    static const char *const good[] = {"52:54:00:12:34:56 10.0.0.1", "02:00:00:00:00:01 fe80::1 router"};
    static const char *const bad[] = {"", "52:54:00:12:34:56", "52:54:00:12:34:5 10.0.0.1",
        "53:54:00:12:34:56 10.0.0.1", "52:54:00:12:34:56 10.0.0.256", "52:54:00:12:34:56 224.0.0.1",
        "52:54:00:12:34:56 0.0.0.0", "52:54:00:12:34:56 ff02::1",
        "52:54:00:12:34:56 ::", "52:54:00:12:34:56 10.0.0.1 host", "52:54:00:12:34:56 10.0.0.1 router x",
        "52:54:00:12:34:56 10.0.0.1\0x"};
    struct neighbour n;
    char text[NEIGHBOUR_TEXT_MAX], long_line[500];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(neighbour_parse(good[i], strlen(good[i]), &err, &n), 0);
        assert_string_equal(neighbour_print(&n, text), good[i]);
    }
    for (size_t i = 0; i + 1 < sizeof bad / sizeof *bad; i++)
        assert_int_equal(neighbour_parse(bad[i], strlen(bad[i]), &err, &n), -1);
    assert_int_equal(neighbour_parse(bad[sizeof bad / sizeof *bad - 1], 28, &err, &n), -1);
    memset(long_line, 'x', sizeof long_line);
    assert_int_equal(neighbour_parse(long_line, sizeof long_line, &err, &n), -1);
}

static void test_frames_that_say_nothing(void **state)
{
    (void)state;
    uint8_t frame[128] = {0};
    struct neighbour n;
    for (size_t len = 0; len <= sizeof frame; len++)
        assert_false(neighbour_learn(frame, len, &n));
    static const uint8_t probe[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6,
        4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 0, 0, 0, 0}; /* sender's address unspecified: it only asks */
    assert_false(neighbour_learn(probe, sizeof probe, &n));
    memcpy(frame, probe, sizeof probe);
    frame[28] = 10;
    frame[31] = 7;
    assert_true(neighbour_learn(frame, 42, &n));
    frame[27] = 2; /* speaks for another card */
    assert_false(neighbour_learn(frame, 42, &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_frames_that_say_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
