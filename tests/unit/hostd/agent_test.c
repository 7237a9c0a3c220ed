/* Whose orders a host obeys, and what it says to begin with. The wire and the partitions are stood in for: what the
 * agent asks is kept, what it is told comes from the test. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "hostd/agent.h"
#include "proto/api.pb-c.h"

#define METHOD 77u

/* A controller as the agent has it. */
struct wire_client {
    struct wire_options options;
    wire_reply_fn answer; /* of the hello under way; NULL: none is */
    void *answer_user;
};

static struct wire_client clients[2];
static size_t client_count, refused, obeyed;
static bool shutting_down, told; /* the host is; its last hello said so */

int __wrap_wire_client_open(struct wire *wire, const char *address, const uint8_t key[KEY_BYTES],
    const struct wire_options *options, struct err *err, struct wire_client **out);
int __wrap_wire_client_open(struct wire *wire, const char *address, const uint8_t key[KEY_BYTES],
    const struct wire_options *options, struct err *err, struct wire_client **out)
{
    (void)wire, (void)address, (void)key, (void)err;
    struct wire_client *client = &clients[client_count++];
    *client = (struct wire_client){.options = *options};
    *out = client;
    return 0;
}

bool __wrap_wire_client_connected(const struct wire_client *client);
bool __wrap_wire_client_connected(const struct wire_client *client)
{
    (void)client;
    return true;
}

struct wire_peer *__wrap_wire_client_peer(struct wire_client *client);
struct wire_peer *__wrap_wire_client_peer(struct wire_client *client)
{
    return (struct wire_peer *)client;
}

static void answer(struct wire_client *client, const struct err *err, const struct buf *body)
{
    wire_reply_fn fn = client->answer;
    client->answer = NULL;
    if (fn)
        fn(client->answer_user, err, body ? body->data : NULL, body ? body->len : 0);
}

void __wrap_wire_client_close(struct wire_client *client);
void __wrap_wire_client_close(struct wire_client *client)
{
    struct err err;
    err_set(&err, ERR_CANCELLED, "closed");
    answer(client, &err, NULL);
}

void __wrap_wire_call(struct wire_peer *peer, uint32_t method, const ProtobufCMessage *request, uint32_t deadline_ms,
    wire_reply_fn fn, void *user);
void __wrap_wire_call(struct wire_peer *peer, uint32_t method, const ProtobufCMessage *request, uint32_t deadline_ms,
    wire_reply_fn fn, void *user)
{
    (void)deadline_ms;
    struct wire_client *client = (struct wire_client *)peer;
    ENSURE(!client->answer);
    if (method == DROVER__METHOD__HOST_HELLO)
        told = ((const Drover__HostHelloRequest *)(const void *)request)->shutting_down;
    client->answer = fn;
    client->answer_user = user;
}

void __wrap_wire_reply_error(struct wire_request *request, const struct err *err);
void __wrap_wire_reply_error(struct wire_request *request, const struct err *err)
{
    (void)request;
    refused += err->code == ERR_UNAVAILABLE;
}

void __wrap_partitions_report(struct partitions *ps, uint64_t sequence, bool hello, struct reports *out);
void __wrap_partitions_report(struct partitions *ps, uint64_t sequence, bool hello, struct reports *out)
{
    (void)ps, (void)sequence, (void)hello;
    *out = (struct reports){0};
}

void __wrap_partitions_heard(struct partitions *ps, uint64_t sequence);
void __wrap_partitions_heard(struct partitions *ps, uint64_t sequence)
{
    (void)ps, (void)sequence;
}

void __wrap_partitions_set_host_name(struct partitions *ps, const char *name);
void __wrap_partitions_set_host_name(struct partitions *ps, const char *name)
{
    (void)ps, (void)name;
}

bool __wrap_partitions_shutting_down(const struct partitions *ps);
bool __wrap_partitions_shutting_down(const struct partitions *ps)
{
    (void)ps;
    return shutting_down;
}

void __wrap_stats_history(const struct stats *stats, struct stats_history *out);
void __wrap_stats_history(const struct stats *stats, struct stats_history *out)
{
    (void)stats;
    *out = (struct stats_history){.message = DROVER__LOAD_HISTORY__INIT};
}

static void handle(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    (void)user, (void)request, (void)peer, (void)body, (void)len;
    obeyed += method == METHOD;
}

/* True: it was obeyed; false: it was refused. */
static bool order(struct wire_client *from)
{
    char request;
    size_t before = obeyed, no = refused;
    from->options.handler(
        from->options.user, (struct wire_request *)&request, (struct wire_peer *)from, METHOD, NULL, 0);
    assert_int_equal(obeyed - before + refused - no, 1);
    return obeyed > before;
}

static void begin_session(struct wire_client *client)
{
    cleanup_buf struct buf body = {0};
    Drover__HostHelloReply reply = DROVER__HOST_HELLO_REPLY__INIT;
    reply.lease_ms = 5000;
    reply.heartbeat_ms = 1000;
    reply.host_name = (char *)(uintptr_t) "h1";
    body.len = drover__host_hello_reply__get_packed_size(&reply);
    body.data = mem_alloc(body.len);
    drover__host_hello_reply__pack(&reply, body.data);
    client->options.on_peer(client->options.user, (struct wire_peer *)client, true);
    assert_non_null(client->answer);
    answer(client, NULL, &body);
}

static void lose(struct wire_client *client)
{
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "lost");
    answer(client, &err, NULL);
    client->options.on_peer(client->options.user, (struct wire_peer *)client, false);
}

static void only_who_the_last_session_is_with_is_obeyed(void **unused)
{
    (void)unused;
    struct err err;
    uv_loop_t loop;
    struct agent *agent;
    Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
    const struct peerlist_entry addresses[2] = {{.address = "tcp://c1"}, {.address = "tcp://c2"}};
    assert_int_equal(uv_loop_init(&loop), 0);
    const struct agent_options options = {
        .loop = &loop, .controllers = addresses, .controller_count = 2, .facts = &facts, .handler = handle};
    assert_int_equal(agent_open(&options, &err, &agent), 0);
    struct wire_client *c1 = &clients[0], *c2 = &clients[1];
    assert_false(order(c1));
    begin_session(c1);
    assert_true(order(c1));
    assert_false(order(c2));
    lose(c1);
    assert_true(order(c1)); /* nobody else has led this host since */
    assert_false(told);
    shutting_down = true;
    begin_session(c2);
    assert_true(told); /* a new leader knows it from the start */
    assert_true(order(c2));
    assert_false(order(c1)); /* stood still, and does not know that it leads no more */
    agent_close(agent);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_who_the_last_session_is_with_is_obeyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
