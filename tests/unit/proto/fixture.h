/* A server and a client on one loop, what they were told, and a raw ZeroMQ socket for peers that break the rules. */
#ifndef TESTS_PROTO_FIXTURE_H
#define TESTS_PROTO_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zmq.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "proto/context.h" /* tick_ms */
#include "proto/wire.h"

#define FIXTURE_WAIT_MS 60000 /* for what must happen; only a failing test waits so long */
#define FIXTURE_TICK_MS 20

/* Methods of the fixture's handler. */
enum { METHOD_ECHO = 1, METHOD_FAIL, METHOD_PARK, METHOD_HUGE, METHOD_CLOSE };

/* What one side was told. */
struct side {
    struct wire *wire;
    struct key_pair key;
    struct wire_peer *peer; /* the one that came up last; NULL once it is down */
    unsigned ups, downs, requests, notes;
    struct wire_request *parked[8];
    unsigned parked_count;
};

struct fixture {
    uv_loop_t loop;
    struct loop_timer *pulse; /* makes the loop turn while a test waits */
    struct side server_side, client_side;
    struct key_pair stranger;
    bool revoked;    /* the client's key */
    bool both_known; /* the stranger is enrolled too, as "stranger" */
    struct wire_server *server;
    struct wire_client *client;
    char address[WIRE_ADDRESS_MAX];
};

/* Outcome of a call. */
struct outcome {
    unsigned calls; /* of the callback: 1 in the end */
    struct err err; /* ERR_NONE: answered */
    struct buf body;
};

extern struct fixture fx;

int fixture_setup(void **state); /* server listening, no client yet */
int fixture_teardown(void **state);
void fixture_listen(const char *address, const struct wire_options *limits);
void fixture_connect(const struct wire_options *limits); /* and waits until it is up */
void fixture_connect_later(const struct wire_options *limits);
/* Counters of a side, after pending messages were read: waits for so many rejections, and a moment for more. */
struct wire_counters fixture_rejections(const struct side *side, uint64_t expected);

/* Runs the loop until `condition`, or fails the test. */
#define FIXTURE_UNTIL(condition)                                                                                       \
    do {                                                                                                               \
        uint64_t give_up_ms = clock_now_ms() + FIXTURE_WAIT_MS;                                                        \
        while (!(condition)) {                                                                                         \
            if (clock_now_ms() > give_up_ms)                                                                           \
                fail_msg("waited too long for: %s", #condition);                                                       \
            uv_run(&fx.loop, UV_RUN_ONCE);                                                                             \
        }                                                                                                              \
    } while (0)
void fixture_spin(uint64_t duration_ms);

/* Calls METHOD on a peer with `text` as body. */
void fixture_call(struct wire_peer *peer, uint32_t method, const char *text, uint32_t deadline_ms, struct outcome *out);
void assert_answered(struct outcome *outcome, const char *text);
void assert_failed(struct outcome *outcome, enum err_code code);
int fixture_note(struct wire_peer *peer, const char *text, struct err *err);

/* A raw socket with CURVE: a DEALER that connects to fx.address, or a ROUTER that listens and lets anybody in. */
struct raw {
    void *context, *socket;
    char address[WIRE_ADDRESS_MAX];
    uint8_t routing[16]; /* ROUTER: of the last message received */
    size_t routing_len;
};
void raw_connect(struct raw *raw, const struct key_pair *key);
/* One that claims to be `routing_id`. */
void raw_connect_as(struct raw *raw, const struct key_pair *key, const void *routing_id, size_t len);
void raw_listen(struct raw *raw, const struct key_pair *key, const char *address);
void raw_close(struct raw *raw);
void raw_send(struct raw *raw, const void *data, size_t len);
void raw_send_frame(struct raw *raw, const struct frame *frame);
void raw_hello(struct raw *raw, uint64_t id, uint32_t protocol_min, uint32_t protocol_max); /* HELLO */
void raw_welcome(struct raw *raw, uint64_t id, const struct err *err);                      /* WELCOME */
/* Connects with the client's key, and has a session. */
void raw_open_session(struct raw *raw);
void raw_request(struct raw *raw, uint64_t id, uint32_t method);
/* Waits for a frame; NULL when nothing comes within `wait_ms`. Take: frame_free(). */
Drover__Frame *raw_receive(struct raw *raw, uint64_t wait_ms);
/* Waits for a frame of that kind, skipping pings; returns its id. */
uint64_t raw_expect(struct raw *raw, Drover__FrameKind kind);
/* Nothing but pings comes for a while. */
void raw_expect_silence(struct raw *raw);

#endif
