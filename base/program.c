#include "base/program.h"

#include <stdarg.h>
#include <string.h>

#include "base/err.h"

#define CONFIG "--config"

static void print_usage(const struct program *program, FILE *out)
{
    fprintf(out, "Usage: %s %s\n", program->name, program->usage);
}

static int help(const struct program *program)
{
    printf("%s %s: %s\n\n", program->name, DROVER_VERSION, program->purpose);
    print_usage(program, stdout);
    putchar('\n');
    for (const struct program_switch *s = program->switches; s->name; s++) {
        printf("  %s\n", s->name);
        for (const char *line = s->help; *line;) {
            size_t len = strcspn(line, "\n");
            printf("      %.*s\n", (int)len, line);
            line += len + (line[len] == '\n');
        }
    }
    printf("\nThe configuration file, with all keys and their defaults:\n\n");
    program->manual(stdout);
    return fflush(stdout) == 0 ? 0 : err_exit_status(ERR_INTERNAL);
}

int program_misused(const struct program *program, const char *fmt, ...)
{
    va_list list;
    fprintf(stderr, "%s: ", program->name);
    va_start(list, fmt);
    vfprintf(stderr, fmt, list);
    va_end(list);
    fputc('\n', stderr);
    print_usage(program, stderr);
    fprintf(stderr, "%s --help says more\n", program->name);
    return err_exit_status(ERR_INVALID);
}

static bool take_switch(const struct program *program, const char *word, uint32_t *switches)
{
    for (unsigned i = 0; program->switches[i].name; i++)
        if (strcmp(word, program->switches[i].name) == 0) {
            *switches |= UINT32_C(1) << i;
            return true;
        }
    return false;
}

static bool end(int *status, int with)
{
    *status = with;
    return false;
}

bool program_args(const struct program *program, int argc, char *const *argv, int *status, struct program_args *args)
{
    struct program_args taken = {0};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *config = NULL;
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
            return end(status, help(program));
        if (strcmp(word, "--version") == 0)
            return end(status, printf("%s %s\n", program->name, DROVER_VERSION) < 0);
        if (strcmp(word, CONFIG) == 0 && i + 1 < argc)
            config = argv[++i];
        else if (strncmp(word, CONFIG "=", sizeof CONFIG) == 0)
            config = word + sizeof CONFIG;
        else if (strcmp(word, CONFIG) == 0)
            return end(status, program_misused(program, CONFIG " needs a file"));
        else if (!take_switch(program, word, &taken.switches))
            return end(status, program_misused(program, "'%.64s' is nothing it knows", word));
        if (config && taken.config)
            return end(status, program_misused(program, CONFIG " is given twice"));
        if (config)
            taken.config = config;
    }
    if (!taken.config)
        return end(status, program_misused(program, CONFIG " FILE is missing"));
    *args = taken;
    return true;
}
