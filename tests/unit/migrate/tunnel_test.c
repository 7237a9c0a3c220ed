/* Both ends of a tunnel in one process, and this test in the place of both QEMUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "base/loop.h"
#include "migrate/tunnel_private.h"
#include "tests/lib/until.h"

#define STREAM_BYTES (9u << 20) /* more than the window and all buffers on the way */

struct fixture {
    uv_loop_t loop;
    char directory[32], source_path[64], destination_path[64];
    struct tunnel *source, *destination;
    uint8_t key[SEAL_KEY_BYTES];
    uint8_t *sent, *got;
    size_t got_bytes;
    int listener;
    bool over;
    struct err failure;
};

static struct fixture fixture;

static void on_over(void *user)
{
    struct fixture *f = user;
    f->over = true;
    uv_stop(&f->loop);
}

static void on_failed(void *user, const struct err *err)
{
    struct fixture *f = user;
    f->failure = *err;
    uv_stop(&f->loop);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    struct err err;
    *f = (struct fixture){.directory = "/tmp/drover-tunnel-XXXXXX", .key = {1, 2, 3}};
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->source_path, sizeof f->source_path, "%s/source", f->directory);
    snprintf(f->destination_path, sizeof f->destination_path, "%s/destination", f->directory);
    f->sent = malloc(STREAM_BYTES);
    f->got = malloc(STREAM_BYTES);
    for (size_t i = 0; i < STREAM_BYTES; i++)              /* zeros, and what cannot be packed */
        f->sent[i] = i / 300000 % 2 ? (uint8_t)rand() : 0; // NOLINT: any bytes will do
    f->listener = listen_at(f->destination_path);
    uv_loop_init(&f->loop);
    struct tunnel_options options = {.key = f->key,
        .socket = f->destination_path,
        .host = "127.0.0.1",
        .from = "127.0.0.1",
        .on_failed = on_failed,
        .user = f};
    assert_int_equal(tunnel_open_destination(&f->loop, &options, &err, &f->destination), 0);
    options = (struct tunnel_options){.key = f->key,
        .socket = f->source_path,
        .address = tunnel_address(f->destination),
        .window_bytes = TUNNEL_WINDOW_BYTES,
        .on_over = on_over,
        .on_failed = on_failed,
        .user = f};
    assert_int_equal(tunnel_open_source(&f->loop, &options, &err, &f->source), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    tunnel_close(f->source);
    tunnel_close(f->destination);
    loop_close(&f->loop);
    close(f->listener);
    unlink(f->destination_path);
    assert_int_equal(access(f->source_path, F_OK), -1); /* removed by the source end itself */
    rmdir(f->directory);
    free(f->sent);
    free(f->got);
    return 0;
}

static void *write_all(void *arg)
{
    struct fixture *f = arg;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, f->source_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        for (size_t at = 0; at < STREAM_BYTES;) {
            ssize_t n = send(fd, f->sent + at, STREAM_BYTES - at, MSG_NOSIGNAL);
            if (n <= 0)
                break;
            at += (size_t)n;
        }
    close(fd);
    return NULL;
}

static void *read_all(void *arg)
{
    struct fixture *f = arg;
    int fd = accept(f->listener, NULL, NULL);
    ssize_t n = 1;
    while (f->got_bytes < STREAM_BYTES && (n = read(fd, f->got + f->got_bytes, STREAM_BYTES - f->got_bytes)) > 0)
        f->got_bytes += (size_t)n;
    close(fd);
    return NULL;
}

static void test_a_stream_comes_through(void **state)
{
    struct fixture *f = *state;
    pthread_t writer, reader;
    pthread_create(&writer, NULL, write_all, f);
    pthread_create(&reader, NULL, read_all, f);
    while (!f->over && f->failure.code == ERR_NONE)
        uv_run(&f->loop, UV_RUN_DEFAULT);
    pthread_join(writer, NULL);
    pthread_join(reader, NULL);
    assert_true(f->over);
    assert_int_equal(f->got_bytes, STREAM_BYTES);
    assert_memory_equal(f->got, f->sent, STREAM_BYTES);
    assert_int_equal(tunnel_stream_bytes(f->source), STREAM_BYTES);
    assert_int_equal(tunnel_stream_bytes(f->destination), STREAM_BYTES);
    assert_true(tunnel_wire_bytes(f->source) < STREAM_BYTES * 3ull / 4); /* half of it is zeros */
}

/* Sends one message to the destination end as another program would. */
static void *stranger_send(struct fixture *f, void *zmq, const void *data, size_t len)
{
    void *socket = zmq_socket(zmq, ZMQ_DEALER);
    assert_int_equal(zmq_connect(socket, tunnel_address(f->destination)), 0);
    assert_true(zmq_send(socket, data, len, 0) >= 0);
    return socket;
}

/* What is not genuine changes nothing; what is, but makes no sense, ends it. */
static void test_bad_messages(void **state)
{
    struct fixture *f = *state;
    static const uint8_t senseless[64] = {0xff, 0xff, 0xff, 0x7f, 1};
    uint8_t sealed[sizeof senseless + SEAL_OVERHEAD], other_key[SEAL_KEY_BYTES] = {9};
    void *zmq = zmq_ctx_new();
    struct seal *wrong = seal_new(other_key, SEAL_TO_DESTINATION, 0);
    size_t len = seal_close(wrong, senseless, sizeof senseless, sealed);
    void *forger = stranger_send(f, zmq, sealed, len);
    void *short_one = stranger_send(f, zmq, "x", 1);
    struct seal *right = seal_new(f->key, SEAL_TO_DESTINATION, 0);
    len = seal_close(right, senseless, sizeof senseless, sealed);
    void *senseless_one = stranger_send(f, zmq, sealed, len);
    while (f->failure.code == ERR_NONE)
        uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->failure.code, ERR_PROTOCOL);
    assert_int_equal(tunnel_stream_bytes(f->destination), 0);
    seal_free(wrong);
    seal_free(right);
    zmq_close(forger);
    zmq_close(short_one);
    zmq_close(senseless_one);
    zmq_ctx_term(zmq);
}

/* Nothing has come, and nothing will: closing does not wait for it. */
static void test_closes_at_any_time(void **state)
{
    struct fixture *f = *state;
    pthread_t writer;
    pthread_create(&writer, NULL, write_all, f); /* nobody reads at the other end, so the window fills */
    UNTIL(tunnel_wire_bytes(f->source) > 0);
    tunnel_close(f->source);
    f->source = NULL;
    pthread_join(writer, NULL);
    assert_true(tunnel_stream_bytes(f->destination) < STREAM_BYTES);
}

/* Where connections are not accepted, or only by a firewall, the queue fills and nothing is ever acknowledged. */
static void test_a_port_that_is_not_reached_is_named(void **state)
{
    struct fixture *f = *state;
    struct err err;
    pthread_t writer;
    char address[64];
    struct sockaddr_in silent = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof silent;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&silent, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&silent, &len), 0);
    snprintf(address, sizeof address, "tcp://127.0.0.1:%u", ntohs(silent.sin_port));
    tunnel_close(f->source);
    const struct tunnel_options options = {.key = f->key,
        .socket = f->source_path,
        .address = address,
        .window_bytes = STREAM_BYTES, /* so that the queue fills first */
        .on_over = on_over,
        .on_failed = on_failed,
        .user = f};
    assert_int_equal(tunnel_open_source(&f->loop, &options, &err, &f->source), 0);
    f->source->silence_ms = 300;
    pthread_create(&writer, NULL, write_all, f);
    while (f->failure.code == ERR_NONE)
        uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->failure.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(f->failure.message, address));
    assert_false(f->over);
    tunnel_close(f->source);
    f->source = NULL;
    pthread_join(writer, NULL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_stream_comes_through, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closes_at_any_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_port_that_is_not_reached_is_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
