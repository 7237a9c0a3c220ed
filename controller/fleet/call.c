#include "controller/fleet/call.h"

#include <stdlib.h>

#include "base/loop.h"

/* A call that could not even begin; fails when the loop comes round. */
struct unanswered {
    struct loop_timer *timer;
    char host[STATE_NAME_MAX];
    wire_reply_fn fn;
    void *user;
};

static void unanswered_end(void *user)
{
    struct unanswered *u = user;
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "host %s is not connected", u->host);
    loop_timer_free(u->timer);
    u->fn(u->user, &err, NULL, 0);
    free(u);
}

void fleet_call(uv_loop_t *loop, const struct fleet *fleet, const char *host, uint32_t method,
    const ProtobufCMessage *request, uint32_t deadline_ms, wire_reply_fn fn, void *user)
{
    const struct fleet_host *session = fleet_find(fleet, host);
    if (session && session->peer) {
        wire_call(session->peer, method, request, deadline_ms, fn, user);
        return;
    }
    struct unanswered *u = mem_zalloc(sizeof *u);
    u->fn = fn;
    u->user = user;
    snprintf(u->host, sizeof u->host, "%s", host);
    u->timer = loop_timer_new(loop, unanswered_end, u);
    loop_timer_start(u->timer, 0, 0);
}
