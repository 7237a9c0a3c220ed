/* wire between two sides that keep the rules: calls both ways, deadlines, lost connections, closing. */
#include "tests/unit/proto/fixture.h"

static struct wire_peer *to_server(void)
{
    return wire_client_peer(fx.client);
}

static void test_calls_both_ways(void **state)
{
    (void)state;
    struct outcome there = {0}, back = {0};
    fixture_connect(NULL);
    assert_true(wire_client_connected(fx.client));
    assert_string_equal(wire_peer_principal(fx.server_side.peer)->name, "client");
    assert_int_equal(wire_peer_principal(fx.server_side.peer)->kind, PRINCIPAL_HOST);
    assert_string_equal(wire_peer_principal(to_server())->name, fx.address);
    assert_string_equal(wire_peer_ip(fx.server_side.peer), "127.0.0.1");
    assert_string_equal(wire_peer_ip(to_server()), "");
    fixture_call(to_server(), METHOD_ECHO, "there", 60000, &there);
    fixture_call(fx.server_side.peer, METHOD_ECHO, "back", 60000, &back);
    assert_answered(&there, "there");
    assert_answered(&back, "back");
    assert_int_equal(fixture_rejections(&fx.server_side, 0).rejected, 0);
    assert_int_equal(fixture_rejections(&fx.client_side, 0).rejected, 0);
}

static void test_errors_travel(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    fixture_connect(NULL);
    fixture_call(to_server(), 77, "", 60000, &outcome);
    assert_failed(&outcome, ERR_NOT_FOUND);
    assert_string_equal(outcome.err.message, "no method 77");
}

static void test_notes_both_ways(void **state)
{
    (void)state;
    struct err err;
    fixture_connect(NULL);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(fixture_note(to_server(), "note", &err), 0);
        assert_int_equal(fixture_note(fx.server_side.peer, "note", &err), 0);
    }
    FIXTURE_UNTIL(fx.server_side.notes == 10 && fx.client_side.notes == 10);
}

static void test_call_while_connecting(void **state)
{
    (void)state;
    struct outcome first = {0}, second = {0};
    struct err err;
    fixture_connect_later(NULL);
    fixture_call(to_server(), METHOD_ECHO, "first", 60000, &first);
    fixture_call(to_server(), METHOD_ECHO, "second", 60000, &second);
    assert_int_equal(fixture_note(to_server(), "note", &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_answered(&first, "first");
    assert_answered(&second, "second");
    assert_int_equal(fx.server_side.notes, 0);
}

static void test_deadline(void **state)
{
    (void)state;
    struct outcome parked = {0}, after = {0};
    fixture_connect(NULL);
    uint64_t start_ms = clock_now_ms();
    fixture_call(to_server(), METHOD_PARK, "", 100, &parked);
    assert_failed(&parked, ERR_TIMEOUT);
    assert_true(clock_now_ms() - start_ms >= 99);
    /* The answer comes too late: it is dropped, and costs nobody anything. */
    Drover__ErrorInfo late = DROVER__ERROR_INFO__INIT;
    FIXTURE_UNTIL(fx.server_side.parked_count == 1);
    wire_reply(fx.server_side.parked[--fx.server_side.parked_count], &late.base);
    fixture_call(to_server(), METHOD_ECHO, "after", 60000, &after);
    assert_answered(&after, "after");
    assert_int_equal(parked.calls, 1);
    assert_int_equal(fx.client_side.downs, 0);
}

static void test_nobody_listens(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    wire_server_close(fx.server);
    fx.server = NULL;
    fixture_connect_later(NULL);
    fixture_call(to_server(), METHOD_ECHO, "", 150, &outcome);
    assert_failed(&outcome, ERR_UNAVAILABLE);
    assert_false(wire_client_connected(fx.client));
}

static void test_server_restarts(void **state)
{
    (void)state;
    struct outcome parked = {0}, waiting = {0};
    fixture_connect(NULL);
    fixture_call(to_server(), METHOD_PARK, "", 60000, &parked);
    FIXTURE_UNTIL(fx.server_side.parked_count == 1);
    wire_server_close(fx.server);
    assert_failed(&parked, ERR_UNAVAILABLE); /* well before its deadline */
    assert_int_equal(fx.client_side.downs, 1);
    fixture_call(to_server(), METHOD_ECHO, "waiting", 60000, &waiting);
    fixture_listen(fx.address, NULL);
    assert_answered(&waiting, "waiting");
    assert_int_equal(fx.client_side.ups, 2);
    assert_int_equal(fx.server_side.ups, 2);
}

static void test_client_goes(void **state)
{
    (void)state;
    struct outcome call = {0};
    fx.server_side.wire->tick_ms = FIXTURE_TICK_MS;
    wire_server_close(fx.server);
    fixture_listen("tcp://127.0.0.1:0", NULL);
    fixture_connect(NULL);
    fixture_call(fx.server_side.peer, METHOD_PARK, "", 60000, &call);
    FIXTURE_UNTIL(fx.client_side.parked_count == 1);
    wire_client_close(fx.client);
    fx.client = NULL;
    assert_failed(&call, ERR_UNAVAILABLE);
    assert_int_equal(fx.server_side.downs, 1);
    assert_null(fx.server_side.peer);
}

/* Whoever comes again is gone before it is there. */
static void test_client_comes_again(void **state)
{
    (void)state;
    fixture_connect(NULL);
    struct wire_peer *old = fx.server_side.peer;
    wire_client_close(fx.client);
    fixture_spin(50);
    fixture_connect_later(NULL);
    FIXTURE_UNTIL(fx.server_side.ups == 2);
    assert_int_equal(fx.server_side.downs, 1);
    assert_non_null(fx.server_side.peer);
    assert_non_null(old);
}

static void test_two_connections_of_one_key(void **state)
{
    (void)state;
    struct outcome first = {0}, second = {0};
    fixture_connect(NULL);
    struct wire_peer *a = fx.server_side.peer;
    struct wire_client *client = fx.client;
    fixture_connect_later(NULL);
    FIXTURE_UNTIL(fx.server_side.ups == 2);
    struct wire_peer *b = fx.server_side.peer;
    assert_ptr_not_equal(a, b);
    FIXTURE_UNTIL(wire_client_connected(fx.client));
    /* Each is called by its own. */
    fx.client_side.peer = wire_client_peer(client);
    fixture_call(a, METHOD_ECHO, "first", 60000, &first);
    assert_answered(&first, "first");
    fx.client_side.peer = wire_client_peer(fx.client);
    fixture_call(b, METHOD_ECHO, "second", 60000, &second);
    assert_answered(&second, "second");
    assert_int_equal(fx.server_side.downs, 0);
    wire_client_close(client);
}

static void test_close_with_calls_in_flight(void **state)
{
    (void)state;
    struct outcome mine[4] = {0}, theirs = {0};
    fixture_connect(NULL);
    for (int i = 0; i < 4; i++)
        fixture_call(to_server(), METHOD_PARK, "", 60000, &mine[i]);
    fixture_call(fx.server_side.peer, METHOD_PARK, "", 60000, &theirs);
    FIXTURE_UNTIL(fx.server_side.parked_count == 4 && fx.client_side.parked_count == 1);
    wire_client_close(fx.client);
    wire_server_close(fx.server);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(mine[i].calls, 1); /* before it returned */
        assert_int_equal(mine[i].err.code, ERR_CANCELLED);
    }
    assert_int_equal(theirs.calls, 1);
    assert_int_equal(theirs.err.code, ERR_CANCELLED);
    assert_int_equal(fx.server_side.downs, 0); /* closing tells nobody what he knows */
    fx.client = NULL;
    fx.server = NULL;
}

static void test_close_while_connecting(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    fixture_connect_later(NULL);
    fixture_call(to_server(), METHOD_ECHO, "", 60000, &outcome);
    wire_client_close(fx.client);
    fx.client = NULL;
    assert_int_equal(outcome.calls, 1);
    assert_int_equal(outcome.err.code, ERR_CANCELLED);
}

/* Closing from inside a handler, with the request unanswered and more messages to read. */
static void test_close_inside_handlers(void **state)
{
    (void)state;
    struct outcome server = {0}, more = {0}, client = {0};
    fixture_connect(NULL);
    fixture_call(to_server(), METHOD_CLOSE, "", 2000, &server);
    fixture_call(to_server(), METHOD_ECHO, "", 2000, &more);
    assert_failed(&server, ERR_UNAVAILABLE);
    assert_failed(&more, ERR_UNAVAILABLE);
    fixture_listen(fx.address, NULL);
    FIXTURE_UNTIL(fx.client_side.ups == 2 && fx.server_side.ups == 2);
    fixture_call(fx.server_side.peer, METHOD_CLOSE, "", 300, &client);
    FIXTURE_UNTIL(client.calls == 1);
    assert_null(fx.client);
}

/* A callback that makes a new call on a peer that is just going. */
static void call_again(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    assert_non_null(err);
    fixture_call(fx.server_side.peer, METHOD_ECHO, "again", 1000, user);
}

static void test_call_inside_failing_call(void **state)
{
    (void)state;
    struct outcome again = {0};
    Drover__ErrorInfo message = DROVER__ERROR_INFO__INIT;
    fixture_connect(NULL);
    wire_call(fx.server_side.peer, METHOD_PARK, &message.base, 60000, call_again, &again);
    FIXTURE_UNTIL(fx.client_side.parked_count == 1);
    wire_server_drop(fx.server, wire_peer_principal(fx.server_side.peer));
    assert_failed(&again, ERR_UNAVAILABLE);
}

static void test_sizes_are_checked_before_sending(void **state)
{
    (void)state;
    struct outcome request = {0}, reply = {0}, back = {0}, after = {0};
    struct err err;
    static char text[WIRE_MESSAGE_MAX + 1];
    memset(text, 't', sizeof text - 1);
    fixture_connect(NULL);
    fixture_call(to_server(), METHOD_ECHO, text, 60000, &request);
    assert_failed(&request, ERR_INVALID);
    fixture_call(fx.server_side.peer, METHOD_ECHO, text, 60000, &back);
    assert_failed(&back, ERR_INVALID);
    assert_int_equal(fixture_note(to_server(), text, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    fixture_call(to_server(), METHOD_HUGE, "", 60000, &reply);
    assert_failed(&reply, ERR_CAPACITY);
    /* The largest that fits: the string, with its tag and length. */
    text[WIRE_MESSAGE_MAX - 5] = '\0';
    fixture_call(to_server(), METHOD_ECHO, text, 10000, &after);
    assert_answered(&after, text);
    assert_int_equal(fx.server_side.downs, 0);
}

/* The smaller limit of the two sides counts, also for a call that was made before it was known. */
static void test_limits_are_told(void **state)
{
    (void)state;
    struct outcome early = {0}, late = {0}, after = {0};
    static char text[6000];
    memset(text, 't', sizeof text - 1);
    wire_server_close(fx.server);
    fixture_listen("tcp://127.0.0.1:0", &(struct wire_options){.max_message = 5000});
    fixture_connect_later(NULL);
    fixture_call(to_server(), METHOD_ECHO, text, 60000, &early);
    fixture_call(to_server(), METHOD_ECHO, "after", 60000, &after);
    assert_failed(&early, ERR_INVALID);
    assert_answered(&after, "after");
    fixture_call(to_server(), METHOD_ECHO, text, 60000, &late);
    assert_failed(&late, ERR_INVALID);
    assert_int_equal(fx.server_side.downs, 0);
}

static struct outcome many[10000];

static void test_ten_thousand_calls(void **state)
{
    (void)state;
    memset(many, 0, sizeof many);
    fixture_connect(NULL);
    for (size_t i = 0; i < 10000; i++)
        fixture_call(to_server(), METHOD_ECHO, "many", 60000, &many[i]);
    for (size_t i = 0; i < 10000; i++)
        assert_answered(&many[i], "many");
    assert_int_equal(fx.server_side.requests, 10000);
    assert_int_equal(fx.client_side.downs + fx.server_side.downs, 0);
}

/* With no timer to help, a message that is there and not noticed stays unnoticed: the test would hang. */
static void test_no_wakeup_is_lost(void **state)
{
    (void)state;
    fx.server_side.wire->tick_ms = fx.client_side.wire->tick_ms = 3600 * 1000;
    wire_server_close(fx.server);
    fixture_listen("tcp://127.0.0.1:0", NULL);
    fixture_connect(NULL);
    loop_timer_stop(fx.pulse);
    memset(many, 0, sizeof many);
    for (size_t burst = 1, done = 0; done + 2 * burst < 10000; burst = burst * 3 % 997) {
        for (size_t i = 0; i < burst; i++) {
            fixture_call(to_server(), METHOD_ECHO, "there", 3600 * 1000, &many[done + 2 * i]);
            fixture_call(fx.server_side.peer, METHOD_ECHO, "back", 3600 * 1000, &many[done + 2 * i + 1]);
        }
        for (size_t i = 0; i < burst; i++) {
            assert_answered(&many[done + 2 * i], "there");
            assert_answered(&many[done + 2 * i + 1], "back");
        }
        done += 2 * burst;
    }
}

/* A tiny queue: calls wait their turn, notes are refused, and nothing is lost. */
static void test_small_queue(void **state)
{
    (void)state;
    struct err err;
    memset(many, 0, sizeof many);
    fixture_connect(&(struct wire_options){.queue_messages = 4});
    unsigned sent = 0;
    while (fixture_note(to_server(), "note", &err) == 0)
        sent++;
    assert_in_range(sent, 3, 4); /* and a ping that asks whether they have arrived */
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    for (size_t i = 0; i < 500; i++)
        fixture_call(to_server(), METHOD_ECHO, "small", 60000, &many[i]);
    for (size_t i = 0; i < 500; i++)
        assert_answered(&many[i], "small");
    assert_int_equal(fx.server_side.notes, sent);
    assert_int_equal(fixture_note(to_server(), "note", &err), 0);
    assert_int_equal(fx.client_side.downs + fx.server_side.downs, 0);
}

static void test_quiet_connection_stays(void **state)
{
    (void)state;
    struct outcome outcome = {0};
    fx.server_side.wire->tick_ms = fx.client_side.wire->tick_ms = 5 * FIXTURE_TICK_MS;
    wire_server_close(fx.server);
    fixture_listen("tcp://127.0.0.1:0", NULL);
    fixture_connect(NULL);
    fixture_spin(5 * FIXTURE_TICK_MS * WIRE_SERVER_LOST_TICKS * 2);
    assert_int_equal(fx.server_side.downs, 0);
    assert_int_equal(fx.client_side.downs, 0);
    fixture_call(to_server(), METHOD_ECHO, "still there", 60000, &outcome);
    assert_answered(&outcome, "still there");
}

static void test_addresses(void **state)
{
    (void)state;
    struct err err;
    struct wire_server *server;
    struct wire_client *client;
    struct wire_options options = {.handler = (wire_handler_fn)(void *)abort};
    static const char *const bad[] = {"", "nonsense", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999",
        "http://a:1", "inproc://a", "ipc:///tmp/a", "tcp://:5", "tcp://127.0.0.1:5x",
        "tcp://127.0.0.1:", "tcp://127.0.0.1:000005"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(wire_server_open(fx.server_side.wire, bad[i], &options, &err, &server), -1);
        assert_non_null(strstr(err.message, bad[i]));
        assert_int_equal(
            wire_client_open(fx.client_side.wire, bad[i], fx.stranger.public_key, &options, &err, &client), -1);
    }
    assert_int_equal(wire_server_open(fx.server_side.wire, fx.address, &options, &err, &server), -1);
    assert_int_equal(err.code, ERR_BUSY);
    assert_int_equal(
        wire_client_open(fx.client_side.wire, "tcp://127.0.0.1:0", fx.stranger.public_key, &options, &err, &client),
        -1);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_calls_both_ways),
        T(test_errors_travel),
        T(test_notes_both_ways),
        T(test_call_while_connecting),
        T(test_deadline),
        T(test_nobody_listens),
        T(test_server_restarts),
        T(test_client_goes),
        T(test_client_comes_again),
        T(test_two_connections_of_one_key),
        T(test_close_with_calls_in_flight),
        T(test_close_while_connecting),
        T(test_close_inside_handlers),
        T(test_call_inside_failing_call),
        T(test_sizes_are_checked_before_sending),
        T(test_limits_are_told),
        T(test_ten_thousand_calls),
        T(test_no_wakeup_is_lost),
        T(test_small_queue),
        T(test_quiet_connection_stays),
        T(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
