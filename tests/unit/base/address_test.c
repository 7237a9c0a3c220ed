/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <netinet/in.h>
#include <string.h>

#include "base/address.h"

static struct err err;

static void what_is_read_prints_as_it_was(void **unused)
{
    (void)unused;
    static const char *const good[] = {"tcp://10.0.0.1:7420", "tcp://127.0.0.1:0", "tcp://255.255.255.255:65535",
        "tcp://[::1]:1", "tcp://[fd00::1:2]:7420", "tcp://[::ffff:10.0.0.1]:9"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct address a, bare;
        char text[ADDRESS_TEXT_MAX];
        assert_int_equal(address_parse(good[i], &err, &a), 0);
        assert_string_equal(address_print(&a, text), good[i]);
        assert_int_equal(address_parse_bare(good[i] + strlen("tcp://"), &err, &bare), 0);
        assert_true(address_equal(&a, &bare));
        assert_int_equal(address_parse_bare(good[i], &err, &bare), -1);
    }
}

static void anything_else_is_refused_and_changes_nothing(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"", "tcp://", "10.0.0.1:1", "udp://10.0.0.1:1", "TCP://10.0.0.1:1",
        "tcp://10.0.0.1", "tcp://10.0.0.1:", "tcp://10.0.0.1:x", "tcp://10.0.0.1:9x", "tcp://10.0.0.1: 9",
        "tcp://10.0.0.1:9 ", "tcp://10.0.0.1:-1", "tcp://10.0.0.1:+1", "tcp://10.0.0.1:65536", "tcp://10.0.0.1:000001",
        "tcp://10.0.0.1:18446744073709551617", "tcp://:1", "tcp://host:1", "tcp://*:1", "tcp://10.0.0:1",
        "tcp://10.0.0.256:1", "tcp://::1:5", "tcp://[::1:5", "tcp://[::1]", "tcp://[]:5", "tcp://[:5",
        "tcp://[10.0.0.1]:5", "tcp://[fe80::1%eth0]:5",
        "tcp://[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]:5"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct address a = {.port = 7};
        assert_int_equal(address_parse(bad[i], &err, &a), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, "tcp://IP:PORT"));
        assert_int_equal(a.port, 7);
    }
}

static void an_ip_becomes_an_address(void **unused)
{
    (void)unused;
    struct address a;
    char text[ADDRESS_TEXT_MAX];
    assert_int_equal(address_of_ip("10.0.0.2", 0, &err, &a), 0);
    assert_string_equal(address_print(&a, text), "tcp://10.0.0.2:0");
    assert_int_equal(address_of_ip("fd00:0::2", 9, &err, &a), 0);
    assert_string_equal(address_print(&a, text), "tcp://[fd00::2]:9");
    static const char *const bad[] = {"", "h1", "10.0.0", "10.0.0.1:1", "[fd00::2]", "fd00::2%eth0", " 10.0.0.1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(address_of_ip(bad[i], 0, &err, &a), -1);
}

static void the_same_place_however_it_is_written(void **unused)
{
    (void)unused;
    struct address a, b, c;
    assert_int_equal(address_parse("tcp://[fd00::1]:5", &err, &a), 0);
    assert_int_equal(address_parse("tcp://[FD00:0:0::0001]:00005", &err, &b), 0);
    assert_true(address_equal(&a, &b));
    assert_int_equal(address_parse("tcp://[fd00::1]:6", &err, &c), 0);
    assert_false(address_equal(&a, &c));
    assert_int_equal(address_parse("tcp://0.0.0.0:5", &err, &a), 0);
    assert_int_equal(address_parse("tcp://[::]:5", &err, &b), 0);
    assert_false(address_equal(&a, &b));
}

static void sockets_get_it_in_network_order(void **unused)
{
    (void)unused;
    struct address a;
    struct sockaddr_storage s;
    assert_int_equal(address_parse("tcp://10.0.0.1:258", &err, &a), 0);
    assert_int_equal(address_socket(&a, &s), sizeof(struct sockaddr_in));
    assert_int_equal(s.ss_family, AF_INET);
    assert_memory_equal(&((struct sockaddr_in *)&s)->sin_addr, ((uint8_t[]){10, 0, 0, 1}), 4);
    assert_memory_equal(&((struct sockaddr_in *)&s)->sin_port, ((uint8_t[]){1, 2}), 2);
    assert_int_equal(address_parse("tcp://[::1]:258", &err, &a), 0);
    assert_int_equal(address_socket(&a, &s), sizeof(struct sockaddr_in6));
    assert_int_equal(s.ss_family, AF_INET6);
    assert_memory_equal(&((struct sockaddr_in6 *)&s)->sin6_addr, &in6addr_loopback, 16);
    assert_memory_equal(&((struct sockaddr_in6 *)&s)->sin6_port, ((uint8_t[]){1, 2}), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read_prints_as_it_was),
        cmocka_unit_test(anything_else_is_refused_and_changes_nothing),
        cmocka_unit_test(an_ip_becomes_an_address),
        cmocka_unit_test(the_same_place_however_it_is_written),
        cmocka_unit_test(sockets_get_it_in_network_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
