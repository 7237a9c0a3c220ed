/* A client against servers that break the rules, or that are something else altogether. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/proto/fixture.h"

static struct raw raw;

/* A client whose server is `raw`; its hello has come in. */
static uint64_t raw_serve(uint64_t tick_ms)
{
    wire_server_close(fx.server);
    fx.server = NULL;
    raw_listen(&raw, &fx.server_side.key, "tcp://127.0.0.1:*");
    strcpy(fx.address, raw.address);
    fx.client_side.wire->tick_ms = tick_ms;
    fixture_connect_later(NULL);
    return raw_expect(&raw, DROVER__FRAME_KIND__FRAME_HELLO);
}

/* Welcomes the hello `id`. One that is answered late is repeated, and then only the newest counts. */
static void raw_let_in(uint64_t id)
{
    uint64_t give_up_ms = clock_now_ms() + FIXTURE_WAIT_MS;
    raw_welcome(&raw, id, NULL);
    while (!wire_client_connected(fx.client)) {
        Drover__Frame *frame = raw_receive(&raw, FIXTURE_TICK_MS / 4);
        if (frame && frame->kind == DROVER__FRAME_KIND__FRAME_HELLO)
            raw_welcome(&raw, frame->id, NULL);
        frame_free(frame);
        assert_true(clock_now_ms() < give_up_ms);
    }
}

static void raw_session(uint64_t tick_ms)
{
    raw_let_in(raw_serve(tick_ms));
}

static struct wire_peer *to_server(void)
{
    return wire_client_peer(fx.client);
}

static void raw_reply(uint64_t id)
{
    raw_send_frame(&raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_REPLY,
                             .id = id,
                             .packed = (const uint8_t *)"\x12\x02yo",
                             .packed_len = 4});
}

static void assert_begins_anew(uint64_t rejections)
{
    FIXTURE_UNTIL(fx.client_side.downs == 1);
    raw_let_in(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_HELLO));
    assert_int_equal(fx.client_side.ups, 2);
    assert_int_equal(fixture_rejections(&fx.client_side, rejections).rejected, rejections);
    raw_close(&raw);
}

static void test_wrong_server_key(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    memcpy(fx.server_side.key.public_key, fx.stranger.public_key, KEY_BYTES);
    fixture_connect_later(NULL);
    fixture_call(to_server(), METHOD_ECHO, "", 300, &outcome);
    assert_failed(&outcome, ERR_UNAVAILABLE);
    assert_int_equal(fx.server_side.ups, 0);
}

static void test_unknown_then_enrolled(void **state)
{
    (void)state;
    fx.revoked = true;
    fixture_connect_later(NULL);
    FIXTURE_UNTIL(fixture_rejections(&fx.server_side, 0).refused > 1);
    assert_false(wire_client_connected(fx.client));
    fx.revoked = false;
    FIXTURE_UNTIL(wire_client_connected(fx.client));
}

static void test_server_refuses(void **state)
{
    (void)state;
    struct outcome early = {0}, late = {0}, after = {0};
    struct err err;
    uint64_t id = raw_serve(10 * FIXTURE_TICK_MS); /* the refusal has to come before it says hello again */
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &early);
    err_set(&err, ERR_PROTOCOL, "client 1 is too old");
    raw_welcome(&raw, id, &err);
    assert_failed(&early, ERR_PROTOCOL);
    assert_non_null(strstr(early.err.message, "client 1 is too old"));
    assert_non_null(strstr(early.err.message, fx.address));
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &late);
    assert_failed(&late, ERR_PROTOCOL); /* at once */
    assert_non_null(strstr(late.err.message, "client 1 is too old"));
    assert_int_equal(fx.client_side.ups, 0);
    /* It asks again by and by: somebody may have upgraded the server. */
    raw_let_in(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_HELLO));
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &after);
    raw_reply(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST));
    assert_answered(&after, "yo");
    raw_close(&raw);
}

static void test_server_of_other_version(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    uint64_t id = raw_serve(WIRE_TICK_MS);
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &outcome);
    Drover__Hello hello = DROVER__HELLO__INIT;
    hello.protocol_min = WIRE_PROTOCOL_MAX + 1;
    hello.protocol_max = WIRE_PROTOCOL_MAX + 1;
    hello.max_message = WIRE_MESSAGE_MAX;
    hello.program = (char *)"future 9";
    raw_send_frame(&raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_WELCOME, .id = id, .body = &hello.base});
    assert_failed(&outcome, ERR_PROTOCOL);
    assert_non_null(strstr(outcome.err.message, "future 9 speaks protocol 2 to 2, client 1 speaks 1 to 1"));
    raw_close(&raw);
}

static void test_welcome_to_another_hello(void **state)
{
    (void)state;
    uint64_t id = raw_serve(WIRE_TICK_MS);
    raw_welcome(&raw, id + 1, NULL);
    fixture_spin(50);
    assert_false(wire_client_connected(fx.client));
    raw_welcome(&raw, id, NULL);
    FIXTURE_UNTIL(wire_client_connected(fx.client));
    raw_close(&raw);
}

static void test_hello_is_repeated(void **state)
{
    (void)state;
    uint64_t first = raw_serve(FIXTURE_TICK_MS);
    uint64_t second = raw_expect(&raw, DROVER__FRAME_KIND__FRAME_HELLO);
    assert_true(second > first);
    raw_welcome(&raw, first, NULL); /* late */
    fixture_spin(FIXTURE_TICK_MS / 2);
    assert_false(wire_client_connected(fx.client));
    raw_close(&raw);
}

/* The server has forgotten the session: it is told so, and says hello at once. */
static void test_reset(void **state)
{
    (void)state;
    struct outcome lost = {0}, after = {0};
    raw_session(WIRE_TICK_MS);
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &lost);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST);
    for (int i = 0; i < 3; i++) /* one for every message it had sent */
        raw_send_frame(&raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_RESET});
    assert_failed(&lost, ERR_UNAVAILABLE);
    assert_int_equal(fx.client_side.downs, 1);
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &after);
    raw_welcome(&raw, raw_expect(&raw, DROVER__FRAME_KIND__FRAME_HELLO), NULL);
    raw_reply(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST));
    assert_answered(&after, "yo");
    assert_int_equal(fx.client_side.downs, 1);
    raw_close(&raw);
}

static void test_silent_server(void **state)
{
    (void)state;
    struct outcome lost = {0};
    raw_session(FIXTURE_TICK_MS);
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &lost);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST);
    assert_failed(&lost, ERR_UNAVAILABLE);
    assert_begins_anew(0);
}

static void test_malformed_message(void **state)
{
    (void)state;
    raw_session(WIRE_TICK_MS);
    raw_send(&raw, "garbage", 7);
    assert_begins_anew(1);
}

static void test_frame_out_of_place(void **state)
{
    (void)state;
    raw_session(WIRE_TICK_MS);
    raw_send_frame(&raw,
        &(struct frame){
            .kind = DROVER__FRAME_KIND__FRAME_HELLO, .id = 1, .packed = (const uint8_t *)"\x08\x01", .packed_len = 2});
    assert_begins_anew(1);
}

static void test_reply_that_was_never_asked_for(void **state)
{
    (void)state;
    raw_session(WIRE_TICK_MS);
    raw_reply(1u << 30);
    assert_begins_anew(1);
}

static void test_replayed_request(void **state)
{
    (void)state;
    struct frame request = {.kind = DROVER__FRAME_KIND__FRAME_REQUEST, .id = 4, .method = METHOD_ECHO};
    raw_session(WIRE_TICK_MS);
    raw_send_frame(&raw, &request);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REPLY), 4);
    raw_send_frame(&raw, &request);
    assert_begins_anew(1);
    assert_int_equal(fx.client_side.requests, 1);
}

static void test_reply_twice(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    raw_session(WIRE_TICK_MS);
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &outcome);
    uint64_t id = raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST);
    raw_reply(id);
    raw_reply(id);
    assert_answered(&outcome, "yo");
    assert_int_equal(fixture_rejections(&fx.client_side, 1).rejected, 1);
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(fx.client_side.downs, 0);
    raw_close(&raw);
}

static void test_client_that_is_never_called(void **state)
{
    (void)state;
    struct err err;
    struct wire_client *client;
    struct wire_options options = {0};
    struct outcome outcome = {0};
    assert_int_equal(
        wire_client_open(fx.client_side.wire, fx.address, fx.server_side.key.public_key, &options, &err, &client), 0);
    FIXTURE_UNTIL(fx.server_side.peer);
    assert_int_equal(fixture_note(fx.server_side.peer, "note", &err), 0);
    fixture_call(fx.server_side.peer, METHOD_ECHO, "", 60000, &outcome);
    assert_failed(&outcome, ERR_UNSUPPORTED);
    assert_int_equal(fixture_rejections(&fx.client_side, 1).rejected, 1);
    assert_int_equal(fx.server_side.downs, 0);
    wire_client_close(client);
}

static int listen_tcp(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    at.sin_port = htons((uint16_t)atoi(strrchr(fx.address, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    FIXTURE_UNTIL(bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

/* Something else listens at the address: ZeroMQ gives such a connection up for good. Later the server is there. */
static void test_something_else_listens(void **state)
{
    (void)state;
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                                 "and enough of it to be taken for a greeting of the protocol that it is not";
    fx.client_side.wire->tick_ms = FIXTURE_TICK_MS;
    wire_server_close(fx.server);
    fx.server = NULL;
    fixture_spin(20);
    int listener = listen_tcp(), fd;
    fixture_connect_later(NULL);
    FIXTURE_UNTIL((fd = accept(listener, NULL, NULL)) >= 0);
    assert_int_equal(send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL), (int)sizeof answer - 1);
    fixture_spin(100);
    close(fd);
    close(listener);
    fixture_listen(fx.address, NULL);
    FIXTURE_UNTIL(wire_client_connected(fx.client));
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_wrong_server_key),
        T(test_unknown_then_enrolled),
        T(test_server_refuses),
        T(test_server_of_other_version),
        T(test_welcome_to_another_hello),
        T(test_hello_is_repeated),
        T(test_reset),
        T(test_silent_server),
        T(test_malformed_message),
        T(test_frame_out_of_place),
        T(test_reply_that_was_never_asked_for),
        T(test_replayed_request),
        T(test_reply_twice),
        T(test_client_that_is_never_called),
        T(test_something_else_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
