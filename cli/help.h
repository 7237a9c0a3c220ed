/* --help and 'drover help', made from the table of commands, and shell completion from the same. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdio.h>

#include "cli/args.h"

/* Help on a command, on a group ("vm"), or on everything (path ""). */
void help_print(const struct command *const *commands, const struct args *args, FILE *out);
/* Bash completion script. */
void completion_bash(const struct command *const *commands, FILE *out);

extern const struct command cmd_help, cmd_completion;

#endif
