#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/cpulist.h"

static void test_lists_come_back_as_they_were(void **state)
{
    static const struct {
        const char *text, *back;
        int count;
    } rows[] = {{"", "", 0}, {"0", "0", 1}, {"0,2-3", "0,2-3", 3}, {"3,2,1", "1-3", 3}, {"5-5", "5", 1},
        {"1-2,2-4", "1-4", 4}, {"1023", "1023", 1}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cpu_set_t set;
        struct err err;
        assert_int_equal(cpulist_parse(rows[i].text, &err, &set), 0);
        assert_int_equal(CPU_COUNT(&set), rows[i].count);
        char *back = cpulist_format(&set);
        assert_string_equal(back, rows[i].back);
        free(back);
    }
}

static void test_nonsense_is_refused(void **state)
{
    static const char *const rows[] = {
        ",", "0,", "1-", "-1", "3-1", "a", "1 ", " 1", "0,,1", "1024", "0-1024", "1-2-3", "+1", "99999999999999999999"};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cpu_set_t set;
        struct err err;
        CPU_ZERO(&set);
        CPU_SET(7, &set);
        assert_int_equal(cpulist_parse(rows[i], &err, &set), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_true(CPU_COUNT(&set) == 1 && CPU_ISSET(7, &set));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_come_back_as_they_were),
        cmocka_unit_test(test_nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
