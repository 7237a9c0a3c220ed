/* Commands of whoever speaks on the control socket: what is understood, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "migrate/control.h"

static int parse(const char *text, struct err *err, struct control_command *out)
{
    json_t *message = json_loads(text, 0, NULL);
    assert_non_null(message);
    int rc = control_parse(message, err, out);
    json_decref(message);
    return rc;
}

static void test_commands_are_understood(void **state)
{
    static const struct {
        const char *text;
        struct control_command command;
    } rows[] = {
        {"{\"command\":\"cancel\"}", {CONTROL_CANCEL, 0}},
        {"{\"command\":\"bandwidth\",\"bytes_per_s\":12500000}", {CONTROL_BANDWIDTH, 12500000}},
        {"{\"command\":\"bandwidth\",\"bytes_per_s\":0}", {CONTROL_BANDWIDTH, 0}},
        {"{\"command\":\"bandwidth\",\"bytes_per_s\":1099511627776}", {CONTROL_BANDWIDTH, UINT64_C(1) << 40}},
        {"{\"command\":\"cpu\",\"millicores\":500}", {CONTROL_CPU, 500}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err;
        struct control_command command = {.verb = CONTROL_CANCEL, .amount = 77};
        assert_int_equal(parse(rows[i].text, &err, &command), 0);
        assert_int_equal(command.verb, rows[i].command.verb);
        assert_int_equal(command.amount, rows[i].command.amount);
    }
}

static void test_the_rest_is_refused_and_says_why(void **state)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"{}", "the commands are"},
        {"[]", "the commands are"},
        {"{\"command\":\"stop\"}", "the commands are"},
        {"{\"command\":7}", "the commands are"},
        {"{\"command\":\"bandwidth\"}", "bytes_per_s"},
        {"{\"command\":\"bandwidth\",\"bytes_per_s\":-1}", "bytes_per_s"},
        {"{\"command\":\"bandwidth\",\"bytes_per_s\":\"1\"}", "bytes_per_s"},
        {"{\"command\":\"bandwidth\",\"bytes_per_s\":1.5}", "bytes_per_s"},
        {"{\"command\":\"bandwidth\",\"bytes_per_s\":1099511627777}", "bytes_per_s"},
        {"{\"command\":\"cpu\",\"bytes_per_s\":1}", "millicores"},
        {"{\"command\":\"cpu\",\"millicores\":1000001}", "millicores"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err;
        struct control_command command = {.verb = CONTROL_CPU, .amount = 77};
        assert_int_equal(parse(rows[i].text, &err, &command), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, rows[i].why));
        assert_int_equal(command.amount, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_are_understood),
        cmocka_unit_test(test_the_rest_is_refused_and_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
