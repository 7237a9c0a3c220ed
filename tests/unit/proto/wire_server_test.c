/* Whom a server lets in, and who a session is with: strangers, revoked keys, chosen ids, bad hellos. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/proto/fixture.h"

static struct raw raw;

/* --- who may come in --- */

static void test_unknown_key(void **state)
{
    (void)state;
    raw_connect(&raw, &fx.stranger);
    raw_hello(&raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    FIXTURE_UNTIL(fixture_rejections(&fx.server_side, 0).refused > 0);
    raw_expect_silence(&raw);
    assert_int_equal(fx.server_side.ups, 0);
    assert_int_equal(fixture_rejections(&fx.server_side, 0).messages_in, 0);
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
    FIXTURE_UNTIL(fixture_rejections(&fx.client_side, 0).refused > 0);
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
    assert_int_equal(fixture_rejections(&fx.server_side, 0).messages_in, 0);
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
    fixture_call(wire_client_peer(fx.client), METHOD_ECHO, "alive", 60000, &outcome);
    assert_answered(&outcome, "alive");
}

static void test_key_revoked_in_a_session(void **state)
{
    (void)state;
    struct outcome theirs = {0};
    raw_open_session(&raw);
    fixture_call(fx.server_side.peer, METHOD_PARK, "", 60000, &theirs);
    fx.revoked = true;
    raw_request(&raw, 2, METHOD_ECHO);
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
    raw_open_session(&raw);
    wire_server_drop(fx.server, &other_name);
    wire_server_drop(fx.server, &other_kind);
    assert_int_equal(fx.server_side.downs, 0);
    wire_server_drop(fx.server, &meant);
    assert_int_equal(fx.server_side.downs, 1);
    raw_request(&raw, 2, METHOD_ECHO);
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
        assert_int_equal(fixture_rejections(&fx.server_side, i + 1).rejected, i + 1);
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
    raw_request(&raw, 5, METHOD_PARK);
    FIXTURE_UNTIL(fx.server_side.parked_count == 1);
    fixture_call(fx.server_side.peer, METHOD_PARK, "", 60000, &theirs);
    raw_close(&raw);
    fx.both_known = true;
    for (int turn = 0; turn < 100 && theirs.calls == 0; turn++) { /* until the id is free */
        if (turn > 0)
            raw_close(&thief);
        raw_connect_as(&thief, &fx.stranger, id, sizeof id);
        raw_send_frame(&thief, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_PING, .id = 1});
        fixture_spin(50);
    }
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
    raw_request(&raw, 1, METHOD_ECHO);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_RESET);
    assert_int_equal(fx.server_side.requests, 0);
    assert_int_equal(fixture_rejections(&fx.server_side, 1).rejected, 1);
    raw_hello(&raw, 2, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME);
    raw_close(&raw);
}

static void test_hello_again_begins_anew(void **state)
{
    (void)state;
    struct outcome theirs = {0};
    raw_open_session(&raw);
    raw_request(&raw, 5, METHOD_PARK);
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
    raw_request(&raw, 1, METHOD_ECHO);
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
    raw_request(&raw, 2, METHOD_ECHO);
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
    assert_int_equal(fixture_rejections(&fx.server_side, 2).rejected, 2);
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
    FIXTURE_UNTIL(fixture_rejections(&fx.server_side, 0).rejected == 1);
    assert_int_equal(fx.server_side.ups, CONNECTIONS - 1);
    for (int i = 0; i < CONNECTIONS; i++)
        zmq_close(sockets[i]);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
