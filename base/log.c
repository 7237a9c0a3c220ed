#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *log_program = "drover";
static enum log_level log_limit = LOG_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_setup(const char *program, enum log_level level)
{
    log_program = program;
    log_limit = level;
}

int log_level_parse(const char *name)
{
    for (int i = 0; i < (int)(sizeof level_names / sizeof *level_names); i++)
        if (strcmp(level_names[i], name) == 0)
            return i;
    return -1;
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
    if (level > log_limit)
        return;
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now); /* for people only; nothing is decided by it */
    gmtime_r(&now.tv_sec, &utc);
    char line[2048];
    size_t used = strftime(line, sizeof line, "time=%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ level=%s program=%s event=%s ",
        now.tv_nsec / 1000000, level_names[level], log_program, event);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line + used, sizeof line - used, fmt, args);
    va_end(args);
    used = n < 0 ? used : used + (size_t)n;
    if (used > sizeof line - 1)
        used = sizeof line - 1;
    line[used++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written; /* nobody is left to tell */
}

const char *log_quote(const char *text, char *out, size_t size)
{
    size_t o = 0;
    out[o++] = '"';
    for (; text && *text && o + 4 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            out[o++] = '\\';
        out[o++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    out[o++] = '"';
    out[o] = '\0';
    return out;
}
