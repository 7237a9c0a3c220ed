#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include <cmocka.h>

#include "base/err.h"

static void set_fills_and_fails(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_BUSY, "vm %s has job %d", "web", 7), -1);
    assert_int_equal(err.code, ERR_BUSY);
    assert_string_equal(err.message, "vm web has job 7");
    assert_int_equal(err_set(NULL, ERR_BUSY, "nobody asks"), -1);
}

static void errno_text_is_appended(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_errno(&err, ERR_NOT_FOUND, ENOENT, "cannot open %s", "x"), -1);
    assert_string_equal(err.message, "cannot open x: No such file or directory");
    assert_int_equal(err_errno(NULL, ERR_NOT_FOUND, ENOENT, "nobody asks"), -1);
}

static void wrap_puts_context_in_front(void **state)
{
    (void)state;
    struct err err = {0};
    err_set(&err, ERR_DENIED, "no leave");
    assert_int_equal(err_wrap(&err, "vm %s", "web"), -1);
    assert_int_equal(err_wrap(&err, "migrate"), -1);
    assert_string_equal(err.message, "migrate: vm web: no leave");
    assert_int_equal(err.code, ERR_DENIED);
    assert_int_equal(err_wrap(NULL, "nobody asks"), -1);
}

/* A foreign text may be of any length; the message is cut, never overrun. */
static void long_messages_are_cut(void **state)
{
    (void)state;
    char text[3 * ERR_MESSAGE_MAX];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct err err = {0};
    err_set(&err, ERR_INVALID, "%s", text);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
    err_errno(&err, ERR_INVALID, ENOENT, "%s", text);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
    err_wrap(&err, "%s", text);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
    err_set(&err, ERR_INVALID, "end");
    err_wrap(&err, "%s", text);
    assert_int_equal(strlen(err.message), ERR_MESSAGE_MAX - 1);
}

static void names_are_unique_and_lead_back(void **state)
{
    (void)state;
    for (int code = 0; code < ERR_COUNT; code++) {
        assert_int_equal(err_from_name(err_name((enum err_code)code)), code);
        assert_true(strlen(err_name((enum err_code)code)) > 0);
    }
    assert_string_equal(err_name(ERR_CONVERGENCE), "no-convergence");
    assert_int_equal(err_from_name("nonsense"), ERR_INTERNAL);
    assert_int_equal(err_from_name(NULL), ERR_INTERNAL);
}

static void foreign_codes_are_internal(void **state)
{
    (void)state;
    assert_string_equal(err_name((enum err_code)ERR_COUNT), "internal");
    assert_string_equal(err_name((enum err_code) - 1), "internal");
    assert_int_equal(err_exit_status((enum err_code)9999), err_exit_status(ERR_INTERNAL));
    assert_false(err_retryable((enum err_code) - 5));
}

static void only_success_exits_with_zero(void **state)
{
    (void)state;
    assert_int_equal(err_exit_status(ERR_NONE), 0);
    for (int code = 1; code < ERR_COUNT; code++)
        assert_int_not_equal(err_exit_status((enum err_code)code), 0);
    assert_true(err_retryable(ERR_NOT_LEADER));
    assert_false(err_retryable(ERR_INVALID));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_fills_and_fails),
        cmocka_unit_test(errno_text_is_appended),
        cmocka_unit_test(wrap_puts_context_in_front),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(names_are_unique_and_lead_back),
        cmocka_unit_test(foreign_codes_are_internal),
        cmocka_unit_test(only_success_exits_with_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
