#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int exit_status;
    bool retry;
} err_table[ERR_COUNT] = {
#define X(code, name, exit_status, retry) {name, exit_status, retry},
    ERR_LIST(X)
#undef X
};

static int err_fill(struct err *err, enum err_code code, const char *fmt, va_list args)
{
    if (!err)
        return -1;
    err->code = code;
    vsnprintf(err->message, sizeof err->message, fmt, args);
    return -1;
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    err_fill(err, code, fmt, args);
    va_end(args);
    return -1;
}

int err_errno(struct err *err, enum err_code code, int errnum, const char *fmt, ...)
{
    if (!err)
        return -1;
    va_list args;
    va_start(args, fmt);
    err_fill(err, code, fmt, args);
    va_end(args);
    size_t used = strlen(err->message);
    char text[128];
    snprintf(err->message + used, sizeof err->message - used, ": %s", strerror_r(errnum, text, sizeof text));
    return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    if (!err)
        return -1;
    char inner[ERR_MESSAGE_MAX];
    memcpy(inner, err->message, sizeof inner);
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", inner);
    return -1;
}

static size_t err_index(enum err_code code)
{
    return (unsigned)code < ERR_COUNT ? (size_t)code : ERR_INTERNAL;
}

const char *err_name(enum err_code code)
{
    return err_table[err_index(code)].name;
}

enum err_code err_from_name(const char *name)
{
    for (size_t i = 0; name && i < ERR_COUNT; i++)
        if (strcmp(err_table[i].name, name) == 0)
            return (enum err_code)i;
    return ERR_INTERNAL;
}

int err_exit_status(enum err_code code)
{
    return err_table[err_index(code)].exit_status;
}

bool err_retryable(enum err_code code)
{
    return err_table[err_index(code)].retry;
}
