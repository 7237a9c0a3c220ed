#include "cli/help.h"

#include <inttypes.h>
#include <string.h>

#include "cli/cli.h"

#define COLUMN 26
#define WIDTH  110

/* The words of `text` in lines that fit, the first of which is begun already, at COLUMN. */
static void print_wrapped(const char *text, FILE *out)
{
    size_t at = 0;
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        size_t len = strcspn(text, " ");
        if (at > 0 && COLUMN + 2 + at + 1 + len > WIDTH) {
            fprintf(out, "\n  %-*s", COLUMN, "");
            at = 0;
        }
        fprintf(out, "%s%.*s", at ? " " : "", (int)len, text);
        at += len + (at > 0);
        text += len;
    }
}

static void print_flag(const struct flag *f, FILE *out)
{
    char left[96];
    int len = snprintf(left, sizeof left, "%c%c%s--%s%s%s", f->letter ? '-' : ' ', f->letter ? f->letter : ' ',
        f->letter ? ", " : "  ", f->name, f->value ? " " : "", f->value ? f->value : "");
    fprintf(out, "  %-*s%s%s", COLUMN, left, len >= COLUMN ? "\n" : "", "");
    if (len >= COLUMN)
        fprintf(out, "  %-*s", COLUMN, "");
    char help[512];
    snprintf(
        help, sizeof help, "%s%s%s", f->help, f->required ? " (required)" : "", f->repeat ? " (may be repeated)" : "");
    print_wrapped(help, out);
    fputc('\n', out);
}

static void print_flags(const char *title, const struct flag *flags, FILE *out)
{
    if (!flags || !flags->name)
        return;
    fprintf(out, "\n%s\n", title);
    for (; flags->name; flags++)
        print_flag(flags, out);
}

/* Every line of `text` with two blanks in front. */
static void print_indented(const char *text, FILE *out)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        fprintf(out, "  %.*s\n", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

static void help_command(const struct command *c, FILE *out)
{
    fprintf(out, "drover %s: %s\n\nusage: drover %s%s%s [--flags]\n", c->path, c->summary, c->path,
        c->arguments ? " " : "", c->arguments ? c->arguments : "");
    if (c->text)
        fprintf(out, "\n%s\n", c->text);
    print_flags("flags:", c->flags, out);
    print_flags(c->kind == COMMAND_JOB ? "flags of commands that change something:" : "flags of commands that read:",
        args_kind_flags(c->kind), out);
    print_flags("flags of every command:", args_global_flags(), out);
    fprintf(out, "\nexample:\n");
    print_indented(c->example, out);
}

static bool in_group(const struct command *c, const char *path)
{
    size_t len = strlen(path);
    return strncmp(c->path, path, len) == 0 && (len == 0 || c->path[len] == ' ');
}

static void help_group(const struct command *const *commands, const char *path, FILE *out)
{
    fprintf(out, "usage: drover %s VERB [NAME] [--flags]\n\n", path);
    for (; *commands; commands++)
        if (in_group(*commands, path))
            fprintf(out, "  %-*s%s\n", COLUMN, (*commands)->path, (*commands)->summary);
    fprintf(out, "\n'drover help %s VERB' explains a command and has an example.\n", path);
}

static void help_overview(const struct command *const *commands, FILE *out)
{
    fprintf(out, "drover: virtual machines on a cluster of Linux hosts\n\nusage: drover NOUN VERB [NAME] [--flags]\n");
    size_t noun_len = 0;
    const char *noun = "";
    for (; *commands; commands++) {
        const char *path = (*commands)->path;
        size_t len = strcspn(path, " ");
        if (noun_len != (path[len] ? len : 1) || (path[len] && strncmp(path, noun, len) != 0))
            fputc('\n', out);
        noun = path;
        noun_len = path[len] ? len : 1; /* commands of one word stand together */
        fprintf(out, "  %-*s%s\n", COLUMN, path, (*commands)->summary);
    }
    fprintf(out,
        "\nA first tour:\n"
        "  drover cluster status\n"
        "  drover vm create web-1 --memory 512M --disk /srv/vms/web-1.img --nic default --start\n"
        "  drover vm migrate web-1 --to h2\n\n"
        "'drover help NOUN VERB' explains a command and has an example. More to read: drover help config, drover\n"
        "help output, drover help exit-codes.\n");
}

void help_print(const struct command *const *commands, const struct args *args, FILE *out)
{
    if (args->command)
        help_command(args->command, out);
    else if (args->path[0])
        help_group(commands, args->path, out);
    else
        help_overview(commands, out);
}

/* --- what is not a command --- */

static void help_exit_codes(FILE *out)
{
    static const struct {
        enum err_code code;
        const char *meaning;
    } meanings[] = {
        {ERR_NONE, "it worked; with --wait: and the job succeeded"},
        {ERR_JOB_FAILED, "the job was made and failed; the message has its error"},
        {ERR_INVALID, "what was asked for makes no sense: a wrong flag, name or value"},
        {ERR_NOT_FOUND, "there is no such VM, host, job, member or file"},
        {ERR_EXISTS, "there is one of that name already"},
        {ERR_BUSY, "another job holds it; try again when that is over"},
        {ERR_WRONG_STATE, "not possible in the state it is in, e.g. migrating a stopped VM"},
        {ERR_CAPACITY, "no host has room"},
        {ERR_UNSUPPORTED, "the kernel, QEMU or the machine cannot do it"},
        {ERR_DENIED, "you may not"},
        {ERR_UNAVAILABLE, "nobody answers: no controller leads, or a host is down"},
        {ERR_TIMEOUT, "it took too long"},
        {ERR_CANCELLED, "cancelled, or you stopped waiting with Ctrl-C"},
        {ERR_PROTOCOL, "a program of another version, or a broken one, answered"},
        {ERR_CONVERGENCE, "the guest writes faster than the migration may take"},
        {ERR_CORRUPT, "data does not match its checksum"},
        {ERR_INTERNAL, "a fault of drover itself, or the system refused something basic"},
    };
    fprintf(out, "exit status of drover, with the code that -o json prints:\n\n");
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        fprintf(out, "  %3d  %-15s %s\n", err_exit_status(meanings[i].code), err_name(meanings[i].code),
            meanings[i].meaning);
    fprintf(out,
        "\nA job that was made and failed ends in 1, whatever made it fail: the message has that in brackets, and the "
        "job\nthat -o json prints has it as error.code, in the words above, such as no-capacity or no-convergence.\n");
    fprintf(out, "\nThe same request may work later, with nothing changed, after");
    for (int code = ERR_NONE, first = 1; code < ERR_COUNT; code++)
        if (err_retryable((enum err_code)code) && code != ERR_NOT_LEADER) {
            fprintf(out, "%s %s", first ? "" : ",", err_name((enum err_code)code));
            first = 0;
        }
    fprintf(out, ".\n");
}

static void help_config(FILE *out)
{
    fprintf(out, "The first of these that is there: --config FILE, $DROVER_CONFIG, ~/.config/drover/cli.conf,\n"
                 "/etc/drover/cli.conf. It says who you are and where the controllers are:\n\n");
    fflush(out);
    context_print_manual(out);
    fprintf(out, "\nexample:\n"
                 "  drover keygen ~/.config/drover/anna      # the .pub file goes to whoever runs the controllers\n"
                 "  cat ~/.config/drover/cli.conf\n"
                 "    [user]\n"
                 "    key = anna.key\n"
                 "    [controllers]\n"
                 "    controller = {the 40 characters of c1.pub} tcp://10.0.0.1:7420\n"
                 "    controller = {the 40 characters of c2.pub} tcp://10.0.0.2:7420\n");
}

static void help_output(FILE *out)
{
    fprintf(out,
        "-o table  for people (the default)\n"
        "-o json   exactly one JSON document on standard output\n"
        "-o yaml   the same as YAML\n\n"
        "Lists are arrays ('drover vm list'), 'show' and 'status' print one object, and what makes a job prints the\n"
        "job: as it ended with --wait, as it began with --async. Field names are those of the .proto files; sizes are\n"
        "bytes, times milliseconds since 1970, names of states as in the tables.\n\n"
        "Errors are one line on standard error: \"drover: THING: cause; next step\". With -o json a second line has\n"
        "the same as {\"error\":{\"code\":...,\"message\":...,\"exit_status\":...,\"retry\":...}}.\n\n"
        "example:\n"
        "  drover vm list -o json | jq -r '.[] | select(.state == \"running\") | .spec.name'\n");
}

static int help_run(struct cli *cli, const struct args *args, struct err *err)
{
    static const struct {
        const char *word;
        void (*print)(FILE *out);
    } topics[] = {{"exit-codes", help_exit_codes}, {"config", help_config}, {"output", help_output}};
    struct args about;
    for (size_t i = 0; args->word_count == 1 && i < sizeof topics / sizeof *topics; i++)
        if (strcmp(args->words[0], topics[i].word) == 0) {
            topics[i].print(stdout);
            return 0;
        }
    char *words[ARGS_WORDS_MAX + 1];
    int count = 0;
    for (; count < (int)args->word_count; count++)
        words[count] = (char *)args->words[count];
    words[count++] = (char *)"--help";
    if (args_parse(cli->commands, count, words, err, &about) < 0)
        return -1;
    help_print(cli->commands, &about, stdout);
    return 0;
}

const struct command cmd_help = {
    .path = "help",
    .arguments = "[WORD...]",
    .summary = "explain a command, or exit-codes, config, output",
    .text = "Without a word: what there is.",
    .example = "drover help vm migrate\ndrover help exit-codes",
    .run = help_run,
};
