/* Small pure parts: rates, the verdict on KVM, ranges of the console, text, names of taps, options. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <string.h>

#include "hostd/console.h"
#include "hostd/hypervisor/qemu/probe.h"
#include "hostd/net.h"
#include "hostd/options.h"
#include "hostd/rates.h"
#include "hostd/text.h"

#define SECOND 1000000000ull

static void rates_over_time(void **unused)
{
    (void)unused;
    struct rate r = {0};
    assert_true(rate_update(&r, 5000, 10 * SECOND) == 0); /* what was before is not known */
    assert_true(rate_update(&r, 5100, 11 * SECOND) == 100);
    assert_true(rate_update(&r, 5200, 13 * SECOND) == 50); /* a late look spreads it */
    assert_true(rate_update(&r, 5300, 13 * SECOND) == 0);  /* no time has passed */
    assert_true(rate_update(&r, 10, 14 * SECOND) == 0);    /* started over */
    assert_true(rate_update(&r, 20, 15 * SECOND) == 10);
}

static void verdicts_on_kvm(void **unused)
{
    (void)unused;
    char reason[256];
    struct probe_result native = {.outcome = PROBE_RAN, .instruction_ns = 3.1};
    struct probe_result emulated = {.outcome = PROBE_RAN, .instruction_ns = 1400};
    struct probe_result missing = {.outcome = PROBE_NO_DEVICE, .error = ENOENT};
    struct probe_result broken = {.outcome = PROBE_BROKEN, .error = EPERM, .step = "KVM_CREATE_VM"};
    struct probe_result late = {.outcome = PROBE_TIMED_OUT};
    assert_string_equal(probe_verdict("auto", &native, sizeof reason, reason), "kvm");
    assert_string_equal(probe_verdict("auto", &emulated, sizeof reason, reason), "tcg");
    assert_non_null(strstr(reason, "1400 ns"));
    assert_string_equal(probe_verdict("auto", &missing, sizeof reason, reason), "tcg");
    assert_string_equal(probe_verdict("auto", &broken, sizeof reason, reason), "tcg");
    assert_non_null(strstr(reason, "KVM_CREATE_VM"));
    assert_string_equal(probe_verdict("auto", &late, sizeof reason, reason), "tcg");
    assert_string_equal(probe_verdict("kvm", &emulated, sizeof reason, reason), "kvm");
    assert_string_equal(probe_verdict("tcg", &native, sizeof reason, reason), "tcg");
}

static void console_ranges(void **unused)
{
    (void)unused;
    struct console_range r = console_range(100, 0, 0);
    assert_true(r.offset == 0 && r.bytes == 100);
    r = console_range(100, 90, 5);
    assert_true(r.offset == 90 && r.bytes == 5);
    r = console_range(100, 100, 5);
    assert_true(r.offset == 100 && r.bytes == 0);
    r = console_range(100, 5000, 5); /* of a log of another host */
    assert_true(r.offset == 0 && r.bytes == 5);
    r = console_range(CONSOLE_KEPT_BYTES + 1000, 3, 10);
    assert_true(r.offset == 1000 && r.bytes == 10);
    r = console_range(CONSOLE_KEPT_BYTES, 0, UINT32_MAX);
    assert_true(r.bytes > 0 && r.bytes <= CONSOLE_KEPT_BYTES);
}

static void text_is_made_printable(void **unused)
{
    (void)unused;
    char out[8];
    assert_string_equal(text_print(out, sizeof out, "a\nb\xff"), "a?b?");
    assert_string_equal(text_print(out, sizeof out, "longer than it"), "longer ");
    assert_true(text_hash("ab", "c", (char *)NULL) != text_hash("a", "bc", (char *)NULL));
}

static void taps_have_names_of_their_own(void **unused)
{
    (void)unused;
    char a[IF_NAMESIZE], b[IF_NAMESIZE];
    net_tap_name("/run/h1", "vm", 0, a);
    net_tap_name("/run/h1", "vm", 0, b);
    assert_string_equal(a, b);
    net_tap_name("/run/h1", "vm", 1, b);
    assert_string_not_equal(a, b);
    net_tap_name("/run/h2", "vm", 0, b);
    assert_string_not_equal(a, b);
    assert_true(strlen(a) < IF_NAMESIZE);
}

static void controllers_are_checked(void **unused)
{
    (void)unused;
    struct err err;
    struct peerlist_entry list[OPTIONS_CONTROLLERS_MAX];
    size_t count = 0;
    struct key_pair key;
    char text[KEY_TEXT], line[2 * KEY_TEXT + 80];
    assert_int_equal(key_generate(&err, &key), 0);
    key_format(key.public_key, text);
    snprintf(line, sizeof line, "%s tcp://10.0.0.1:7420\n%s  tcp://10.0.0.2:7420", text, text);
    struct options o = {.controllers = line};
    assert_int_equal(options_controllers(&o, &err, list, &count), 0);
    assert_int_equal(count, 2);
    assert_string_equal(list[1].address, "tcp://10.0.0.2:7420");
    assert_memory_equal(list[1].key, key.public_key, KEY_BYTES);
    char *bad[] = {(char *)"", (char *)"key-without-address", (char *)"short tcp://10.0.0.1:1", (char *)"x http://a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.controllers = bad[i];
        assert_int_equal(options_controllers(&o, &err, list, &count), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_over_time),
        cmocka_unit_test(verdicts_on_kvm),
        cmocka_unit_test(console_ranges),
        cmocka_unit_test(text_is_made_printable),
        cmocka_unit_test(taps_have_names_of_their_own),
        cmocka_unit_test(controllers_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
