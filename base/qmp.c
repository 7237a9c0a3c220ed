#include "base/qmp.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "base/jsonline.h"
#include "base/loop.h"

struct qmp_call {
    struct qmp_call *prev, *next;
    struct qmp *qmp;
    uint64_t id;
    char *name;
    json_t *message; /* until it is sent */
    qmp_reply_fn fn;
    void *user;
    struct loop_timer *timer;
};

enum qmp_state { QMP_GREETING, QMP_NEGOTIATING, QMP_READY, QMP_GONE };

struct qmp {
    uv_loop_t *loop;
    struct jsonline *stream;
    struct qmp_options options;
    enum qmp_state state;
    uint64_t last_id;
    struct qmp_call *calls; /* in the order they were made */
    bool closed;            /* qmp_close() was called */
    unsigned busy;          /* callbacks under way: memory stays until they return */
};

static void qmp_release(struct qmp *qmp)
{
    if (qmp->closed && qmp->busy == 0)
        free(qmp);
}

/* Ends a call: exactly once, because it leaves the list first. */
static void qmp_call_end(struct qmp_call *call, const struct err *err, json_t *result)
{
    struct qmp *qmp = call->qmp;
    DL_DELETE(qmp->calls, call);
    loop_timer_free(call->timer);
    if (call->fn)
        call->fn(call->user, err, result);
    json_decref(call->message);
    free(call->name);
    free(call);
}

/* Only those made so far: a callback that tries again must not keep this loop going. */
static void qmp_fail_calls(struct qmp *qmp, const struct err *err)
{
    uint64_t last = qmp->last_id;
    while (qmp->calls && qmp->calls->id <= last)
        qmp_call_end(qmp->calls, err, NULL);
}

static void qmp_gone(struct qmp *qmp, const struct err *err)
{
    if (qmp->state == QMP_GONE)
        return;
    qmp->state = QMP_GONE;
    qmp->busy++;
    qmp_fail_calls(qmp, err);
    if (!qmp->closed && qmp->options.on_closed)
        qmp->options.on_closed(qmp->options.user, err);
    qmp->busy--;
    qmp_release(qmp);
}

static void qmp_call_late(void *user)
{
    struct qmp_call *call = user;
    struct qmp *qmp = call->qmp;
    struct err err;
    if (qmp->state == QMP_GONE)
        err_set(&err, ERR_UNAVAILABLE, "QEMU went away before %s", call->name);
    else
        err_set(&err, ERR_TIMEOUT, "QEMU did not answer %s in time", call->name);
    qmp->busy++;
    qmp_call_end(call, &err, NULL);
    qmp->busy--;
    qmp_release(qmp);
}

static void qmp_send_waiting(struct qmp *qmp)
{
    struct qmp_call *call;
    DL_FOREACH(qmp->calls, call)
    {
        if (call->message)
            jsonline_send(qmp->stream, call->message);
        call->message = NULL;
    }
}

static struct qmp_call *qmp_call_find(struct qmp *qmp, uint64_t id)
{
    struct qmp_call *call;
    DL_FOREACH(qmp->calls, call)
    {
        if (call->id == id)
            return call;
    }
    return NULL;
}

static void qmp_on_reply(struct qmp *qmp, json_t *message)
{
    json_t *failure = json_object_get(message, "error");
    if (qmp->state == QMP_NEGOTIATING) {
        if (failure) {
            struct err err;
            err_set(&err, ERR_PROTOCOL, "QEMU refused capability negotiation");
            qmp_gone(qmp, &err);
            return;
        }
        qmp->state = QMP_READY;
        qmp_send_waiting(qmp);
        return;
    }
    struct qmp_call *call = qmp_call_find(qmp, (uint64_t)json_integer_value(json_object_get(message, "id")));
    if (!call)
        return; /* the answer to a command that timed out */
    if (failure) {
        struct err err;
        const char *text = json_string_value(json_object_get(failure, "desc"));
        err_set(&err, ERR_WRONG_STATE, "QEMU refused %s: %s", call->name, text ? text : "no reason given");
        qmp_call_end(call, &err, NULL);
        return;
    }
    json_t *result = json_object_get(message, "return");
    struct err err;
    if (!result)
        err_set(&err, ERR_PROTOCOL, "QEMU answered %s with neither a result nor an error", call->name);
    qmp_call_end(call, result ? NULL : &err, result);
}

static uint64_t qmp_stamp_ns(const json_t *message)
{
    const json_t *stamp = json_object_get(message, "timestamp");
    json_int_t s = json_integer_value(json_object_get(stamp, "seconds"));
    json_int_t us = json_integer_value(json_object_get(stamp, "microseconds"));
    bool sane = s > 0 && s < INT32_MAX * 16ll && us >= 0 && us < 1000000; /* QEMU says -1 where it has no clock */
    return sane ? clock_of_wall_ns(s * 1000000 + us) : clock_now_ns();
}

static void qmp_on_message(void *user, json_t *message)
{
    struct qmp *qmp = user;
    qmp->busy++;
    const char *event = json_string_value(json_object_get(message, "event"));
    if (event) {
        json_t *data = json_object_get(message, "data");
        json_t *empty = json_object();
        if (qmp->options.on_event)
            qmp->options.on_event(qmp->options.user, event, json_is_object(data) ? data : empty, qmp_stamp_ns(message));
        json_decref(empty);
    } else if (qmp->state == QMP_GREETING && json_object_get(message, "QMP")) {
        qmp->state = QMP_NEGOTIATING;
        jsonline_send(qmp->stream, json_pack("{s:s}", "execute", "qmp_capabilities"));
    } else if (qmp->state == QMP_NEGOTIATING || qmp->state == QMP_READY) {
        qmp_on_reply(qmp, message);
    }
    qmp->busy--;
    qmp_release(qmp);
}

static void qmp_on_closed(void *user, const struct err *err)
{
    qmp_gone(user, err);
}

int qmp_open(uv_loop_t *loop, const char *path, const struct qmp_options *options, struct err *err, struct qmp **out)
{
    struct qmp *qmp = mem_zalloc(sizeof *qmp);
    qmp->loop = loop;
    if (options)
        qmp->options = *options;
    struct jsonline_options stream = {.on_message = qmp_on_message, .on_closed = qmp_on_closed, .user = qmp};
    if (jsonline_connect(loop, path, &stream, err, &qmp->stream) < 0) {
        free(qmp);
        return err_wrap(err, "QMP");
    }
    *out = qmp;
    return 0;
}

void qmp_command(
    struct qmp *qmp, const char *command, json_t *arguments, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
    ENSURE(!qmp->closed);
    struct qmp_call *call = mem_zalloc(sizeof *call);
    call->qmp = qmp;
    call->id = ++qmp->last_id;
    call->name = mem_strdup(command);
    call->fn = fn;
    call->user = user;
    call->message = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)call->id);
    if (arguments)
        json_object_set_new(call->message, "arguments", arguments);
    call->timer = loop_timer_new(qmp->loop, qmp_call_late, call);
    /* On a connection that is gone the timer reports the failure, so that the callback never comes from inside this
     * call. */
    loop_timer_start(call->timer, qmp->state == QMP_GONE ? 0 : timeout_ms, 0);
    DL_APPEND(qmp->calls, call);
    if (qmp->state == QMP_READY)
        qmp_send_waiting(qmp);
}

bool qmp_pending(const struct qmp *qmp)
{
    return qmp->state != QMP_GONE && jsonline_pending(qmp->stream);
}

void qmp_close(struct qmp *qmp)
{
    if (!qmp)
        return;
    ENSURE(!qmp->closed);
    qmp->closed = true;
    struct err err;
    err_set(&err, ERR_CANCELLED, "connection to QEMU closed");
    qmp->busy++;
    qmp_fail_calls(qmp, &err);
    jsonline_close(qmp->stream);
    qmp->busy--;
    qmp_release(qmp);
}
