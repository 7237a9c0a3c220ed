/* The command line as a table. One struct command per command makes parsing, --help and completion; nothing about a
 * command is said anywhere else. Parsing is pure: no output, no exit, no globals. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum flag_type {
    FLAG_SWITCH,
    FLAG_TEXT,
    FLAG_UINT,   /* a whole number between min and max */
    FLAG_SIZE,   /* bytes: 512M, 2G, 1073741824 */
    FLAG_CHOICE, /* one of the words in `value`, with '|' between them */
};

struct flag {
    const char *name; /* without the dashes; NULL ends a list */
    char letter;      /* -o; 0: none */
    enum flag_type type;
    bool repeat; /* may be given more than once */
    bool required;
    const char *value; /* what stands for the value in --help */
    uint64_t min, max; /* FLAG_UINT and FLAG_SIZE; both 0: no limit */
    const char *help;
};

struct cli;
struct args;

enum command_kind {
    COMMAND_LOCAL, /* asks no controller */
    COMMAND_READ,  /* takes --stale */
    COMMAND_WATCH, /* and --watch */
    COMMAND_JOB,   /* makes a job: takes --wait and --async */
    COMMAND_OTHER, /* asks a controller, and is none of these */
};

struct command {
    const char *path;      /* "vm migrate" */
    const char *arguments; /* "VM", "[JOB]", "[WORD...]"; NULL: none */
    enum command_kind kind;
    const char *summary;      /* one line, for lists */
    const char *text;         /* what a new user has to know */
    const char *example;      /* lines that can be typed */
    const struct flag *flags; /* its own; NULL: none */
    int (*run)(struct cli *cli, const struct args *args, struct err *err);
};

#define ARGS_WORDS_MAX  8
#define ARGS_VALUES_MAX 64
#define ARGS_PATH_MAX   128

struct args {
    const struct command *command; /* NULL: `path` names a group of commands, or everything when empty */
    char path[ARGS_PATH_MAX];
    bool help;                         /* --help was given, or there is no command */
    const char *words[ARGS_WORDS_MAX]; /* the arguments; lent from argv */
    size_t word_count;
    struct {
        const struct flag *flag;
        const char *text;
        uint64_t number;
    } values[ARGS_VALUES_MAX];
    size_t value_count;
};

/* Parses argv (without the program's name) by a table that ends with NULL. Everything stays lent. */
MUST_CHECK int args_parse(
    const struct command *const *commands, int argc, char *const *argv, struct err *err, struct args *out);

/* What was given; asking for a flag that the command does not have is our own fault. */
bool args_on(const struct args *args, const char *flag);
const char *args_text(const struct args *args, const char *flag); /* NULL: not given */
uint64_t args_number(const struct args *args, const char *flag, uint64_t fallback);
/* The next value of a repeated flag: start with *at = 0; NULL at the end. */
const char *args_next(const struct args *args, const char *flag, size_t *at);

/* Flags that every command has, and those of a kind; each list ends with a NULL name. */
const struct flag *args_global_flags(void);
const struct flag *args_kind_flags(enum command_kind kind);
/* How many arguments are needed at least, and allowed at most. */
void args_bounds(const struct command *command, size_t *min, size_t *max);

/* The word of `candidates` (ends with NULL) that `word` was probably meant to be; NULL when none is near. */
const char *suggest_nearest(const char *word, const char *const *candidates);

#endif
