/* What is announced is what a listener learns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "migrate/addresses.h"
#include "migrate/announce.h"

static struct err err;

static struct neighbour of(const char *line)
{
    struct neighbour n;
    assert_int_equal(neighbour_parse(line, strlen(line), &err, &n), 0);
    return n;
}

static void test_a_listener_learns_the_address(void **state)
{
    (void)state;
    static const char *const lines[] = {"52:54:00:12:34:56 10.77.0.12", "52:54:00:12:34:56 fe80::5054:ff:fe12:3456",
        "52:54:00:12:34:56 2001:db8::1 router"};
    for (size_t i = 0; i < 3; i++) {
        uint8_t frame[ANNOUNCE_FRAME_MAX];
        struct neighbour n = of(lines[i]), learned;
        size_t len = announce_frame(&n, frame);
        assert_true(neighbour_learn(frame, len, &learned));
        assert_true(neighbour_equal(&n, &learned));
        assert_false(neighbour_learn(frame, 30, &learned));
    }
}

static void test_an_advertisement_is_valid(void **state)
{
    (void)state;
    uint8_t frame[ANNOUNCE_FRAME_MAX];
    struct neighbour n = of("52:54:00:12:34:56 fe80::1");
    size_t len = announce_frame(&n, frame);
    assert_int_equal(len, 86);
    uint32_t sum = 32 + 58; /* over everything, the checksum included, it comes to all ones */
    for (size_t i = 22; i < len; i += 2)
        sum += (uint32_t)frame[i] << 8 | frame[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    assert_int_equal(sum, 0xffff);
    assert_int_equal(frame[58], 0x20); /* overrides, is not solicited, no router */
}

static void test_only_what_is_the_guests_is_taken(void **state)
{
    (void)state;
    static struct addresses taken;
    char *lines[] = {(char *)"52:54:00:00:00:01 10.0.0.1", (char *)"52:54:00:00:00:02 10.0.0.2", (char *)"nonsense",
        (char *)"52:54:00:00:00:03 fe80::3 router"};
    addresses_take(lines, 4, "52:54:00:00:00:01\n52:54:00:00:00:03", &taken);
    assert_int_equal(taken.count, 2);
    assert_string_equal(taken.lines[0], lines[0]);
    assert_string_equal(taken.lines[1], lines[3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_listener_learns_the_address),
        cmocka_unit_test(test_an_advertisement_is_valid),
        cmocka_unit_test(test_only_what_is_the_guests_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
