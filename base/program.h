/* program: what a daemon is started with. --help and --version are answered here; --config FILE, or --config=FILE, and
 * the program's own switches may stand in any order. Anything else is wrong use, told in three lines. Pure, but for
 * what it prints. */
#ifndef BASE_PROGRAM_H
#define BASE_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define PROGRAM_SWITCHES_MAX 8

struct program_switch {
    const char *name; /* with the dashes; NULL ends a list */
    const char *help; /* lines, without indentation */
};

struct program {
    const char *name;                      /* "drover-hostd" */
    const char *purpose;                   /* half a sentence for the first line of --help */
    const char *usage;                     /* what may follow the name: "--config FILE [--found]" */
    const struct program_switch *switches; /* at most PROGRAM_SWITCHES_MAX */
    void (*manual)(FILE *out);             /* the configuration file */
};

struct program_args {
    const char *config; /* lent from argv */
    uint32_t switches;  /* bit i: switches[i] was given */
};

/* True: run with `args`. False: there is nothing more to do, end with `status`. */
bool program_args(const struct program *program, int argc, char *const *argv, int *status, struct program_args *args);
/* Wrong use: says why and how it is done right on stderr; the exit status. */
int program_misused(const struct program *program, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
