/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <string.h>

#include "proto/peerlist.h"

#define LIST_MAX 3

static struct err err;
static struct key_pair key;
static char key_text[KEY_TEXT];
static struct peerlist_entry list[LIST_MAX];
static size_t count;

/* Each '#' stands for a good key. */
static int parse(const char *pattern)
{
    char text[1024];
    size_t n = 0;
    for (const char *c = pattern; *c; c++)
        n += (size_t)snprintf(text + n, sizeof text - n, *c == '#' ? "%s" : "%.1s", *c == '#' ? key_text : c);
    text[n] = '\0';
    count = 77;
    return peerlist_parse(text, LIST_MAX, &err, list, &count);
}

static void one_a_line(void **unused)
{
    (void)unused;
    assert_int_equal(parse("# tcp://10.0.0.1:7420"), 0);
    assert_int_equal(count, 1);
    assert_string_equal(list[0].address, "tcp://10.0.0.1:7420");
    assert_memory_equal(list[0].key, key.public_key, KEY_BYTES);
    assert_int_equal(parse(" #\ttcp://10.0.0.1:7420\n#   tcp://[fd00::2]:7420 \n# tcp://10.0.0.3:1\n"), 0);
    assert_int_equal(count, 3);
    assert_string_equal(list[1].address, "tcp://[fd00::2]:7420");
    assert_string_equal(list[2].address, "tcp://10.0.0.3:1");
}

static void anything_else_is_refused(void **unused)
{
    (void)unused;
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"", "none is named"},
        {"x", "KEY tcp://IP:PORT"},
        {"#", "KEY tcp://IP:PORT"},
        {"# 10.0.0.1:7400", "tcp://IP:PORT"},
        {"# tcp://c1:7400", "tcp://c1:7400"},
        {"# tcp://10.0.0.1:9x", "tcp://10.0.0.1:9x"},
        {"# tcp://10.0.0.1:0", "no port"},
        {"# tcp://10.0.0.1:1 more", "KEY tcp://IP:PORT"},
        {"#x tcp://10.0.0.1:1", "tcp://10.0.0.1:1"},
        {"short tcp://10.0.0.1:1", "tcp://10.0.0.1:1"},
        {"tcp://10.0.0.1:1 #", "tcp://IP:PORT"},
        {"# tcp://10.0.0.1:1\n\n# tcp://10.0.0.2:1", "KEY tcp://IP:PORT"},
        {"# tcp://10.0.0.1:1\n# tcp://10.0.0.2:1\n# tcp://10.0.0.3:1\n# tcp://10.0.0.4:1", "more than 3"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse(bad[i].text), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.message, bad[i].why));
        assert_int_equal(count, 77);
    }
}

static void a_line_is_bounded(void **unused)
{
    (void)unused;
    char line[400];
    int n = snprintf(line, sizeof line, "%s tcp://10.0.0.1:1", key_text);
    memset(line + n, ' ', sizeof line - (size_t)n);
    line[sizeof line - 1] = '\0';
    assert_int_equal(peerlist_parse(line, LIST_MAX, &err, list, &count), -1);
    line[255] = '\0';
    assert_int_equal(peerlist_parse(line, LIST_MAX, &err, list, &count), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_a_line),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(a_line_is_bounded),
    };
    if (key_generate(&err, &key) < 0)
        return 1;
    key_format(key.public_key, key_text);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
