/* drover: the command line. Commands are tables (cmd_*.c); this is the loop around them. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/ensure.h"
#include "cli/cli.h"
#include "cli/help.h"

#define COMMANDS_MAX 64
#define TIMEOUT_S    15
#define WATCH_MS     1000

static size_t commands_gather(const struct command **out)
{
    const struct command *const *const groups[] = {cmd_cluster, cmd_host, cmd_vm, cmd_job, cmd_optimizer, cmd_local};
    size_t count = 0;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (const struct command *const *c = groups[g]; *c; c++) {
            ENSURE(count < COMMANDS_MAX);
            out[count++] = *c;
        }
    out[count] = NULL;
    return count;
}

/* Shows the same again every second. What fails for now is shown, and tried again. */
static int watch(struct cli *cli, const struct args *args, struct err *err)
{
    bool terminal = isatty(STDOUT_FILENO) == 1;
    if (cli->format != OUTPUT_TABLE)
        return err_set(
            err, ERR_INVALID, "%s: --watch is for tables; without it -o json prints one document", args->command->path);
    if (cli_connect(cli, err) < 0)
        return -1;
    for (;;) {
        if (terminal)
            printf("\033[H\033[J");
        int status = args->command->run(cli, args, err);
        if (status < 0 && !err_retryable(err->code))
            return -1;
        if (status < 0)
            printf("%s\n", err->message);
        if (!terminal)
            putchar('\n');
        if (fflush(stdout) != 0)
            return 0; /* nobody looks any more */
        connect_pause(cli->connection, WATCH_MS);
    }
}

static int run(struct cli *cli, const struct args *args, struct err *err)
{
    cli->format = output_format_parse(args_text(args, "output"));
    cli->config = args_text(args, "config");
    cli->timeout_ms = (uint32_t)args_number(args, "timeout", TIMEOUT_S) * 1000;
    if (args->command->kind == COMMAND_WATCH && args_on(args, "watch"))
        return watch(cli, args, err);
    return args->command->run(cli, args, err);
}

/* For errors that come before the flags are understood. */
static enum output_format format_guess(int argc, char *const *argv)
{
    for (int i = 0; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "-o") == 0 || strcmp(argv[i], "--output") == 0)
            return output_format_parse(next);
        if (strncmp(argv[i], "-o", 2) == 0)
            return output_format_parse(argv[i] + 2 + (argv[i][2] == '='));
        if (strncmp(argv[i], "--output=", 9) == 0)
            return output_format_parse(argv[i] + 9);
    }
    return OUTPUT_TABLE;
}

int main(int argc, char **argv)
{
    const struct command *commands[COMMANDS_MAX + 1];
    struct cli cli = {.commands = commands, .format = format_guess(argc - 1, argv + 1)};
    struct args args;
    struct err err;
    int status = 0;
    log_setup("drover", LOG_ERROR);
    signal(SIGPIPE, SIG_IGN); /* a reader that has seen enough is no error */
    commands_gather(commands);

    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        argv[1] = (char *)"version"; /* every program is asked like this */
    if (args_parse(commands, argc - 1, argv + 1, &err, &args) < 0)
        status = -1;
    else if (args.help)
        help_print(commands, &args, stdout);
    else if (!args.command) {
        help_print(commands, &args, stderr);
        status = err_set(&err, ERR_INVALID, "%s%sno command was given; choose one of those above", args.path,
            args.path[0] ? ": " : "");
    } else
        status = run(&cli, &args, &err);

    if (fflush(stdout) != 0 && errno != EPIPE && status == 0)
        status = err_errno(&err, ERR_INTERNAL, errno, "standard output: what was printed is not complete");
    if (status < 0)
        output_error(cli.format, &err);
    connect_close(cli.connection);
    return status < 0 ? err_exit_status(err.code) : 0;
}
