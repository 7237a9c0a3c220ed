#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

static void quote_escapes(void **state)
{
    (void)state;
    char out[64];
    assert_string_equal(log_quote("plain", out, sizeof out), "\"plain\"");
    assert_string_equal(log_quote("a \"b\" \\c", out, sizeof out), "\"a \\\"b\\\" \\\\c\"");
    assert_string_equal(log_quote("", out, sizeof out), "\"\"");
    assert_string_equal(log_quote(NULL, out, sizeof out), "\"\"");
}

/* A log line forged by a line end in a name would be a lie in somebody's evidence. */
static void quote_keeps_one_line(void **state)
{
    (void)state;
    char out[64];
    assert_string_equal(log_quote("a\nlevel=error\r\x1b[31m\x7f", out, sizeof out), "\"a level=error  [31m \"");
}

static void quote_cuts_to_fit(void **state)
{
    (void)state;
    for (size_t size = 4; size < 24; size++) {
        char out[32];
        memset(out, '#', sizeof out);
        log_quote("\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"", out, size);
        size_t len = strlen(out);
        assert_true(len < size);
        assert_int_equal(out[0], '"');
        assert_int_equal(out[len - 1], '"');
        assert_int_equal(len % 2, 0); /* no escape cut in the middle */
        assert_int_equal(out[size], '#');
    }
}

static void levels_by_name(void **state)
{
    (void)state;
    assert_int_equal(log_level_parse("error"), LOG_ERROR);
    assert_int_equal(log_level_parse("debug"), LOG_DEBUG);
    assert_int_equal(log_level_parse("loud"), -1);
    assert_int_equal(log_level_parse(""), -1);
}

/* What log_event() writes to stderr. */
static void capture(enum log_level limit, enum log_level level, const char *text, char *out, size_t size)
{
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_setup("test", limit);
    log_event(level, "thing.happened", "text=%s", text);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    size_t len = 0;
    ssize_t n;
    while ((n = read(ends[0], out + len, size - 1 - len)) > 0)
        len += (size_t)n;
    close(ends[0]);
    out[len] = '\0';
}

static void event_is_one_line_of_fields(void **state)
{
    (void)state;
    char line[4096];
    capture(LOG_INFO, LOG_WARN, "x", line, sizeof line);
    assert_memory_equal(line, "time=20", 7);
    assert_non_null(strstr(line, "Z level=warn program=test event=thing.happened text=x\n"));
    capture(LOG_INFO, LOG_DEBUG, "x", line, sizeof line);
    assert_string_equal(line, "");
}

static void long_event_is_cut_but_ends(void **state)
{
    (void)state;
    char text[5000], line[8192];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    capture(LOG_INFO, LOG_INFO, text, line, sizeof line);
    assert_int_equal(strlen(line), 2048);
    assert_int_equal(line[2047], '\n');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quote_escapes),
        cmocka_unit_test(quote_keeps_one_line),
        cmocka_unit_test(quote_cuts_to_fit),
        cmocka_unit_test(levels_by_name),
        cmocka_unit_test(event_is_one_line_of_fields),
        cmocka_unit_test(long_event_is_cut_but_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
