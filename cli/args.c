/* Words choose the command, then its table of flags reads the rest. Flags may stand anywhere; before the command only
 * those that every command has are known. */
#include "cli/args.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/ensure.h"
#include "base/format.h"

#define CANDIDATES_MAX 96

static const struct flag global_flags[] = {
    {"config", 0, FLAG_TEXT, .value = "FILE", .help = "read this configuration (see 'drover help config')"},
    {"output", 'o', FLAG_CHOICE, .value = "table|json|yaml", .help = "how to print; json and yaml are for scripts"},
    {"timeout", 0, FLAG_UINT, .value = "SECONDS", .min = 1, .max = 3600,
        .help = "how long to try until a controller answers (15)"},
    {"help", 'h', FLAG_SWITCH, .help = "explain this command"},
    {NULL},
};
static const struct flag watch_flags[] = {
    {"stale", 0, FLAG_SWITCH, .help = "any controller may answer, from what it knows; works without a leader"},
    {"watch", 'w', FLAG_SWITCH, .help = "show it again every second until Ctrl-C"},
    {NULL},
};
static const struct flag read_flags[] = {
    {"stale", 0, FLAG_SWITCH, .help = "any controller may answer, from what it knows; works without a leader"},
    {NULL},
};
static const struct flag job_flags[] = {
    {"wait", 0, FLAG_SWITCH, .help = "wait until the job is over and show its steps (the default)"},
    {"async", 0, FLAG_SWITCH, .help = "print the job and return at once"},
    {NULL},
};
static const struct flag no_flags[] = {{NULL}};

const struct flag *args_global_flags(void)
{
    return global_flags;
}

const struct flag *args_kind_flags(enum command_kind kind)
{
    switch (kind) {
    case COMMAND_READ:
        return read_flags;
    case COMMAND_WATCH:
        return watch_flags;
    case COMMAND_JOB:
        return job_flags;
    case COMMAND_LOCAL:
    case COMMAND_OTHER:
        break;
    }
    return no_flags;
}

static size_t flag_lists(const struct command *command, const struct flag *lists[3])
{
    size_t count = 0;
    lists[count++] = global_flags;
    if (command) {
        lists[count++] = args_kind_flags(command->kind);
        if (command->flags)
            lists[count++] = command->flags;
    }
    return count;
}

/* `name` of `len` bytes, or a single letter when `letter` is set. */
static const struct flag *flag_find(const struct command *command, const char *name, size_t len, char letter)
{
    const struct flag *lists[3];
    size_t count = flag_lists(command, lists);
    for (size_t i = 0; i < count; i++)
        for (const struct flag *f = lists[i]; f->name; f++)
            if (letter ? f->letter == letter : strlen(f->name) == len && strncmp(f->name, name, len) == 0)
                return f;
    return NULL;
}

static int flag_unknown(const struct command *command, const char *given, struct err *err)
{
    const char *candidates[CANDIDATES_MAX + 1];
    const struct flag *lists[3];
    size_t n = 0, count = flag_lists(command, lists);
    for (size_t i = 0; i < count; i++)
        for (const struct flag *f = lists[i]; f->name && n < CANDIDATES_MAX; f++)
            candidates[n++] = f->name;
    candidates[n] = NULL;
    char word[ARGS_PATH_MAX];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(given, "="), given);
    const char *near = suggest_nearest(word + strspn(word, "-"), candidates);
    if (!command)
        return err_set(
            err, ERR_INVALID, "%.64s: not a flag of every command; flags of one command stand after it", word);
    if (near)
        return err_set(err, ERR_INVALID, "%s: unknown flag %.64s; did you mean --%s?", command->path, word, near);
    return err_set(err, ERR_INVALID, "%s: unknown flag %.64s; 'drover help %s' lists its flags", command->path, word,
        command->path);
}

static int number_parse(const char *text, struct err *err, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno)
        return err_set(err, ERR_INVALID, "'%.64s' is not a whole number", text);
    *out = value;
    return 0;
}

static bool choice_allows(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *c = choices; len > 0; c++) {
        size_t n = strcspn(c, "|");
        if (n == len && strncmp(c, text, len) == 0)
            return true;
        c += n;
        if (!*c)
            break;
    }
    return false;
}

static int value_check(const struct flag *flag, const char *text, struct err *err, uint64_t *number)
{
    switch (flag->type) {
    case FLAG_SWITCH:
    case FLAG_TEXT:
        return 0;
    case FLAG_CHOICE:
        if (!choice_allows(flag->value, text))
            return err_set(err, ERR_INVALID, "'%.64s' is none of %s", text, flag->value);
        return 0;
    case FLAG_UINT:
        if (number_parse(text, err, number) < 0)
            return -1;
        break;
    case FLAG_SIZE:
        if (config_parse_size(text, err, number) < 0)
            return -1;
        break;
    }
    if ((flag->min || flag->max) && (*number < flag->min || *number > flag->max) && flag->type == FLAG_SIZE) {
        char is[FORMAT_MAX], min[FORMAT_MAX], max[FORMAT_MAX];
        return err_set(err, ERR_INVALID, "%s is not between %s and %s; sizes are written like 512M or 2G",
            format_bytes(*number, is), format_bytes(flag->min, min), format_bytes(flag->max, max));
    }
    if ((flag->min || flag->max) && (*number < flag->min || *number > flag->max))
        return err_set(err, ERR_INVALID, "%s is not between %" PRIu64 " and %" PRIu64, text, flag->min, flag->max);
    return 0;
}

/* What an error about flags begins with: the command, or nothing before there is one. */
static const char *where(const struct args *args, char out[static ARGS_PATH_MAX])
{
    snprintf(out, ARGS_PATH_MAX, "%.100s%s", args->command ? args->command->path : "", args->command ? ": " : "");
    return out;
}

static int value_add(struct args *args, const struct flag *flag, const char *text, struct err *err)
{
    uint64_t number = 0;
    char path[ARGS_PATH_MAX];
    if (strcmp(flag->name, "help") == 0) {
        args->help = true;
        return 0;
    }
    for (size_t i = 0; i < args->value_count; i++)
        if (args->values[i].flag == flag && !flag->repeat && flag->type != FLAG_SWITCH)
            return err_set(err, ERR_INVALID, "%s--%s is given twice", where(args, path), flag->name);
    if (value_check(flag, text, err, &number) < 0)
        return err_wrap(err, "%s--%s", where(args, path), flag->name);
    if (args->value_count == ARGS_VALUES_MAX)
        return err_set(err, ERR_INVALID, "%smore than %d flags", where(args, path), ARGS_VALUES_MAX);
    args->values[args->value_count].flag = flag;
    args->values[args->value_count].text = text;
    args->values[args->value_count++].number = number;
    return 0;
}

/* Reads the flag at argv[0]; `*used` is how many words it took. */
static int flag_read(struct args *args, int argc, char *const *argv, struct err *err, int *used)
{
    const char *given = argv[0], *text = NULL;
    char path[ARGS_PATH_MAX];
    const struct flag *flag;
    if (given[1] == '-') {
        size_t len = strcspn(given + 2, "=");
        flag = flag_find(args->command, given + 2, len, 0);
        text = given[2 + len] == '=' ? given + 3 + len : NULL;
    } else {
        flag = flag_find(args->command, NULL, 0, given[1]);
        text = given[2] ? given + 2 + (given[2] == '=') : NULL;
    }
    if (!flag)
        return flag_unknown(args->command, given, err);
    *used = 1;
    if (flag->type == FLAG_SWITCH) {
        if (text)
            return err_set(err, ERR_INVALID, "%s--%s takes no value", where(args, path), flag->name);
        return value_add(args, flag, "", err);
    }
    if (!text) {
        if (argc < 2)
            return err_set(err, ERR_INVALID, "%s--%s needs a value: --%s %s", where(args, path), flag->name, flag->name,
                flag->value);
        text = argv[1];
        *used = 2;
    }
    return value_add(args, flag, text, err);
}

/* Whether `path` is `prefix` or goes on after it with a blank. */
static bool path_within(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);
    return len == 0 || (strncmp(path, prefix, len) == 0 && (path[len] == 0 || path[len] == ' '));
}

static int command_unknown(
    const struct command *const *commands, const struct args *args, const char *word, struct err *err)
{
    /* First among the words that could stand here, then among the last words of all commands ("migrate" for "vm
     * migrate"). */
    static const char *const none[] = {NULL};
    char words[CANDIDATES_MAX][32];
    const char *candidates[CANDIDATES_MAX + 1], *paths[CANDIDATES_MAX + 1];
    for (int pass = 0; pass < 2; pass++) {
        size_t n = 0;
        for (const struct command *const *c = commands; *c && n < CANDIDATES_MAX; c++) {
            const char *start = (*c)->path;
            if (pass == 0 && !path_within(start, args->path))
                continue;
            if (pass == 0)
                start += strlen(args->path) + (args->path[0] != 0);
            else
                start = strrchr(start, ' ') ? strrchr(start, ' ') + 1 : start;
            snprintf(words[n], sizeof words[n], "%.*s", (int)strcspn(start, " "), start);
            candidates[n] = words[n];
            paths[n++] = (*c)->path;
        }
        candidates[n] = NULL;
        const char *near = suggest_nearest(word, n ? candidates : none);
        if (!near)
            continue;
        size_t at = 0;
        while (candidates[at] != near)
            at++;
        if (pass == 0)
            return err_set(err, ERR_INVALID, "there is no command '%s%s%.48s'; did you mean '%s%s%s'?", args->path,
                args->path[0] ? " " : "", word, args->path, args->path[0] ? " " : "", near);
        return err_set(err, ERR_INVALID, "there is no command '%s%s%.48s'; did you mean '%s'?", args->path,
            args->path[0] ? " " : "", word, paths[at]);
    }
    return err_set(err, ERR_INVALID, "there is no command '%s%s%.48s'; 'drover help%s%s' lists what there is",
        args->path, args->path[0] ? " " : "", word, args->path[0] ? " " : "", args->path);
}

/* One more word of the command's path. */
static int command_word(const struct command *const *commands, const char *word, struct args *args, struct err *err)
{
    char path[ARGS_PATH_MAX];
    bool group = false;
    int len = snprintf(path, sizeof path, "%s%s%s", args->path, args->path[0] ? " " : "", word);
    for (const struct command *const *c = commands; len < (int)sizeof path && word[0] && *c; c++) {
        if (strcmp((*c)->path, path) == 0)
            args->command = *c;
        else if (path_within((*c)->path, path))
            group = true;
    }
    if (!args->command && !group)
        return command_unknown(commands, args, word, err);
    memcpy(args->path, path, sizeof path);
    return 0;
}

void args_bounds(const struct command *command, size_t *min, size_t *max)
{
    *min = *max = 0;
    for (const char *a = command->arguments; a && *a;) {
        size_t len = strcspn(a, " ");
        *min += a[0] != '[';
        *max = len > 4 && strncmp(a + len - 4, "...]", 4) == 0 ? ARGS_WORDS_MAX : *max + 1;
        a += len + strspn(a + len, " ");
    }
}

static int args_check(const struct args *args, struct err *err)
{
    const struct command *c = args->command;
    size_t min, max;
    if (!c || args->help)
        return 0;
    args_bounds(c, &min, &max);
    if (args->word_count < min)
        return err_set(
            err, ERR_INVALID, "%s: %s is missing; usage: drover %s %s", c->path, c->arguments, c->path, c->arguments);
    for (size_t i = 0; i < args->word_count; i++)
        if (args->words[i][0] == 0)
            return err_set(err, ERR_INVALID, "%s: %s is empty", c->path, c->arguments);
    for (const struct flag *f = c->flags; f && f->name; f++)
        if (f->required && !args_text(args, f->name))
            return err_set(err, ERR_INVALID, "%s: --%s %s is missing; 'drover help %s' has an example", c->path,
                f->name, f->value, c->path);
    if (c->kind == COMMAND_JOB && args_on(args, "wait") && args_on(args, "async"))
        return err_set(err, ERR_INVALID, "%s: --wait and --async exclude each other", c->path);
    return 0;
}

static int word_add(struct args *args, const char *word, struct err *err)
{
    size_t min, max;
    args_bounds(args->command, &min, &max);
    if (args->word_count == max || args->word_count == ARGS_WORDS_MAX)
        return err_set(err, ERR_INVALID, "%s: '%.64s' is too much; usage: drover %s%s%s", args->command->path, word,
            args->command->path, args->command->arguments ? " " : "",
            args->command->arguments ? args->command->arguments : "");
    args->words[args->word_count++] = word;
    return 0;
}

int args_parse(const struct command *const *commands, int argc, char *const *argv, struct err *err, struct args *out)
{
    struct args args = {0};
    bool flags = true;
    for (int i = 0, used = 1; i < argc; i += used) {
        used = 1;
        if (flags && strcmp(argv[i], "--") == 0)
            flags = false;
        else if (flags && argv[i][0] == '-' && argv[i][1]) {
            if (flag_read(&args, argc - i, argv + i, err, &used) < 0)
                return -1;
        } else if (!args.command) {
            if (command_word(commands, argv[i], &args, err) < 0)
                return -1;
        } else if (word_add(&args, argv[i], err) < 0)
            return -1;
    }
    if (args_check(&args, err) < 0)
        return -1;
    *out = args;
    return 0;
}

static const struct flag *flag_of(const struct args *args, const char *name)
{
    const struct flag *flag = flag_find(args->command, name, strlen(name), 0);
    ENSURE(flag);
    return flag;
}

const char *args_next(const struct args *args, const char *name, size_t *at)
{
    const struct flag *flag = flag_of(args, name);
    while (*at < args->value_count)
        if (args->values[(*at)++].flag == flag)
            return args->values[*at - 1].text;
    return NULL;
}

const char *args_text(const struct args *args, const char *name)
{
    size_t at = 0;
    return args_next(args, name, &at);
}

bool args_on(const struct args *args, const char *name)
{
    return args_text(args, name) != NULL;
}

uint64_t args_number(const struct args *args, const char *name, uint64_t fallback)
{
    size_t at = 0;
    return args_next(args, name, &at) ? args->values[at - 1].number : fallback;
}
