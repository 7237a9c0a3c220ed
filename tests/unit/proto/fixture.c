#include "tests/unit/proto/fixture.h"

struct fixture fx;

static bool fixture_auth(void *user, const uint8_t key[KEY_BYTES], struct principal *out)
{
    (void)user;
    if (fx.both_known && memcmp(key, fx.stranger.public_key, KEY_BYTES) == 0) {
        out->kind = PRINCIPAL_HOST;
        strcpy(out->name, "stranger");
        return true;
    }
    if (fx.revoked || memcmp(key, fx.client_side.key.public_key, KEY_BYTES) != 0)
        return false;
    out->kind = PRINCIPAL_HOST;
    strcpy(out->name, "client");
    return true;
}

/* The body of every message of these tests: one string. */
static Drover__ErrorInfo text_message(const char *text)
{
    Drover__ErrorInfo message = DROVER__ERROR_INFO__INIT;
    message.message = (char *)text;
    return message;
}

static void reply_huge(struct wire_request *request)
{
    static char text[WIRE_MESSAGE_MAX + 100];
    memset(text, 'h', sizeof text - 1);
    Drover__ErrorInfo huge = text_message(text);
    wire_reply(request, &huge.base);
}

static void fixture_handler(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct side *side = user;
    struct err err;
    assert_ptr_equal(peer, side->peer);
    if (!request) {
        side->notes++;
        return;
    }
    side->requests++;
    assert_string_equal(wire_request_principal(request)->name, wire_peer_principal(peer)->name);
    Drover__ErrorInfo *asked = drover__error_info__unpack(NULL, len, body);
    assert_non_null(asked);
    switch (method) {
    case METHOD_ECHO:
        wire_reply(request, &asked->base);
        break;
    case METHOD_PARK:
        assert_in_range(side->parked_count, 0, 7);
        side->parked[side->parked_count++] = request;
        break;
    case METHOD_HUGE:
        reply_huge(request);
        break;
    case METHOD_CLOSE:
        if (side == &fx.server_side) {
            wire_server_close(fx.server);
            fx.server = NULL;
        } else {
            wire_client_close(fx.client);
            fx.client = NULL;
        }
        wire_reply(request, &asked->base);
        break;
    default:
        err_set(&err, ERR_NOT_FOUND, "no method %u", method);
        wire_reply_error(request, &err);
    }
    drover__error_info__free_unpacked(asked, NULL);
}

static void fixture_on_peer(void *user, struct wire_peer *peer, bool up)
{
    struct side *side = user;
    if (up) {
        side->ups++;
        side->peer = peer;
        assert_null(wire_peer_data(peer) == side ? NULL : wire_peer_data(peer));
        wire_peer_set_data(peer, side);
    } else {
        side->downs++;
        assert_ptr_equal(wire_peer_data(peer), side);
        if (side->peer == peer)
            side->peer = NULL;
    }
}

static void pulse(void *user)
{
    (void)user;
}

int fixture_setup(void **state)
{
    (void)state;
    struct err err;
    memset(&fx, 0, sizeof fx);
    log_setup("test", LOG_ERROR); /* rejections, which these tests make, are warnings */
    uv_loop_init(&fx.loop);
    fx.pulse = loop_timer_new(&fx.loop, pulse, NULL);
    loop_timer_start(fx.pulse, 5, 5);
    if (key_generate(&err, &fx.server_side.key) < 0 || key_generate(&err, &fx.client_side.key) < 0 ||
        key_generate(&err, &fx.stranger) < 0)
        return -1;
    if (wire_new(&fx.loop, &fx.server_side.key, "server 1", fixture_auth, NULL, &err, &fx.server_side.wire) < 0 ||
        wire_new(&fx.loop, &fx.client_side.key, "client 1", NULL, NULL, &err, &fx.client_side.wire) < 0)
        return -1;
    fixture_listen("tcp://127.0.0.1:0", NULL);
    return 0;
}

int fixture_teardown(void **state)
{
    (void)state;
    wire_client_close(fx.client);
    wire_server_close(fx.server);
    for (struct side *side = &fx.server_side;; side = &fx.client_side) {
        for (unsigned i = 0; i < side->parked_count; i++)
            wire_reply_error(side->parked[i], &(struct err){.code = ERR_CANCELLED}); /* into nothing */
        if (side == &fx.client_side)
            break;
    }
    wire_free(fx.client_side.wire);
    wire_free(fx.server_side.wire);
    loop_timer_free(fx.pulse);
    uv_run(&fx.loop, UV_RUN_DEFAULT); /* nothing may keep the loop alive */
    assert_int_equal(uv_loop_close(&fx.loop), 0);
    return 0;
}

static struct wire_options side_options(struct side *side, const struct wire_options *limits)
{
    struct wire_options options = limits ? *limits : (struct wire_options){0};
    options.handler = fixture_handler;
    options.on_peer = fixture_on_peer;
    options.user = side;
    return options;
}

void fixture_listen(const char *address, const struct wire_options *limits)
{
    struct err err;
    struct wire_options options = side_options(&fx.server_side, limits);
    uint64_t give_up_ms = clock_now_ms() + FIXTURE_WAIT_MS;
    char at[WIRE_ADDRESS_MAX]; /* `address` may be fx.address */
    strcpy(at, address);
    /* A socket of the same address that was closed just now may need a moment to go. */
    while (wire_server_open(fx.server_side.wire, at, &options, &err, &fx.server) < 0) {
        if (clock_now_ms() > give_up_ms)
            fail_msg("%s", err.message);
        fixture_spin(10);
    }
    strcpy(fx.address, wire_server_address(fx.server));
}

void fixture_connect_later(const struct wire_options *limits)
{
    struct err err;
    struct wire_options options = side_options(&fx.client_side, limits);
    if (wire_client_open(fx.client_side.wire, fx.address, fx.server_side.key.public_key, &options, &err, &fx.client) <
        0)
        fail_msg("%s", err.message);
}

void fixture_connect(const struct wire_options *limits)
{
    fixture_connect_later(limits);
    FIXTURE_UNTIL(fx.client_side.peer && fx.server_side.peer);
}

static uint64_t rejected(const struct side *side, struct wire_counters *counters)
{
    wire_counters(side->wire, counters);
    return counters->rejected;
}

struct wire_counters fixture_rejections(const struct side *side, uint64_t expected)
{
    struct wire_counters counters;
    FIXTURE_UNTIL(rejected(side, &counters) >= expected);
    fixture_spin(50);
    wire_counters(side->wire, &counters);
    return counters;
}

void fixture_spin(uint64_t duration_ms)
{
    uint64_t end_ms = clock_now_ms() + duration_ms;
    while (clock_now_ms() < end_ms)
        uv_run(&fx.loop, UV_RUN_ONCE);
}

static void outcome_take(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct outcome *outcome = user;
    outcome->calls++;
    outcome->err = err ? *err : (struct err){0};
    buf_clear(&outcome->body);
    if (!err)
        buf_append(&outcome->body, body, len);
}

void fixture_call(struct wire_peer *peer, uint32_t method, const char *text, uint32_t deadline_ms, struct outcome *out)
{
    Drover__ErrorInfo message = text_message(text);
    unsigned before = out->calls;
    wire_call(peer, method, &message.base, deadline_ms, outcome_take, out);
    assert_int_equal(out->calls, before); /* never from inside */
}

void assert_answered(struct outcome *outcome, const char *text)
{
    FIXTURE_UNTIL(outcome->calls);
    assert_int_equal(outcome->calls, 1);
    if (outcome->err.code != ERR_NONE)
        fail_msg("%s: %s", err_name(outcome->err.code), outcome->err.message);
    Drover__ErrorInfo *answer = drover__error_info__unpack(NULL, outcome->body.len, outcome->body.data);
    assert_non_null(answer);
    assert_string_equal(answer->message, text);
    drover__error_info__free_unpacked(answer, NULL);
    buf_free(&outcome->body);
}

void assert_failed(struct outcome *outcome, enum err_code code)
{
    FIXTURE_UNTIL(outcome->calls);
    assert_int_equal(outcome->calls, 1);
    assert_string_equal(err_name(outcome->err.code), err_name(code));
    assert_true(outcome->err.message[0] != '\0');
    buf_free(&outcome->body);
}

int fixture_note(struct wire_peer *peer, const char *text, struct err *err)
{
    Drover__ErrorInfo message = text_message(text);
    return wire_note(peer, 9, &message.base, err);
}

/* --- raw sockets --- */

static void raw_open(struct raw *raw, int type, const struct key_pair *key)
{
    memset(raw, 0, sizeof *raw);
    raw->context = zmq_ctx_new();
    raw->socket = zmq_socket(raw->context, type);
    int zero = 0;
    zmq_setsockopt(raw->socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(raw->socket, ZMQ_RCVHWM, &(int){4}, sizeof(int));
    zmq_setsockopt(raw->socket, ZMQ_CURVE_PUBLICKEY, key->public_key, KEY_BYTES);
    zmq_setsockopt(raw->socket, ZMQ_CURVE_SECRETKEY, key->secret_key, KEY_BYTES);
}

void raw_connect(struct raw *raw, const struct key_pair *key)
{
    raw_connect_as(raw, key, NULL, 0);
}

void raw_connect_as(struct raw *raw, const struct key_pair *key, const void *routing_id, size_t len)
{
    raw_open(raw, ZMQ_DEALER, key);
    if (routing_id)
        assert_int_equal(zmq_setsockopt(raw->socket, ZMQ_ROUTING_ID, routing_id, len), 0);
    zmq_setsockopt(raw->socket, ZMQ_CURVE_SERVERKEY, fx.server_side.key.public_key, KEY_BYTES);
    assert_int_equal(zmq_connect(raw->socket, fx.address), 0);
}

void raw_listen(struct raw *raw, const struct key_pair *key, const char *address)
{
    raw_open(raw, ZMQ_ROUTER, key);
    int one = 1;
    zmq_setsockopt(raw->socket, ZMQ_CURVE_SERVER, &one, sizeof one);
    FIXTURE_UNTIL(zmq_bind(raw->socket, address) == 0);
    size_t size = sizeof raw->address;
    zmq_getsockopt(raw->socket, ZMQ_LAST_ENDPOINT, raw->address, &size);
}

void raw_close(struct raw *raw)
{
    zmq_close(raw->socket);
    zmq_ctx_term(raw->context);
}

void raw_send(struct raw *raw, const void *data, size_t len)
{
    if (raw->routing_len)
        zmq_send(raw->socket, raw->routing, raw->routing_len, ZMQ_SNDMORE);
    assert_int_equal(zmq_send(raw->socket, data, len, 0), (int)len);
}

void raw_send_frame(struct raw *raw, const struct frame *frame)
{
    size_t len = frame_size(frame);
    uint8_t *data = mem_alloc(len);
    frame_encode(frame, data);
    raw_send(raw, data, len);
    free(data);
}

static void raw_send_hello(
    struct raw *raw, Drover__FrameKind kind, uint64_t id, uint32_t min, uint32_t max, const struct err *err)
{
    Drover__Hello hello = DROVER__HELLO__INIT;
    hello.protocol_min = min;
    hello.protocol_max = max;
    hello.max_message = WIRE_MESSAGE_MAX;
    hello.program = (char *)"raw 1";
    raw_send_frame(raw, &(struct frame){.kind = kind, .id = id, .body = &hello.base, .error = err});
}

void raw_hello(struct raw *raw, uint64_t id, uint32_t protocol_min, uint32_t protocol_max)
{
    raw_send_hello(raw, DROVER__FRAME_KIND__FRAME_HELLO, id, protocol_min, protocol_max, NULL);
}

void raw_welcome(struct raw *raw, uint64_t id, const struct err *err)
{
    raw_send_hello(raw, DROVER__FRAME_KIND__FRAME_WELCOME, id, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX, err);
}

Drover__Frame *raw_receive(struct raw *raw, uint64_t wait_ms)
{
    static uint8_t data[8192];
    int type;
    size_t size = sizeof type;
    zmq_getsockopt(raw->socket, ZMQ_TYPE, &type, &size);
    uint64_t end_ms = clock_now_ms() + wait_ms;
    int len;
    while ((len = zmq_recv(raw->socket, data, sizeof data, ZMQ_DONTWAIT)) < 0) {
        if (clock_now_ms() > end_ms)
            return NULL;
        uv_run(&fx.loop, UV_RUN_ONCE);
    }
    if (type == ZMQ_ROUTER) {
        assert_in_range(len, 1, sizeof raw->routing);
        memcpy(raw->routing, data, (size_t)len);
        raw->routing_len = (size_t)len;
        len = zmq_recv(raw->socket, data, sizeof data, 0);
    }
    struct err err;
    Drover__Frame *frame;
    assert_in_range(len, 1, sizeof data);
    assert_int_equal(frame_decode(data, (size_t)len, sizeof data, &err, &frame), 0);
    return frame;
}

uint64_t raw_expect(struct raw *raw, Drover__FrameKind kind)
{
    for (;;) {
        Drover__Frame *frame = raw_receive(raw, FIXTURE_WAIT_MS);
        assert_non_null(frame);
        Drover__FrameKind got = frame->kind;
        uint64_t id = frame->id;
        frame_free(frame);
        if (got == kind)
            return id;
        assert_int_equal(got, DROVER__FRAME_KIND__FRAME_PING);
    }
}

void raw_expect_silence(struct raw *raw)
{
    Drover__Frame *frame;
    while ((frame = raw_receive(raw, 150)) != NULL) {
        assert_int_equal(frame->kind, DROVER__FRAME_KIND__FRAME_PING);
        frame_free(frame);
    }
}

void raw_open_session(struct raw *raw)
{
    raw_connect(raw, &fx.client_side.key);
    raw_hello(raw, 1, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
    assert_int_equal(raw_expect(raw, DROVER__FRAME_KIND__FRAME_WELCOME), 1);
    assert_int_equal(fx.server_side.ups, 1);
}

void raw_request(struct raw *raw, uint64_t id, uint32_t method)
{
    static const uint8_t body[] = {0x12, 2, 'h', 'i'};
    raw_send_frame(raw, &(struct frame){.kind = DROVER__FRAME_KIND__FRAME_REQUEST,
                            .id = id,
                            .method = method,
                            .packed = body,
                            .packed_len = sizeof body});
}
