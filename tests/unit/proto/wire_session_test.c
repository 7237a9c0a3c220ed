/* A server against peers that break the rules within a session: replays, garbage, floods, silence. */
#include "tests/unit/proto/fixture.h"

static struct raw raw;

/* The session has ended, without a word; the server goes on with others. */
static void assert_session_lost(uint64_t rejections)
{
    struct outcome outcome = {0};
    FIXTURE_UNTIL(fx.server_side.downs == 1);
    raw_expect_silence(&raw);
    assert_int_equal(fixture_rejections(&fx.server_side, rejections).rejected, rejections);
    raw_close(&raw);
    fixture_connect(NULL);
    fixture_call(wire_client_peer(fx.client), METHOD_ECHO, "others", 60000, &outcome);
    assert_answered(&outcome, "others");
}

static void restart_server(const struct wire_options *limits, uint64_t tick_ms)
{
    fx.server_side.wire->tick_ms = tick_ms;
    wire_server_close(fx.server);
    fixture_listen("tcp://127.0.0.1:0", limits);
}

static void test_replayed_request(void **state)
{
    (void)state;
    raw_open_session(&raw);
    raw_request(&raw, 7, METHOD_ECHO);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REPLY), 7);
    raw_request(&raw, 7, METHOD_ECHO);
    assert_session_lost(1);
    assert_int_equal(fx.server_side.requests, 2); /* that one, and the other client's */
}

static void test_older_request(void **state)
{
    (void)state;
    raw_open_session(&raw);
    raw_request(&raw, 7, METHOD_ECHO);
    assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REPLY), 7);
    raw_request(&raw, 6, METHOD_ECHO);
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
    raw_open_session(&raw);
    raw_send(&raw, data, frame_size(&frame) - 1);
    assert_session_lost(1);
}

static void test_empty_message(void **state)
{
    (void)state;
    raw_open_session(&raw);
    raw_send(&raw, "", 0);
    assert_session_lost(1);
}

static void test_message_of_several_parts(void **state)
{
    (void)state;
    raw_open_session(&raw);
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
    raw_open_session(&raw);
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
    raw_open_session(&raw);
    raw_send(&raw, data, sizeof data);
    FIXTURE_UNTIL(fx.server_side.downs == 1);
    struct wire_counters counters = fixture_rejections(&fx.server_side, 0);
    assert_in_range(counters.bytes_in, 1, 4096);
    raw_close(&raw);
    fixture_connect(NULL);
    fixture_call(wire_client_peer(fx.client), METHOD_ECHO, "others", 60000, &outcome);
    assert_answered(&outcome, "others");
}

static void test_kinds_that_are_not_the_clients(void **state)
{
    (void)state;
    static const Drover__FrameKind kinds[] = {
        DROVER__FRAME_KIND__FRAME_WELCOME, DROVER__FRAME_KIND__FRAME_RESET, DROVER__FRAME_KIND__FRAME_PONG};
    raw_open_session(&raw);
    for (unsigned i = 0; i < 3; i++) {
        if (kinds[i] == DROVER__FRAME_KIND__FRAME_WELCOME)
            raw_welcome(&raw, 1, NULL);
        else /* a PONG to a ping that was never sent */
            raw_send_frame(
                &raw, &(struct frame){.kind = kinds[i], .id = kinds[i] == DROVER__FRAME_KIND__FRAME_PONG ? 999 : 0});
        FIXTURE_UNTIL(fx.server_side.downs == i + 1);
        raw_expect_silence(&raw);
        raw_hello(&raw, 10 + i, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
        assert_int_equal(raw_expect(&raw, DROVER__FRAME_KIND__FRAME_WELCOME), 10 + i);
    }
    raw_close(&raw);
}

static void test_replies_nobody_waits_for(void **state)
{
    (void)state;
    struct outcome theirs = {0};
    raw_open_session(&raw);
    fixture_call(fx.server_side.peer, METHOD_ECHO, "", 60000, &theirs);
    uint64_t id = raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REQUEST);
    struct frame reply = {
        .kind = DROVER__FRAME_KIND__FRAME_REPLY, .id = id, .packed = (const uint8_t *)"\x12\x01y", .packed_len = 3};
    raw_send_frame(&raw, &reply);
    assert_answered(&theirs, "y");
    raw_send_frame(&raw, &reply); /* again: dropped and counted, as a late one would be */
    assert_int_equal(fixture_rejections(&fx.server_side, 1).rejected, 1);
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
    raw_open_session(&raw);
    for (uint64_t id = 1; id <= 8; id++)
        raw_request(&raw, id, METHOD_PARK);
    FIXTURE_UNTIL(fx.server_side.parked_count == 8);
    raw_request(&raw, 9, METHOD_PARK);
    Drover__Frame *reply = raw_receive(&raw, FIXTURE_WAIT_MS);
    assert_non_null(reply);
    assert_int_equal(reply->id, 9);
    assert_string_equal(reply->error->code, "busy");
    frame_free(reply);
    assert_int_equal(fx.server_side.parked_count, 8);
    raw_close(&raw);
}

/* A megabyte of text as the fixture's handler takes it. */
static struct frame long_frame(Drover__FrameKind kind, uint64_t id)
{
    static uint8_t body[1 << 20];
    size_t text_len = sizeof body - 4;
    memset(body, 'x', sizeof body);
    body[0] = 0x12;
    body[1] = (uint8_t)(text_len | 0x80);
    body[2] = (uint8_t)(text_len >> 7 | 0x80);
    body[3] = (uint8_t)(text_len >> 14);
    return (struct frame){.kind = kind, .id = id, .method = METHOD_ECHO, .packed = body, .packed_len = sizeof body};
}

/* A peer that asks and asks and never reads its answers. */
static void peer_does_not_read(const struct wire_options *limits)
{
    restart_server(limits, WIRE_TICK_MS);
    raw_open_session(&raw);
    unsigned asked = 0;
    while (asked < 200 && fx.server_side.downs == 0) {
        struct frame frame = long_frame(DROVER__FRAME_KIND__FRAME_REQUEST, ++asked);
        raw_send_frame(&raw, &frame);
        FIXTURE_UNTIL(fx.server_side.requests == asked || fx.server_side.downs == 1);
    }
    assert_in_range(asked, 2, 199);
    raw_close(&raw);
}

static void test_peer_that_does_not_read_many_answers(void **state)
{
    (void)state;
    peer_does_not_read(&(struct wire_options){.queue_messages = 2});
}

static void test_peer_that_does_not_read_long_answers(void **state)
{
    (void)state;
    peer_does_not_read(NULL);
}

/* How many messages a raw socket gets rid of while nobody reads them: until it is stuck, or `most`. */
static unsigned raw_pour(const struct frame *frame, unsigned most)
{
    size_t len = frame_size(frame);
    uint8_t *data = mem_alloc(len);
    frame_encode(frame, data);
    unsigned sent = 0;
    zmq_pollitem_t item = {.socket = raw.socket, .events = ZMQ_POLLOUT};
    while (sent < most && zmq_poll(&item, 1, 1000) > 0)
        sent += zmq_send(raw.socket, data, len, ZMQ_DONTWAIT) == (int)len;
    free(data);
    return sent;
}

/* A peer that tells long things faster than they are looked at: its connection stands still until they are, and nothing
 * is lost. What the kernel holds for both sockets comes on top, a few MiB. */
static void test_what_is_not_looked_at_yet_is_bounded(void **state)
{
    (void)state;
    const unsigned bound = WIRE_QUEUE_BYTES >> 20, most = 4 * bound;
    restart_server(NULL, WIRE_TICK_MS);
    raw_open_session(&raw);
    assert_int_equal(zmq_setsockopt(raw.socket, ZMQ_SNDHWM, &(int){4}, sizeof(int)), 0);
    struct frame frame = long_frame(DROVER__FRAME_KIND__FRAME_NOTE, 0);
    unsigned sent = raw_pour(&frame, most);
    assert_in_range(sent, 1, 2 * bound);
    FIXTURE_UNTIL(fx.server_side.notes == sent);
    assert_int_equal(fx.server_side.downs, 0);
    raw_close(&raw);
}

static void test_silent_peer(void **state)
{
    (void)state;
    restart_server(NULL, 10 * FIXTURE_TICK_MS);
    raw_open_session(&raw);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_PING); /* it is asked first */
    raw_request(&raw, 1, METHOD_ECHO);
    raw_expect(&raw, DROVER__FRAME_KIND__FRAME_REPLY); /* it was heard, so all its time begins again */
    fixture_spin(10 * FIXTURE_TICK_MS * (WIRE_SERVER_LOST_TICKS - 3));
    assert_int_equal(fx.server_side.downs, 0);
    FIXTURE_UNTIL(fx.server_side.downs == 1);
    raw_close(&raw);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
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
        T(test_peer_that_does_not_read_many_answers),
        T(test_peer_that_does_not_read_long_answers),
        T(test_what_is_not_looked_at_yet_is_bounded),
        T(test_silent_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
