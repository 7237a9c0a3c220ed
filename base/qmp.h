/* A QMP client (QEMU's docs/interop/qmp-spec): commands with callbacks, events. Greeting and capability negotiation are
 * done inside; commands given before that wait. QEMU's answers are foreign: check what a reply holds before use. */
#ifndef BASE_QMP_H
#define BASE_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"

struct qmp;

struct qmp_options {
    /* Lent; data is an object, empty where there is none. `at_ns`: when it happened, by clock_now_ns(): QEMU stamps its
     * events, and we may hear of them a good deal later. */
    void (*on_event)(void *user, const char *event, json_t *data, uint64_t at_ns);
    void (*on_closed)(void *user, const struct err *err); /* QEMU went away; commands under way have failed before */
    void *user;
};

MUST_CHECK int qmp_open(
    uv_loop_t *loop, const char *path, const struct qmp_options *options, struct err *err, struct qmp **out);
/* `err` NULL: `result` is the command's return value (lent). Exactly once per command. */
typedef void (*qmp_reply_fn)(void *user, const struct err *err, json_t *result);
/* Sends a command; takes `arguments` (NULL: none). `fn` may be NULL. */
void qmp_command(
    struct qmp *qmp, const char *command, json_t *arguments, uint32_t timeout_ms, qmp_reply_fn fn, void *user);
/* Has QEMU said something that was not heard yet? It writes events at once (monitor/monitor.c; but for a few that it
 * limits in rate, none of a migration), so what it did before something else that can be seen of it has been told by
 * then. */
bool qmp_pending(const struct qmp *qmp);
/* Commands under way end with ERR_CANCELLED before this returns. NULL is fine. */
void qmp_close(struct qmp *qmp);

#endif
