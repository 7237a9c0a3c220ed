/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/program.h"

#define RUN(...) run((const char *[]){"tool", __VA_ARGS__, NULL})

static struct program_args args;
static int status;
static char said[4096];

static void manual(FILE *out)
{
    fputs("[all]\nkeys = there\n", out);
}

static const struct program_switch switches[] = {{"--one", "first line\nsecond line"}, {"--two", "2"}, {NULL}};
static const struct program tool = {"tool", "does what is told", "--config FILE [--one | --two]", switches, manual};

/* What it answers; what it printed is in `said`. */
static bool run(const char *const *argv)
{
    char path[] = "/tmp/drover-program-XXXXXX";
    int argc = 0, to = mkstemp(path), out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    while (argv[argc])
        argc++;
    args = (struct program_args){0};
    status = -1;
    fflush(NULL);
    dup2(to, STDOUT_FILENO);
    dup2(to, STDERR_FILENO);
    bool answer = program_args(&tool, argc, (char *const *)(uintptr_t)argv, &status, &args);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    ssize_t n = pread(to, said, sizeof said - 1, 0);
    said[n < 0 ? 0 : n] = '\0';
    unlink(path);
    close(to);
    close(out);
    close(err);
    return answer;
}

static void arguments_in_any_order(void **unused)
{
    (void)unused;
    assert_true(RUN("--config", "/etc/tool.ini"));
    assert_string_equal(args.config, "/etc/tool.ini");
    assert_int_equal(args.switches, 0);
    assert_true(RUN("--two", "--config=a=b"));
    assert_string_equal(args.config, "a=b");
    assert_int_equal(args.switches, 2);
    assert_true(RUN("--one", "--config", "--two", "--two"));
    assert_string_equal(args.config, "--two");
    assert_int_equal(args.switches, 3);
    assert_string_equal(said, "");
}

static void help_and_version_are_answered(void **unused)
{
    (void)unused;
    assert_false(RUN("--config", "x", "--help"));
    assert_int_equal(status, 0);
    assert_string_equal(said,
        "tool " DROVER_VERSION ": does what is told\n\nUsage: tool --config FILE [--one | --two]\n\n"
        "  --one\n      first line\n      second line\n  --two\n      2\n\n"
        "The configuration file, with all keys and their defaults:\n\n[all]\nkeys = there\n");
    assert_false(RUN("--version"));
    assert_int_equal(status, 0);
    assert_string_equal(said, "tool " DROVER_VERSION "\n");
}

static void wrong_use_is_told_in_three_lines(void **unused)
{
    (void)unused;
    static const char tail[] = "\nUsage: tool --config FILE [--one | --two]\ntool --help says more\n";
    const struct {
        const char *words[4];
        const char *why;
    } wrong[] = {
        {{NULL}, "tool: --config FILE is missing"},
        {{"--one"}, "tool: --config FILE is missing"},
        {{"--one", "--config"}, "tool: --config needs a file"},
        {{"--config=a", "--config=b"}, "tool: --config is given twice"},
        {{"--config=a", "--on"}, "tool: '--on' is nothing it knows"},
        {{"--configure=a"}, "tool: '--configure=a' is nothing it knows"},
        {{"--config=a", ""}, "tool: '' is nothing it knows"},
        {{"source"}, "tool: 'source' is nothing it knows"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *const argv[] = {"tool", wrong[i].words[0], wrong[i].words[1], wrong[i].words[2], NULL};
        char expected[256];
        assert_false(run(argv));
        assert_int_equal(status, 2);
        snprintf(expected, sizeof expected, "%s%s", wrong[i].why, tail);
        assert_string_equal(said, expected);
        assert_null(args.config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments_in_any_order),
        cmocka_unit_test(help_and_version_are_answered),
        cmocka_unit_test(wrong_use_is_told_in_three_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
