/* The completion script is the table of commands, written out as two functions of the words typed so far. Names of VMs,
 * hosts and jobs are asked from the cluster, quickly or not at all. */
#include <string.h>

#include "cli/cli.h"
#include "cli/help.h"

/* Words that may follow `path`, once each. */
static void print_next_words(const struct command *const *commands, const char *path, FILE *out)
{
    size_t len = strlen(path), last_len = 0;
    const char *last = "";
    for (; *commands; commands++) {
        const char *p = (*commands)->path;
        if (strncmp(p, path, len) != 0 || (len && p[len] != ' '))
            continue;
        p += len + (len != 0);
        size_t n = strcspn(p, " ");
        if (n == last_len && strncmp(p, last, n) == 0)
            continue;
        fprintf(out, "%s%.*s", last_len ? " " : "", (int)n, p);
        last = p;
        last_len = n;
    }
}

static void print_groups(const struct command *const *commands, FILE *out)
{
    char done[32][ARGS_PATH_MAX];
    size_t count = 0;
    for (const struct command *const *c = commands; *c; c++)
        for (const char *end = strchr((*c)->path, ' '); end; end = strchr(end + 1, ' ')) {
            char group[ARGS_PATH_MAX];
            snprintf(group, sizeof group, "%.*s", (int)(end - (*c)->path), (*c)->path);
            bool known = false;
            for (size_t i = 0; i < count; i++)
                known = known || strcmp(done[i], group) == 0;
            if (known || count == sizeof done / sizeof *done)
                continue;
            memcpy(done[count++], group, sizeof group);
            fprintf(out, "        '%s') echo \"", group);
            print_next_words(commands, group, out);
            fprintf(out, "\" ;;\n");
        }
}

static void print_flag_words(const struct flag *flags, const char **blank, FILE *out)
{
    for (; flags && flags->name; flags++, *blank = " ")
        fprintf(out, "%s--%s", *blank, flags->name);
}

static void print_choices(const struct flag *flags, const char *path, FILE *out)
{
    for (; flags && flags->name; flags++) {
        if (flags->type != FLAG_CHOICE)
            continue;
        fprintf(out, "        '%s --%s') echo \"", path, flags->name);
        for (const char *c = flags->value; *c; c++)
            fputc(*c == '|' ? ' ' : *c, out);
        fprintf(out, "\" ;;\n");
    }
}

static void print_command(const struct command *c, FILE *out)
{
    const char *blank = "";
    fprintf(out, "        '%s') echo \"", c->path);
    print_flag_words(c->flags, &blank, out);
    print_flag_words(args_kind_flags(c->kind), &blank, out);
    print_flag_words(args_global_flags(), &blank, out);
    if (c->arguments && strstr(c->arguments, "VM"))
        fprintf(out, " $(_drover_names vm)");
    if (c->arguments && strstr(c->arguments, "HOST"))
        fprintf(out, " $(_drover_names host)");
    if (c->arguments && strstr(c->arguments, "JOB"))
        fprintf(out, " $(_drover_names job)");
    fprintf(out, "\" ;;\n");
    print_choices(c->flags, c->path, out);
    print_choices(args_global_flags(), c->path, out);
}

void completion_bash(const struct command *const *commands, FILE *out)
{
    fprintf(out, "# bash completion of drover; made by 'drover completion bash'\n"
                 "_drover_names() { drover \"$1\" list --stale --timeout 1 2>/dev/null | awk 'NR > 1 { print $1 }'; }\n"
                 "_drover_words() {\n"
                 "    case \"$1\" in\n"
                 "        '') echo \"");
    print_next_words(commands, "", out);
    fprintf(out, "\" ;;\n");
    print_groups(commands, out);
    for (const struct command *const *c = commands; *c; c++)
        print_command(*c, out);
    fprintf(out, "        *' --to'|*' --host') _drover_names host ;;\n"
                 "    esac\n"
                 "}\n"
                 "_drover() {\n"
                 "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path='' words word\n"
                 "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
                 "        [[ $word == -* ]] && break\n"
                 "        [[ -n $(_drover_words \"${path:+$path }$word\" 2>/dev/null) ]] || break\n"
                 "        path=\"${path:+$path }$word\"\n"
                 "    done\n"
                 "    words=\n"
                 "    [[ $prev == --* ]] && words=$(_drover_words \"$path $prev\")\n"
                 "    [[ $prev == -o ]] && words='table json yaml'\n"
                 "    [[ -n $words ]] || words=$(_drover_words \"$path\")\n"
                 "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                 "}\n"
                 "complete -o default -F _drover drover\n");
}

static int completion_run(struct cli *cli, const struct args *args, struct err *err)
{
    if (strcmp(args->words[0], "bash") != 0)
        return err_set(err, ERR_UNSUPPORTED, "completion: there is none for '%.32s', only for bash", args->words[0]);
    completion_bash(cli->commands, stdout);
    return 0;
}

const struct command cmd_completion = {
    .path = "completion",
    .arguments = "SHELL",
    .summary = "print the script that completes commands in a shell (bash)",
    .text = "Commands, flags and their choices come from the table of commands; names of VMs, hosts and jobs from the\n"
            "cluster, if it answers within a second.",
    .example = "drover completion bash > /etc/bash_completion.d/drover\n. <(drover completion bash)",
    .run = completion_run,
};
