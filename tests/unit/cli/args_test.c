/* The parser, help and completion, on a small table and on the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/help.h"

static int run_nothing(struct cli *cli, const struct args *args, struct err *err)
{
    (void)cli;
    (void)args;
    (void)err;
    return 0;
}

static const struct flag make_flags[] = {
    {"size", 's', FLAG_SIZE, .required = true, .value = "SIZE", .min = 1024, .max = 1 << 30, .help = "how large"},
    {"count", 0, FLAG_UINT, .value = "N", .min = 1, .max = 8, .help = "how many"},
    {"disk", 0, FLAG_TEXT, .repeat = true, .value = "PATH", .help = "a disk"},
    {"mode", 0, FLAG_CHOICE, .value = "fast|slow", .help = "how"},
    {"start", 0, FLAG_SWITCH, .help = "and start"},
    {NULL},
};
static const struct command vm_make = {.path = "vm make",
    .arguments = "NAME",
    .kind = COMMAND_JOB,
    .summary = "make one",
    .example = "drover vm make a",
    .flags = make_flags,
    .run = run_nothing};
static const struct command vm_list = {
    .path = "vm list", .kind = COMMAND_WATCH, .summary = "list them", .example = "drover vm list", .run = run_nothing};
static const struct command member_add = {
    .path = "cluster member add", .arguments = "A [B]", .summary = "add", .example = "x", .run = run_nothing};
static const struct command say = {
    .path = "say", .arguments = "[WORD...]", .summary = "say", .example = "x", .run = run_nothing};
static const struct command *const commands[] = {&vm_make, &vm_list, &member_add, &say, NULL};

static struct args args;
static struct err err;

/* Parses the words (ended by NULL). */
static int parse(const char *word, ...)
{
    char *argv[32];
    int argc = 0;
    va_list list;
    va_start(list, word);
    for (; word; word = va_arg(list, const char *))
        argv[argc++] = (char *)word;
    va_end(list);
    memset(&args, 0x5a, sizeof args);
    memset(&err, 0, sizeof err);
    return args_parse(commands, argc, argv, &err, &args);
}

#define FAILS(text, ...)                                                                                               \
    do {                                                                                                               \
        assert_int_equal(parse(__VA_ARGS__, NULL), -1);                                                                \
        assert_int_equal(err.code, ERR_INVALID);                                                                       \
        assert_string_equal(err.message, text);                                                                        \
    } while (0)

static void commands_are_found(void **state)
{
    (void)state;
    assert_int_equal(parse("vm", "list", NULL), 0);
    assert_ptr_equal(args.command, &vm_list);
    assert_false(args.help);
    assert_int_equal(parse("cluster", "member", "add", "a", "b", NULL), 0);
    assert_ptr_equal(args.command, &member_add);
    assert_int_equal(args.word_count, 2);
    assert_string_equal(args.words[1], "b");
    assert_int_equal(parse("say", "a", "b", "c", "d", NULL), 0);
    assert_int_equal(args.word_count, 4);
    assert_int_equal(parse(NULL), 0);
    assert_null(args.command);
    assert_string_equal(args.path, "");
    assert_int_equal(parse("cluster", "member", "--help", NULL), 0);
    assert_null(args.command);
    assert_true(args.help);
    assert_string_equal(args.path, "cluster member");
    assert_int_equal(parse("vm", "make", "-h", NULL), 0); /* help needs no name */
    assert_ptr_equal(args.command, &vm_make);
    assert_true(args.help);
}

static void flags_are_read(void **state)
{
    (void)state;
    size_t at = 0;
    assert_int_equal(parse("-o", "json", "vm", "--stale", "list", NULL), -1); /* not a flag of every command */
    assert_int_equal(parse("-ojson", "vm", "make", "--size=4K", "a", "--disk", "/x", "--disk=/y", "--start", "--start",
                         "--count", "8", "--mode", "slow", NULL),
        0);
    assert_string_equal(args_text(&args, "output"), "json");
    assert_int_equal(args_number(&args, "size", 0), 4096);
    assert_int_equal(args_number(&args, "count", 0), 8);
    assert_string_equal(args_next(&args, "disk", &at), "/x");
    assert_string_equal(args_next(&args, "disk", &at), "/y");
    assert_null(args_next(&args, "disk", &at));
    assert_true(args_on(&args, "start"));
    assert_false(args_on(&args, "async"));
    assert_int_equal(args_number(&args, "timeout", 15), 15);
    assert_int_equal(parse("vm", "make", "-s", "1M", "--", "--start", NULL), 0); /* a name that looks like a flag */
    assert_string_equal(args.words[0], "--start");
    assert_false(args_on(&args, "start"));
    assert_int_equal(parse("say", "-", NULL), 0);
    assert_string_equal(args.words[0], "-");
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    FAILS("there is no command 'vm lsit'; did you mean 'vm list'?", "vm", "lsit");
    FAILS("there is no command 'make'; did you mean 'vm make'?", "make");
    FAILS("there is no command 'xyzzy'; 'drover help' lists what there is", "xyzzy");
    FAILS("there is no command 'vm xyzzy'; 'drover help vm' lists what there is", "vm", "xyzzy");
    FAILS("there is no command ''; 'drover help' lists what there is", "");
    FAILS("--what: not a flag of every command; flags of one command stand after it", "--what", "vm");
    FAILS("vm make: unknown flag --siez; did you mean --size?", "vm", "make", "--siez", "4");
    FAILS("vm make: unknown flag --siez; did you mean --size?", "vm", "make", "--siez=4");
    FAILS("vm make: unknown flag -x; 'drover help vm make' lists its flags", "vm", "make", "-x");
    FAILS("vm make: --size needs a value: --size SIZE", "vm", "make", "a", "--size");
    FAILS("vm make: --start takes no value", "vm", "make", "a", "--start=yes");
    FAILS("vm make: --count is given twice", "vm", "make", "a", "--count", "1", "--count", "2");
    FAILS("vm make: --count: 9 is not between 1 and 8", "vm", "make", "a", "--count", "9");
    FAILS("vm make: --count: '-1' is not a whole number", "vm", "make", "a", "--count", "-1");
    FAILS("vm make: --count: '1x' is not a whole number", "vm", "make", "a", "--count", "1x");
    FAILS("vm make: --count: '' is not a whole number", "vm", "make", "a", "--count=");
    FAILS("vm make: --count: '99999999999999999999' is not a whole number", "vm", "make", "--count",
        "99999999999999999999");
    FAILS("vm make: --size: 10 B is not between 1.0 KiB and 1.0 GiB; sizes are written like 512M or 2G", "vm", "make",
        "a", "--size", "10");
    FAILS("vm make: --mode: 'quick' is none of fast|slow", "vm", "make", "a", "--mode", "quick");
    FAILS("vm make: --mode: 'fas' is none of fast|slow", "vm", "make", "a", "--mode", "fas");
    FAILS("vm make: --mode: '' is none of fast|slow", "vm", "make", "a", "--mode=");
    FAILS("vm make: NAME is missing; usage: drover vm make NAME", "vm", "make", "--size", "4K");
    FAILS("vm make: NAME is empty", "vm", "make", "", "--size", "4K");
    FAILS("vm make: --size SIZE is missing; 'drover help vm make' has an example", "vm", "make", "a");
    FAILS("vm make: 'b' is too much; usage: drover vm make NAME", "vm", "make", "a", "b", "--size", "4K");
    FAILS("vm list: 'b' is too much; usage: drover vm list", "vm", "list", "b");
    FAILS("vm make: --wait and --async exclude each other", "vm", "make", "a", "-s4K", "--wait", "--async");
    FAILS("--output: 'xml' is none of table|json|yaml", "--output", "xml", "vm");
}

static void long_input_is_cut_not_overrun(void **state)
{
    (void)state;
    char word[5000];
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = 0;
    assert_int_equal(parse(word, NULL), -1);
    assert_int_equal(parse("vm", word, NULL), -1);
    assert_int_equal(parse("vm", "make", "a", "--size", word, NULL), -1);
    memcpy(word, "--", 2);
    assert_int_equal(parse(word, NULL), -1);
    assert_int_equal(parse("vm", "make", word, NULL), -1);
    char *many[100];
    for (size_t i = 0; i < 100; i++)
        many[i] = i < 2 ? (char *)(i ? "make" : "vm") : (char *)"--disk=/x";
    assert_int_equal(args_parse(commands, 100, many, &err, &args), -1);
    assert_string_equal(err.message, "vm make: more than 64 flags");
}

static void suggestions(void **state)
{
    (void)state;
    static const char *const words[] = {"cluster", "host", "vm", "job", "optimizer", "migrate", "start", "stop", NULL};
    assert_string_equal(suggest_nearest("hsot", words), "host");
    assert_string_equal(suggest_nearest("jobs", words), "job");
    assert_string_equal(suggest_nearest("vms", words), "vm");
    assert_string_equal(suggest_nearest("VM", words), "vm");
    assert_string_equal(suggest_nearest("mgirate", words), "migrate");
    assert_string_equal(suggest_nearest("opt", words), "optimizer");
    assert_string_equal(suggest_nearest("strat", words), "start");
    assert_string_equal(
        suggest_nearest("downtime", (const char *const[]){"host", "max-downtime", NULL}), "max-downtime");
    assert_null(suggest_nearest("banana", words));
    assert_null(suggest_nearest("", words));
    assert_null(suggest_nearest("x", words));
}

/* What the real table must keep to, so that parsing, help and completion work. */
static void the_real_table_is_sound(void **state)
{
    (void)state;
    const struct command *const *const groups[] = {cmd_cluster, cmd_host, cmd_vm, cmd_job, cmd_optimizer, cmd_local};
    const struct command *all[64];
    size_t count = 0;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (const struct command *const *c = groups[g]; *c; c++)
            all[count++] = *c;
    all[count] = NULL;
    FILE *null = fopen("/dev/null", "w");
    assert_non_null(null);
    for (size_t i = 0; i < count; i++) {
        const struct command *c = all[i];
        assert_true(c->summary && c->summary[0] && c->example && strstr(c->example, "drover") && c->run);
        for (size_t j = 0; j < count; j++) { /* no command's path begins another's */
            size_t len = strlen(c->path);
            assert_false(
                i != j && strncmp(c->path, all[j]->path, len) == 0 && (all[j]->path[len] == ' ' || !all[j]->path[len]));
        }
        const struct flag *lists[] = {args_global_flags(), args_kind_flags(c->kind), c->flags};
        for (size_t a = 0; a < 3; a++)
            for (const struct flag *f = lists[a]; f && f->name; f++) {
                assert_true(f->help && f->help[0] && (f->type == FLAG_SWITCH) == !f->value);
                for (size_t b = 0; b < 3; b++) /* no name or letter twice */
                    for (const struct flag *o = lists[b]; o && o->name; o++)
                        assert_false(
                            f != o && (strcmp(f->name, o->name) == 0 || (f->letter && f->letter == o->letter)));
            }
        struct args about = {.command = c, .help = true};
        help_print(all, &about, null);
    }
    completion_bash(all, null);
    fclose(null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_found),
        cmocka_unit_test(flags_are_read),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(long_input_is_cut_not_overrun),
        cmocka_unit_test(suggestions),
        cmocka_unit_test(the_real_table_is_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
