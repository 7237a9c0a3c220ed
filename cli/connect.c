#include "cli/connect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "proto/bounded.h"

#define READ_ATTEMPT_MS   1000 /* then the next controller is asked: the one that led may be dead */
#define CHANGE_ATTEMPT_MS 3000
#define RETRY_PAUSE_MS    50
#define REDIRECT_WAIT_MS  300  /* for a connection to the leader that was named */
#define REMOTE_RETRY_MS   3000 /* a controller that answers "unavailable" may be in the middle of an election */

#define NOBODY SIZE_MAX

struct endpoint {
    struct wire_client *client;
    char address[WIRE_ADDRESS_MAX];
    char last[160]; /* how it went the last time, for the message when nothing helps */
};

struct connection {
    uv_loop_t loop;
    struct wire *wire;
    struct endpoint endpoints[CONTEXT_CONTROLLERS_MAX];
    size_t count;
    size_t leader; /* index of whom to ask first; NOBODY: not known */
    size_t next;   /* whom to ask when the leader is not known */
    uint32_t timeout_ms;
    uint64_t deadline_ms;
    uv_timer_t timer;
    bool timer_fired, catching, interrupted;
};

static void on_peer(void *user, struct wire_peer *peer, bool up)
{
    (void)peer;
    struct endpoint *e = user;
    snprintf(e->last, sizeof e->last, "%s", up ? "connected" : "connection lost");
}

static void on_timer(uv_timer_t *timer)
{
    struct connection *c = timer->data;
    c->timer_fired = true;
}

int connect_open(const struct context *context, uint32_t timeout_ms, struct err *err, struct connection **out)
{
    struct connection *c = mem_zalloc(sizeof *c);
    ENSURE(uv_loop_init(&c->loop) == 0 && uv_timer_init(&c->loop, &c->timer) == 0);
    c->timer.data = c;
    c->timeout_ms = timeout_ms;
    c->leader = NOBODY;
    if (wire_new(&c->loop, &context->key, "drover " DROVER_VERSION, NULL, NULL, err, &c->wire) < 0)
        goto fail;
    for (size_t i = 0; i < context->controller_count; i++) {
        const struct peerlist_entry *from = &context->controllers[i];
        struct endpoint *e = &c->endpoints[i];
        struct wire_options options = {.on_peer = on_peer, .user = e};
        memcpy(e->address, from->address, sizeof e->address);
        snprintf(e->last, sizeof e->last, "no connection");
        if (wire_client_open(c->wire, e->address, from->key, &options, err, &e->client) < 0) {
            err_wrap(err, "controller %s", e->address);
            goto fail;
        }
        c->count = i + 1;
    }
    *out = c;
    return 0;
fail:
    connect_close(c);
    return -1;
}

void connect_close(struct connection *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++)
        wire_client_close(c->endpoints[i].client);
    wire_free(c->wire);
    loop_stop_listening(&c->loop);
    loop_close(&c->loop);
    free(c);
}

uv_loop_t *connect_loop(struct connection *c)
{
    return &c->loop;
}

struct wire_peer *connect_peer(struct connection *c)
{
    return c->leader != NOBODY && wire_client_connected(c->endpoints[c->leader].client)
               ? wire_client_peer(c->endpoints[c->leader].client)
               : NULL;
}

static void on_interrupt(void *user)
{
    struct connection *c = user;
    c->interrupted = true;
}

int connect_catch_interrupt(struct connection *c, struct err *err)
{
    if (c->catching)
        return 0;
    c->catching = true;
    return loop_on_stop(&c->loop, on_interrupt, c, err);
}

bool connect_interrupted(const struct connection *c)
{
    return c->interrupted;
}

static uint32_t time_left_ms(const struct connection *c)
{
    uint64_t now_ms = clock_now_ms();
    return now_ms < c->deadline_ms ? (uint32_t)(c->deadline_ms - now_ms) : 0;
}

/* Until something happened or the time is over. */
static void run_some(struct connection *c, uint32_t ms)
{
    c->timer_fired = false;
    uv_update_time(&c->loop);
    uv_timer_start(&c->timer, on_timer, ms, 0);
    uv_run(&c->loop, UV_RUN_ONCE);
    uv_timer_stop(&c->timer);
}

void connect_pause(struct connection *c, uint32_t ms)
{
    uint64_t until_ms = clock_now_ms() + ms, now_ms;
    while (!c->interrupted && (now_ms = clock_now_ms()) < until_ms)
        run_some(c, (uint32_t)(until_ms - now_ms));
}

/* One request to one controller. */
struct attempt {
    const ProtobufCMessageDescriptor *type;
    ProtobufCMessage *reply;
    struct err err;
    bool over;
    bool left; /* nobody waits for it any more; it frees itself */
};

static void on_reply(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct attempt *a = user;
    a->over = true;
    if (a->left)
        free(a);
    else if (err)
        a->err = *err;
    else if (!(a->reply = bounded_unpack(a->type, body, len)))
        err_set(&a->err, ERR_PROTOCOL,
            "the controller's answer cannot be read; is it of another version than 'drover version'?");
}

/* NULL: there is no reply, and `err` says why. Take: protobuf_c_message_free_unpacked(). */
static ProtobufCMessage *attempt_run(struct connection *c, size_t to, uint32_t method, const ProtobufCMessage *request,
    const ProtobufCMessageDescriptor *type, uint32_t limit_ms, struct err *err)
{
    struct attempt *a = mem_zalloc(sizeof *a);
    uint32_t left_ms = time_left_ms(c);
    a->type = type;
    wire_call(wire_client_peer(c->endpoints[to].client), method, request,
        left_ms < limit_ms ? (left_ms ? left_ms : 1) : limit_ms, on_reply, a);
    while (!a->over && !c->interrupted)
        uv_run(&c->loop, UV_RUN_ONCE);
    a->left = !a->over;
    if (a->left) {
        err_set(err, ERR_CANCELLED, "interrupted");
        return NULL;
    }
    ProtobufCMessage *reply = a->reply;
    if (!reply)
        *err = a->err;
    free(a);
    return reply;
}

static size_t endpoint_at(const struct connection *c, const char *address)
{
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->endpoints[i].address, address) == 0)
            return i;
    return NOBODY;
}

static bool endpoint_up(const struct connection *c, size_t i)
{
    return i != NOBODY && wire_client_connected(c->endpoints[i].client);
}

/* Whom to ask now; NOBODY when there is no connection at all. */
static size_t endpoint_choose(struct connection *c)
{
    uint64_t until_ms = clock_now_ms() + REDIRECT_WAIT_MS;
    while (c->leader != NOBODY && !endpoint_up(c, c->leader)) {
        uint64_t now_ms = clock_now_ms();
        if (now_ms >= until_ms || c->interrupted || time_left_ms(c) == 0)
            c->leader = NOBODY;
        else
            run_some(c, (uint32_t)(until_ms - now_ms));
    }
    if (c->leader != NOBODY)
        return c->leader;
    for (size_t k = 0; k < c->count; k++) {
        size_t i = (c->next + k) % c->count;
        if (endpoint_up(c, i))
            return i;
    }
    return NOBODY;
}

/* After an answer "not-leader": the message is the leader's address, or empty. */
static void redirect(struct connection *c, size_t from, const char *leader)
{
    size_t named = endpoint_at(c, leader);
    struct endpoint *e = &c->endpoints[from];
    snprintf(e->last, sizeof e->last, leader[0] ? "does not lead, names %.*s" : "knows no leader%.*s", WIRE_ADDRESS_MAX,
        leader);
    c->next = from + 1;
    c->leader = named == from ? NOBODY : named;
    if (c->leader == NOBODY || !endpoint_up(c, c->leader))
        connect_pause(c, RETRY_PAUSE_MS);
}

static int give_up(const struct connection *c, bool lost, struct err *err)
{
    struct buf text = {0};
    bool connected = false;
    if (c->interrupted)
        return err_set(err, ERR_CANCELLED, "interrupted%s", lost ? "" : "; nothing was changed");
    for (size_t i = 0; i < c->count; i++) {
        buf_printf(&text, "%s%s: %s", i ? ", " : "", c->endpoints[i].address, c->endpoints[i].last);
        connected = connected || endpoint_up(c, i);
    }
    err_set(err, ERR_UNAVAILABLE, "no controller answered within %u s (%.300s); %s", c->timeout_ms / 1000,
        buf_str(&text),
        connected ? "if this lasts, see whether a majority of the controllers runs"
                  : "see that drover-controller runs there, that the keys in the configuration are theirs, and that "
                    "yours is known to them");
    buf_free(&text);
    return -1;
}

/* The outcome of asking until somebody answers for good, or nobody will. UNKNOWN: nobody did, and what was sent before
 * may or may not have been taken. */
enum outcome { ANSWERED, REFUSED, UNKNOWN };

/* A controller that is closing says "cancelled", one that loses the leadership "unavailable", and what it was asked may
 * be in the log all the same. */
static bool another_may_answer(enum err_code code)
{
    return code == ERR_UNAVAILABLE || code == ERR_TIMEOUT || code == ERR_CANCELLED;
}

static enum outcome ask(struct connection *c, uint32_t method, const ProtobufCMessage *request,
    const ProtobufCMessageDescriptor *type, uint32_t attempt_ms, struct err *err, ProtobufCMessage **out)
{
    uint64_t remote_until_ms = 0;
    bool lost = false;
    while (!c->interrupted && time_left_ms(c) > 0) {
        size_t to = endpoint_choose(c);
        if (to == NOBODY) {
            run_some(c, time_left_ms(c));
            continue;
        }
        ProtobufCMessage *reply = attempt_run(c, to, method, request, type, attempt_ms, err);
        if (reply) {
            c->leader = to;
            *out = reply;
            return ANSWERED;
        }
        if (err->code == ERR_NOT_LEADER) {
            redirect(c, to, err->message);
            continue;
        }
        if (!another_may_answer(err->code))
            return err->code == ERR_PROTOCOL ? UNKNOWN : REFUSED; /* not readable, perhaps: "taken" */
        snprintf(c->endpoints[to].last, sizeof c->endpoints[to].last, "%.150s", err->message);
        c->leader = NOBODY;
        c->next = to + 1;
        lost = true;
        if (err->code != ERR_TIMEOUT && endpoint_up(c, to)) { /* the controller says so itself */
            uint64_t now_ms = clock_now_ms();
            if (remote_until_ms == 0)
                remote_until_ms = now_ms + REMOTE_RETRY_MS;
            if (now_ms > remote_until_ms)
                return UNKNOWN;
            connect_pause(c, RETRY_PAUSE_MS);
        }
    }
    give_up(c, lost, err);
    return lost ? UNKNOWN : REFUSED;
}

int connect_call(struct connection *c, uint32_t method, const ProtobufCMessage *request,
    const ProtobufCMessageDescriptor *type, struct err *err, void *out)
{
    c->deadline_ms = clock_now_ms() + c->timeout_ms;
    return ask(c, method, request, type, READ_ATTEMPT_MS, err, out) == ANSWERED ? 0 : -1;
}

static int submit(
    struct connection *c, uint32_t method, const ProtobufCMessage *request, struct err *err, Drover__JobReply **out)
{
    ProtobufCMessage *reply;
    c->deadline_ms = clock_now_ms() + c->timeout_ms;
    switch (ask(c, method, request, &drover__job_reply__descriptor, CHANGE_ATTEMPT_MS, err, &reply)) {
    case ANSWERED:
        break;
    case REFUSED:
        return -1;
    case UNKNOWN:
        return err_wrap(err, "it is not known whether the request was taken ('drover job list' tells)");
    }
    Drover__JobReply *made = (Drover__JobReply *)reply;
    if (!made->job) {
        drover__job_reply__free_unpacked(made, NULL);
        return err_set(err, ERR_PROTOCOL, "the controller answered without a job");
    }
    *out = made;
    return 0;
}

/* Where a changing request keeps its `request_id`. */
static char **request_id_field(const ProtobufCMessage *request)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(request->descriptor, "request_id");
    ENSURE(field != NULL && field->type == PROTOBUF_C_TYPE_STRING);
    return (char **)(void *)((uintptr_t)request + field->offset);
}

int connect_submit(
    struct connection *c, uint32_t method, const ProtobufCMessage *request, struct err *err, Drover__JobReply **out)
{
    uint64_t random[2];
    char id[33];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return err_errno(err, ERR_INTERNAL, errno, "no random numbers");
    snprintf(id, sizeof id, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    char **field = request_id_field(request), *was = *field;
    *field = id;
    int rc = submit(c, method, request, err, out);
    *field = was;
    return rc;
}
