/* Put in front of every file by `tests/lint tidy`. The analyzer sees one file at a time and no variadic function
 * inside; it has to know that these three always fail, or it takes every result of a function that returns with them
 * for one that was never set. */
#ifndef TESTS_LIB_ANALYZE_H
#define TESTS_LIB_ANALYZE_H

#include "base/err.h"

void err_format(const char *fmt, ...);

static inline int err_fail(struct err *err, enum err_code code)
{
    if (err)
        *err = (struct err){code, "?"};
    return -1;
}

#define err_set(err, code, ...)           (err_format(__VA_ARGS__), err_fail((err), (code)))
#define err_errno(err, code, errnum, ...) (err_format(__VA_ARGS__, (errnum)), err_fail((err), (code)))
#define err_wrap(err, ...)                (err_format(__VA_ARGS__), err_fail((err), ERR_INTERNAL))

#endif
