/* A server against peers that break the rules: strangers, revoked keys, replays, garbage, silence. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/proto/fixture.h"

static struct raw raw;

/* A raw peer with the client's key and a session. */
static void raw_session(void)
{
    raw_connect(&raw, &fx.client_side.key);
    raw_hello(&raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME), 1);
    assert_int_equal(fx.server_side.ups, 1);
}

static void raw_request(uint64_t id, uint32_t method)
{
    static const uint8_t body[] = {0x12, 2, 'h', 'i'};
    raw_send_frame(&raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_REQUEST,
                             .id = id,
                             .method = method,
                             .packed = body,
                             .packed_len = sizeof body});
}

/* The session has ended, without a word; the server goes on with others. */
static void assert_session_lost(uint64_t rejections)
{
    struct outcome outcome = {0};
    raw_expect_silence(&raw);
    assert_int_equal(fx.server_side.downs, 1);
    assert_int_equal(fixture_rejections(&fx.server_side).rejected, rejections);
    raw_close(&raw);
    fixture_connect(NULL);
    fixture_call(wire_client_peer(fx.client), METHOD_ECHO, "others", 5000, &outcome);
    assert_answered(&outcome, "others");
}

static void restart_server(const struct wire_options *limits, uint64_t tick_ms)
{
    fx.server_side.wire->tick_ms = tick_ms;
    wire_server_close(fx.server);
    fixture_listen("tcp://127.0.0.1:0", limits);
}

/* --- who may come in --- */

static void test_unknown_key(void **state)
{
    (void)state;
    raw_connect(&raw, &fx.stranger);
    raw_hello(&raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    FIXTURE_UNTIL(fixture_rejections(&fx.server_side).refused > 0);
    raw_expect_silence(&raw);
    assert_int_equal(fx.server_side.ups, 0);
    assert_int_equal(fixture_rejections(&fx.server_side).messages_in, 0);
    raw_close(&raw);
}

static void test_no_auth_function_lets_nobody_in(void **state)
{
    (void)state;
    struct err err;
    struct wire_server *server;
    struct wire_options options = {.handler = (wire_handler_fn)(void *)abort};
    assert_int_equal(wire_server_open(fx.client_side.wire, "tcp://127.0.0.1:0", &options, &err, &server), 0);
    struct wire_client *client;
    options.handler = NULL;
    assert_int_equal(wire_client_open(fx.server_side.wire, wire_server_address(server), fx.client_side.key.public_key,
                         &options, &err, &client),
        0);
    FIXTURE_UNTIL(fixture_rejections(&fx.client_side).refused > 0);
    assert_false(wire_client_connected(client));
    wire_client_close(client);
    wire_server_close(server);
}

static void test_no_encryption(void **state)
{
    (void)state;
    memset(&raw, 0, sizeof raw);
    raw.context = zmq_ctx_new();
    raw.socket = zmq_socket(raw.context, ZMQ_DEALER);
    assert_int_equal(zmq_setsockopt(raw.socket, ZMQ_LINGER, &(int){0}, sizeof(int)), 0);
    assert_int_equal(zmq_connect(raw.socket, fx.address), 0);
    raw_hello(&raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    raw_expect_silence(&raw);
    assert_int_equal(fixture_rejections(&fx.server_side).messages_in, 0);
    raw_close(&raw);
}

static void test_no_zeromq(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strrchr(fx.address, ':') + 1));
    uint32_t random = 7;
    for (int i = 0; i < 20; i++) {
        uint8_t garbage[256];
        for (size_t k = 0; k < sizeof garbage; k++)
            garbage[k] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
        if (i % 2) /* the greeting of ZMTP 3 with CURVE, then garbage */
            memcpy(garbage, "\xff\0\0\0\0\0\0\0\1\x7f\3\1CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 33);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        assert_int_equal(send(fd, garbage, sizeof garbage, MSG_NOSIGNAL), (int)sizeof garbage);
        fixture_spin(5);
        close(fd);
    }
    fixture_connect(NULL);
    fixture_call(wire_client_peer(fx.client), METHOD_ECHO, "alive", 5000, &outcome);
    assert_answered(&outcome, "alive");
}

static void test_key_revoked_in_a_session(void **state)
{
    (void)state;
    struct outcome theirs = {0};
    raw_session();
    fixture_call(fx.server_side.peer, METHOD_PARK, "", 60000, &theirs);
    fx.revoked = true;
    raw_request(2, METHOD_ECHO);
    FIXTURE_UNTIL(fx.server_side.downs == 1);
    assert_failed(&theirs, ERR_UNAVAILABLE);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST) > 0, 1); /* ours, from before */
    raw_hello(&raw, 3, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    raw_expect_silence(&raw);
    assert_int_equal(fx.server_side.requests, 0);
    assert_int_equal(fx.server_side.ups, 1);
    raw_close(&raw);
}

static void test_dropped_by_kind_and_name(void **state)
{
    (void)state;
    const struct principal other_name = {PRINCIPAL_HOST, "somebody else"}, other_kind = {PRINCIPAL_USER, "client"},
                           meant = {PRINCIPAL_HOST, "client"};
    raw_session();
    wire_server_drop(fx.server, &other_name);
    wire_server_drop(fx.server, &other_kind);
    assert_int_equal(fx.server_side.downs, 0);
    wire_server_drop(fx.server, &meant);
    assert_int_equal(fx.server_side.downs, 1);
    raw_request(2, METHOD_ECHO);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_RESET);
    assert_int_equal(fx.server_side.requests, 0);
    raw_close(&raw);
}

/* Who could choose an id could wait for that of another's connection to become free, and get the answers meant for it.
 */
static void test_chosen_routing_id(void **state)
{
    (void)state;
    static const struct {
        const char *id;
        size_t len;
    } ids[] = {{"client", 6}, {"me-me", 5}, {"\0", 1}, {"\0\1\2\3\4\5", 6}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        raw_connect_as(&raw, &fx.client_side.key, ids[i].id, ids[i].len);
        raw_hello(&raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
        raw_expect_silence(&raw);
        assert_int_equal(fx.server_side.ups, 0);
        assert_int_equal(fixture_rejections(&fx.server_side).rejected, i + 1);
        raw_close(&raw);
    }
}

/* Another key on the routing id of a session, as if its number had been guessed: neither of them gets anything. */
static void test_routing_id_taken_over(void **state)
{
    (void)state;
    static const uint8_t id[] = {0, 1, 2, 3, 4};
    struct raw thief;
    struct outcome theirs = {0};
    raw_connect_as(&raw, &fx.client_side.key, id, sizeof id);
    raw_hello(&raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME);
    raw_request(5, METHOD_PARK);
    FIXTURE_UNTIL(fx.server_side.parked_count == 1);
    fixture_call(fx.server_side.peer, METHOD_PARK, "", 60000, &theirs);
    raw_close(&raw);
    fixture_spin(50);
    fx.both_known = true;
    raw_connect_as(&thief, &fx.stranger, id, sizeof id);
    raw_send_frame(&thief, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_PING, .id = 1});
    assert_failed(&theirs, ERR_UNAVAILABLE);
    assert_int_equal(fx.server_side.downs, 1);
    Drover__ErrorInfo answer = DROVER__ERROR_INFO__INIT;
    wire_reply(fx.server_side.parked[--fx.server_side.parked_count], &answer.base);
    raw_expect_silence(&thief);
    raw_close(&thief);
}

/* --- hello --- */

static void test_no_hello(void **state)
{
    (void)state;
    raw_connect(&raw, &fx.client_side.key);
    raw_request(1, METHOD_ECHO);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_RESET);
    assert_int_equal(fx.server_side.requests, 0);
    assert_int_equal(fixture_rejections(&fx.server_side).rejected, 1);
    raw_hello(&raw, 2, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME);
    raw_close(&raw);
}

static void test_hello_again_begins_anew(void **state)
{
    (void)state;
    struct outcome theirs = {0};
    raw_session();
    raw_request(5, METHOD_PARK);
    FIXTURE_UNTIL(fx.server_side.parked_count == 1);
    fixture_call(fx.server_side.peer, METHOD_PARK, "", 60000, &theirs);
    raw_hello(&raw, 9, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    FIXTURE_UNTIL(fx.server_side.ups == 2);
    assert_failed(&theirs, ERR_UNAVAILABLE);
    assert_int_equal(fx.server_side.downs, 1);
    /* The answer to a request of the old session must not reach the new one, whose numbers begin anew. */
    Drover__ErrorInfo answer = DROVER__ERROR_INFO__INIT;
    wire_reply(fx.server_side.parked[--fx.server_side.parked_count], &answer.base);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME), 9);
    raw_request(1, METHOD_ECHO);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REPLY), 1);
    raw_close(&raw);
}

static void test_other_protocol_version(void **state)
{
    (void)state;
    struct err err;
    raw_connect(&raw, &fx.client_side.key);
    raw_hello(&raw, 1, WIRE_PROTOCOL_MAX + 1, WIRE_PROTOCOL_MAX + 3);
    Drover__Frame *welcome = raw_receive(&raw, FIXTURE_WAIT_MS);
    assert_non_null(welcome);
    assert_int_equal(welcome->kind, DROVER__FRAME_KIND__FRAME_WELCOME);
    frame_error(welcome, &err);
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_non_null(strstr(err.message, "raw 1 speaks protocol 2 to 4, server 1 speaks 1 to 1"));
    frame_free(welcome);
    assert_int_equal(fx.server_side.ups, 0);
    raw_request(2, METHOD_ECHO);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_RESET);
    /* One that speaks ours too is fine. */
    raw_hello(&raw, 3, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX + 3);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME), 3);
    assert_int_equal(fx.server_side.ups, 1);
    raw_close(&raw);
}

static void test_bad_hello(void **state)
{
    (void)state;
    raw_connect(&raw, &fx.client_side.key);
    raw_hello(&raw, 1, 2, 1);
    raw_send_frame(&raw,
        &(struct frame){
            .kind = DROVER__FRAME_KIND__FRAME_HELLO, .id = 1, .packed = (const uint8_t *)"\xff", .packed_len = 1});
    raw_expect_silence(&raw);
    assert_int_equal(fixture_rejections(&fx.server_side).rejected, 2);
    assert_int_equal(fx.server_side.ups, 0);
    raw_close(&raw);
}

#define CONNECTIONS 257

static void test_too_many_connections_of_one_key(void **state)
{
    (void)state;
    static void *sockets[CONNECTIONS];
    raw_connect(&raw, &fx.client_side.key);
    for (int i = 0; i < CONNECTIONS; i++) {
        sockets[i] = zmq_socket(raw.context, ZMQ_DEALER);
        zmq_setsockopt(sockets[i], ZMQ_LINGER, &(int){0}, sizeof(int));
        zmq_setsockopt(sockets[i], ZMQ_CURVE_PUBLICKEY, fx.client_side.key.public_key, KEY_BYTES);
        zmq_setsockopt(sockets[i], ZMQ_CURVE_SECRETKEY, fx.client_side.key.secret_key, KEY_BYTES);
        zmq_setsockopt(sockets[i], ZMQ_CURVE_SERVERKEY, fx.server_side.key.public_key, KEY_BYTES);
        assert_int_equal(zmq_connect(sockets[i], fx.address), 0);
        struct raw one = {.socket = sockets[i]};
        raw_hello(&one, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    }
    FIXTURE_UNTIL(fixture_rejections(&fx.server_side).rejected == 1);
    assert_int_equal(fx.server_side.ups, CONNECTIONS - 1);
    for (int i = 0; i < CONNECTIONS; i++)
        zmq_close(sockets[i]);
    raw_close(&raw);
}

/* --- messages in a session --- */

static void test_replayed_request(void **state)
{
    (void)state;
    raw_session();
    raw_request(7, METHOD_ECHO);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REPLY), 7);
    raw_request(7, METHOD_ECHO);
    assert_session_lost(1);
    assert_int_equal(fx.server_side.requests, 2); /* that one, and the other client's */
}

static void test_older_request(void **state)
{
    (void)state;
    raw_session();
    raw_request(7, METHOD_ECHO);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REPLY), 7);
    raw_request(6, METHOD_ECHO);
    assert_session_lost(1);
}

static void test_truncated_request(void **state)
{
    (void)state;
    struct frame frame = {.kind = DROVER__FRAME_KIND__FRAME_REQUEST,
        .id = 2,
        .method = METHOD_ECHO,
        .packed = (const uint8_t *)"\x12\x02hi",
        .packed_len = 4};
    uint8_t data[64];
    frame_encode(&frame, data);
    raw_session();
    raw_send(&raw, data, frame_size(&frame) - 1);
    assert_session_lost(1);
}

static void test_empty_message(void **state)
{
    (void)state;
    raw_session();
    raw_send(&raw, "", 0);
    assert_session_lost(1);
}

static void test_message_of_several_parts(void **state)
{
    (void)state;
    raw_session();
    zmq_send(raw.socket, "a", 1, ZMQ_SNDMORE);
    zmq_send(raw.socket, "b", 1, ZMQ_SNDMORE);
    zmq_send(raw.socket, "c", 1, 0);
    assert_session_lost(1);
}

static void test_oversized_message(void **state)
{
    (void)state;
    static uint8_t data[8192];
    restart_server(&(struct wire_options){.max_message = 4096}, WIRE_TICK_MS);
    raw_session();
    raw_send_frame(
        &raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_NOTE, .method = 1, .packed = data, .packed_len = 4097});
    assert_session_lost(1);
}

/* So large that ZeroMQ cuts the connection before the message is in memory. */
static void test_huge_message(void **state)
{
    (void)state;
    static uint8_t data[1 << 20];
    struct outcome outcome = {0};
    restart_server(&(struct wire_options){.max_message = 4096}, FIXTURE_TICK_MS);
    raw_session();
    raw_send(&raw, data, sizeof data);
    FIXTURE_UNTIL(fx.server_side.downs == 1);
    struct wire_counters counters = fixture_rejections(&fx.server_side);
    assert_in_range(counters.bytes_in, 1, 4096);
    raw_close(&raw);
    fixture_connect(NULL);
    fixture_call(wire_client_peer(fx.client), METHOD_ECHO, "others", 5000, &outcome);
    assert_answered(&outcome, "others");
}

static void test_kinds_that_are_not_the_clients(void **state)
{
    (void)state;
    static const Drover__FrameKind kinds[] = {
        DROVER__FRAME_KIND__FRAME_WELCOME, DROVER__FRAME_KIND__FRAME_RESET, DROVER__FRAME_KIND__FRAME_PONG};
    raw_session();
    for (unsigned i = 0; i < 3; i++) {
        if (kinds[i] == DROVER__FRAME_KIND__FRAME_WELCOME)
            raw_welcome(&raw, 1, NULL);
        else /* a PONG to a ping that was never sent */
            raw_send_frame(
                &raw, &(struct frame){.kind = kinds[i], .id = kinds[i] == DROVER__FRAME_KIND__FRAME_PONG ? 999 : 0});
        raw_expect_silence(&raw);
        assert_int_equal(fx.server_side.downs, i + 1);
        raw_hello(&raw, 10 + i, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
        assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME), 10 + i);
    }
    raw_close(&raw);
}

static void test_replies_nobody_waits_for(void **state)
{
    (void)state;
    struct outcome theirs = {0};
    raw_session();
    fixture_call(fx.server_side.peer, METHOD_ECHO, "", 60000, &theirs);
    uint64_t id = raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST);
    struct frame reply = {
        .kind = DROVER__FRAME_KIND__FRAME_REPLY, .id = id, .packed = (const uint8_t *)"\x12\x01y", .packed_len = 3};
    raw_send_frame(&raw, &reply);
    assert_answered(&theirs, "y");
    raw_send_frame(&raw, &reply); /* again: dropped and counted, as a late one would be */
    assert_int_equal(fixture_rejections(&fx.server_side).rejected, 1);
    assert_int_equal(theirs.calls, 1);
    assert_int_equal(fx.server_side.downs, 0);
    reply.id = id + 1; /* never asked */
    raw_send_frame(&raw, &reply);
    assert_session_lost(2);
}

/* One peer answers the request that was made to another. */
static void test_reply_of_somebody_else(void **state)
{
    (void)state;
    struct outcome theirs = {0};
    fixture_connect(NULL);
    struct wire_peer *honest = fx.server_side.peer;
    raw_connect(&raw, &fx.client_side.key);
    raw_hello(&raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME);
    fixture_call(honest, METHOD_PARK, "", 500, &theirs);
    raw_send_frame(&raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_REPLY, .id = fx.server_side.wire->last_id});
    assert_failed(&theirs, ERR_TIMEOUT);
    raw_close(&raw);
}

static void test_too_many_requests(void **state)
{
    (void)state;
    restart_server(&(struct wire_options){.queue_messages = 2}, WIRE_TICK_MS);
    raw_session();
    for (uint64_t id = 1; id <= 8; id++)
        raw_request(id, METHOD_PARK);
    FIXTURE_UNTIL(fx.server_side.parked_count == 8);
    raw_request(9, METHOD_PARK);
    Drover__Frame *reply = raw_receive(&raw, FIXTURE_WAIT_MS);
    assert_non_null(reply);
    assert_int_equal(reply->id, 9);
    assert_string_equal(reply->error->code, "busy");
    frame_free(reply);
    assert_int_equal(fx.server_side.parked_count, 8);
    raw_close(&raw);
}

/* A peer that asks and asks and never reads its answers. */
static void test_peer_that_does_not_read(void **state)
{
    (void)state;
    static uint8_t body[1 << 20];
    size_t text_len = sizeof body - 4;
    memset(body, 'x', sizeof body);
    body[0] = 0x12;
    body[1] = (uint8_t)(text_len | 0x80);
    body[2] = (uint8_t)(text_len >> 7 | 0x80);
    body[3] = (uint8_t)(text_len >> 14);
    restart_server(&(struct wire_options){.queue_messages = 2}, WIRE_TICK_MS);
    raw_session();
    for (uint64_t id = 1; id < 200 && fx.server_side.downs == 0; id++) {
        raw_send_frame(&raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_REQUEST,
                                 .id = id,
                                 .method = METHOD_ECHO,
                                 .packed = body,
                                 .packed_len = sizeof body});
        fixture_spin(5);
    }
    FIXTURE_UNTIL(fx.server_side.downs == 1);
    raw_close(&raw);
}

static void test_silent_peer(void **state)
{
    (void)state;
    restart_server(NULL, FIXTURE_TICK_MS);
    raw_session();
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_PING); /* it is asked first */
    raw_request(1, METHOD_ECHO);
    fixture_spin(FIXTURE_TICK_MS * (WIRE_SERVER_LOST_TICKS - 4));
    assert_int_equal(fx.server_side.downs, 0); /* it was heard */
    FIXTURE_UNTIL(fx.server_side.downs == 1);
    raw_close(&raw);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_unknown_key),
        T(test_no_auth_function_lets_nobody_in),
        T(test_no_encryption),
        T(test_no_zeromq),
        T(test_key_revoked_in_a_session),
        T(test_dropped_by_kind_and_name),
        T(test_chosen_routing_id),
        T(test_routing_id_taken_over),
        T(test_no_hello),
        T(test_hello_again_begins_anew),
        T(test_other_protocol_version),
        T(test_bad_hello),
        T(test_too_many_connections_of_one_key),
        T(test_replayed_request),
        T(test_older_request),
        T(test_truncated_request),
        T(test_empty_message),
        T(test_message_of_several_parts),
        T(test_oversized_message),
        T(test_huge_message),
        T(test_kinds_that_are_not_the_clients),
        T(test_replies_nobody_waits_for),
        T(test_reply_of_somebody_else),
        T(test_too_many_requests),
        T(test_peer_that_does_not_read),
        T(test_silent_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
