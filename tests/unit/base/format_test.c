#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/format.h"

static void bytes(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536, "1.5 KiB"}, {1u << 30, "1.0 GiB"},
        {200ull << 20, "200 MiB"}, {UINT64_MAX, "16.0 EiB"}};
    char out[FORMAT_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(format_bytes(cases[i].bytes, out), cases[i].text);
}

static void durations(void **state)
{
    (void)state;
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {{0, "0 ms"}, {999, "999 ms"}, {1000, "1.0 s"}, {4299, "4.2 s"}, {59999, "59.9 s"}, {60000, "1m00s"},
        {192000, "3m12s"}, {3600000, "1h00m"}, {86399999, "23h59m"}, {187200000, "2d04h"}};
    char out[FORMAT_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(format_duration_ms(cases[i].ms, out), cases[i].text);
    assert_true(strlen(format_duration_ms(UINT64_MAX, out)) < FORMAT_MAX);
}

static void times(void **state)
{
    (void)state;
    char out[FORMAT_MAX];
    assert_string_equal(format_time_ms(0, out), "1970-01-01T00:00:00Z");
    assert_string_equal(format_time_ms(1738324800999, out), "2025-01-31T12:00:00Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes), cmocka_unit_test(durations), cmocka_unit_test(times)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
