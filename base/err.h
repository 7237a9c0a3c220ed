/* The one error type.
 *
 * A fallible function is marked MUST_CHECK, takes a `struct err *` and returns 0 or -1. On failure it fills the error
 * and leaves its result parameters untouched. The message names the thing, the cause and, where there is one, the next
 * step; callers add context on the way up with err_wrap(). Whoever decides what happens next logs or shows it, once.
 * Memory: the caller owns the struct, usually on its stack; nothing is allocated. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

#define MUST_CHECK __attribute__((warn_unused_result))

/*  code            name on the wire     exit  retry  */
#define ERR_LIST(X)                                                                                                    \
    X(ERR_NONE, "none", 0, false)                                                                                      \
    X(ERR_INTERNAL, "internal", 70, false) /* our own fault, or the system refused something basic */                  \
    X(ERR_INVALID, "invalid", 2, false)    /* what was asked for makes no sense */                                     \
    X(ERR_NOT_FOUND, "not-found", 3, false)                                                                            \
    X(ERR_EXISTS, "exists", 4, false)                                                                                  \
    X(ERR_BUSY, "busy", 5, true)                /* another job holds the thing */                                      \
    X(ERR_WRONG_STATE, "wrong-state", 6, false) /* not possible in the state the thing is in */                        \
    X(ERR_CAPACITY, "no-capacity", 7, false)    /* no host has room */                                                 \
    X(ERR_UNSUPPORTED, "unsupported", 8, false) /* kernel, QEMU or machine cannot do it */                             \
    X(ERR_DENIED, "denied", 9, false)                                                                                  \
    X(ERR_UNAVAILABLE, "unavailable", 10, true) /* nobody answers: no leader, host down, connection lost */            \
    X(ERR_NOT_LEADER, "not-leader", 10, true)   /* ask the leader named in the message */                              \
    X(ERR_TIMEOUT, "timeout", 11, true)                                                                                \
    X(ERR_CANCELLED, "cancelled", 12, false)                                                                           \
    X(ERR_PROTOCOL, "protocol", 13, false)          /* a peer sent what it must not send */                            \
    X(ERR_CONVERGENCE, "no-convergence", 14, false) /* the guest writes faster than the budget allows */               \
    X(ERR_CORRUPT, "corrupt", 15, false)            /* data does not match its checksum */                             \
    X(ERR_JOB_FAILED, "job-failed", 1, false)       /* a job that was waited for failed */

enum err_code {
#define X(code, name, exit_status, retry) code,
    ERR_LIST(X)
#undef X
        ERR_COUNT
};

#define ERR_MESSAGE_MAX 512

struct err {
    enum err_code code;
    char message[ERR_MESSAGE_MAX];
};

/* Fills `err` (which may be NULL) and returns -1, so that `return err_set(...)` is the usual way to fail. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* As err_set, and appends ": " and the text of the errno value `errnum`. */
int err_errno(struct err *err, enum err_code code, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Puts context in front: "context: message". Returns -1. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Wire name of a code; "internal" for values out of range. */
const char *err_name(enum err_code code);
/* Code of a wire name; ERR_INTERNAL when unknown. */
enum err_code err_from_name(const char *name);
/* Exit status a command line program ends with. */
int err_exit_status(enum err_code code);
/* True when the same call may succeed later without anything being changed by hand. */
bool err_retryable(enum err_code code);

#endif
