#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/config.h"

struct options {
    char *name;
    char *peers;
    uint64_t size;
    bool on;
    double ratio;
};

static const struct config_key keys[] = {
    {"node.name", CONFIG_STRING, offsetof(struct options, name), NULL, 0, 0, "name of this node"},
    {"node.peer", CONFIG_LIST, offsetof(struct options, peers), "", 0, 0, "a peer; may be repeated"},
    {"ram.size", CONFIG_UINT, offsetof(struct options, size), "4K", 1, 1u << 20, "bytes"},
    {"ram.on", CONFIG_BOOL, offsetof(struct options, on), "false", 0, 0, "whether"},
    {"ram.ratio", CONFIG_DOUBLE, offsetof(struct options, ratio), "0.5", 0, 0, "part"},
    {NULL},
};

static void defaults_and_values(void **state)
{
    (void)state;
    struct err err;
    struct options o = {0};
    assert_int_equal(config_parse("t", "[node]\nname = a b\n", keys, &err, &o), 0);
    assert_string_equal(o.name, "a b");
    assert_string_equal(o.peers, "");
    assert_int_equal(o.size, 4096);
    assert_false(o.on);
    assert_true(o.ratio == 0.5);
    config_free(keys, &o);
    assert_null(o.name);

    const char *text = "# comment\n[node]\nname=x\npeer = one\npeer = two\n\n[ram]\nsize=1M\non = true\nratio=1e-3\n";
    assert_int_equal(config_parse("t", text, keys, &err, &o), 0);
    assert_string_equal(o.peers, "one\ntwo");
    assert_int_equal(o.size, 1u << 20);
    assert_true(o.on);
    assert_true(o.ratio == 1e-3);
    config_free(keys, &o);
}

/* Each refusal names the file and what is wrong in it. */
static void refusals_name_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "node.name is missing"},
        {"[node]\nnam = x\n", "line 2: unknown key node.nam"},
        {"[nod]\nname = x\n", "unknown key nod.name"},
        {"name = x\n", "unknown key .name"},
        {"[node]\nname = x\nnonsense\n", "line 3"},
        {"[node\nname = x\n", "line 1"},
        {"[node]\nname=x\n[ram]\nsize = 0\n", "ram.size"},
        {"[node]\nname=x\n[ram]\nsize = 2M\n", "2097152 is not between"},
        {"[node]\nname=x\n[ram]\nsize = -1\n", "'-1' is not a whole number"},
        {"[node]\nname=x\n[ram]\nsize = \n", "ram.size"},
        {"[node]\nname=x\n[ram]\non = yes\n", "neither true nor false"},
        {"[node]\nname=x\n[ram]\nratio = nan\n", "not a number"},
        {"[node]\nname=x\n[ram]\nratio = 1x\n", "not a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct options o = {0};
        assert_int_equal(config_parse("some.conf", cases[i].text, keys, &err, &o), -1);
        assert_int_equal(err.code, ERR_INVALID);
        if (!strstr(err.message, cases[i].part) || !strstr(err.message, "some.conf"))
            fail_msg("case %zu says: %s", i, err.message);
        assert_null(o.name); /* nothing to free */
        assert_null(o.peers);
    }
}

/* The rest of a long line must not become a line of its own: here it would switch something on. */
static void long_lines_are_refused(void **state)
{
    (void)state;
    char text[400] = "[ram]\n[node]\nname = ";
    size_t head = strlen(text);
    memset(text + head, 'x', 191);
    text[head + 191] = '\0'; /* 198 bytes: the longest line allowed */
    struct err err = {0};
    struct options o = {0};
    assert_int_equal(config_parse("t", text, keys, &err, &o), 0);
    assert_int_equal(strlen(o.name), 191);
    config_free(keys, &o);
    strcpy(text + head + 191, "peer = stranger\n");
    assert_int_equal(config_parse("t", text, keys, &err, &o), -1);
    assert_non_null(strstr(err.message, "line 3 is longer"));
}

/* inih takes such a line for another value of the key before it: name would be "y", and the peer lost. */
static void indented_lines_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"[node]\nname = x\n  peer = y\n", "some.conf: line 3 begins with a blank"},
        {"[node]\n\tname = x\n", "some.conf: line 2 begins with a blank"},
        {"[node]\nname = x\n [ram]\nsize = 1\n", "some.conf: line 3 begins with a blank"},
        {"[node]\nname = x\n\fpeer = y", "some.conf: line 3 begins with a blank"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct options o = {0};
        assert_int_equal(config_parse("some.conf", cases[i].text, keys, &err, &o), -1);
        assert_int_equal(err.code, ERR_INVALID);
        if (!strstr(err.message, cases[i].part))
            fail_msg("case %zu says: %s", i, err.message);
    }
    struct err err = {0};
    struct options o = {0};
    const char *text = "  # comment\n[node]\n \t\nname = x\r\n   \r\n  ; another\npeer = y\n  ";
    assert_int_equal(config_parse("some.conf", text, keys, &err, &o), 0);
    assert_string_equal(o.name, "x");
    assert_string_equal(o.peers, "y");
    config_free(keys, &o);
}

static void repeated_keys_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct options o = {0};
    assert_int_equal(config_parse("some.conf", "[node]\nname = x\nname = y\n", keys, &err, &o), -1);
    assert_string_equal(err.message, "some.conf: line 3: key node.name: given a second time");
    assert_int_equal(
        config_parse("some.conf", "[node]\nname=x\n[ram]\nsize=1\n[node]\n[ram]\nsize=1\n", keys, &err, &o), -1);
    assert_non_null(strstr(err.message, "some.conf: line 7: key ram.size: given a second time"));
    assert_int_equal(config_parse("t", "[node]\npeer = a\nname = x\n[ram]\n[node]\npeer = b\n", keys, &err, &o), 0);
    assert_string_equal(o.peers, "a\nb");
    config_free(keys, &o);
}

static void files(void **state)
{
    (void)state;
    struct err err = {0};
    struct options o = {0};
    assert_int_equal(config_load("/nonexistent/drover.conf", keys, &err, &o), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/drover.conf"));
    char path[] = "/tmp/drover-config-test-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "[node]\nname=q\n", 14), 14);
    assert_int_equal(config_load(path, keys, &err, &o), 0);
    assert_string_equal(o.name, "q");
    config_free(keys, &o);
    assert_int_equal(write(fd, "\0[ram]\nsize=1\n", 15), 15); /* nothing behind the zero would be read */
    close(fd);
    assert_int_equal(config_load(path, keys, &err, &o), -1);
    assert_non_null(strstr(err.message, "zero byte"));
    unlink(path);
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0}, {"7", 7}, {"2K", 2048}, {"2k", 2048}, {"3KiB", 3072}, {"3M", 3u << 20}, {"512m", 512u << 20},
        {"1G", 1u << 30}, {"2g", 2ull << 30}, {"1GiB", 1u << 30}, {"1T", 1ull << 40}, {"15T", 15ull << 40},
        {"18446744073709551615", UINT64_MAX}, {"16777215T", 16777215ull << 40}};
    static const char *const bad[] = {"", " ", "K", "M", "iB", "1iB", "1B", "1KB", "1MB", "1Mi", "1MIB", "1MiBx", "1KM",
        "1 K", "1 M", "-1", "-1K", "+1", " -1", "1.5G", "0x10", "1P", "16777216T", "20000000T", "18446744073709551616",
        "99999999999999999999G"};
    struct err err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t value = 1234;
        assert_int_equal(config_parse_size(good[i].text, &err, &value), 0);
        assert_true(value == good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t value = 1234;
        if (config_parse_size(bad[i], &err, &value) != -1)
            fail_msg("'%s' was taken for a size", bad[i]);
        assert_int_equal(value, 1234);
    }
}

/* The manual is a configuration that loads, once the required keys are filled in. */
static void manual_loads(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    config_print_manual(keys, out);
    fclose(out);
    assert_non_null(strstr(text, "[node]\n# name of this node (required)\nname = \n"));
    assert_non_null(strstr(text, "\n\n[ram]\n# bytes\n#size = 4K\n"));
    struct err err = {0};
    struct options o = {0};
    assert_int_equal(config_parse("manual", text, keys, &err, &o), 0);
    assert_string_equal(o.name, "");
    config_free(keys, &o);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_values),
        cmocka_unit_test(refusals_name_the_place),
        cmocka_unit_test(long_lines_are_refused),
        cmocka_unit_test(indented_lines_are_refused),
        cmocka_unit_test(repeated_keys_are_refused),
        cmocka_unit_test(files),
        cmocka_unit_test(sizes),
        cmocka_unit_test(manual_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
