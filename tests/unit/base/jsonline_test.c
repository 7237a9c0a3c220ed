/* One end of a socket pair is the stream under test, the other a peer that may say anything. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/jsonline.h"
#include "base/unixsock.h"
#include "tests/lib/until.h"

struct fixture {
    uv_loop_t loop;
    struct jsonline *stream;
    int peer;
    unsigned messages;
    struct buf seen; /* every message, dumped, one a line */
    unsigned closed;
    struct err why;
    bool close_inside; /* call jsonline_close() from the callback */
};

static void on_message(void *user, json_t *message)
{
    struct fixture *f = user;
    f->messages++;
    char *text = json_dumps(message, JSON_COMPACT | JSON_SORT_KEYS);
    buf_printf(&f->seen, "%s\n", text);
    free(text);
    if (f->close_inside) {
        jsonline_close(f->stream);
        f->stream = NULL;
    }
}

static void on_closed(void *user, const struct err *err)
{
    struct fixture *f = user;
    f->closed++;
    f->why = *err;
    if (f->close_inside) {
        jsonline_close(f->stream);
        f->stream = NULL;
    }
}

static void open_stream(struct fixture *f, size_t max_line)
{
    int ends[2];
    struct err err;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    struct jsonline_options o = {.on_message = on_message, .on_closed = on_closed, .user = f, .max_line = max_line};
    assert_int_equal(jsonline_open(&f->loop, ends[0], &o, &err, &f->stream), 0);
    f->peer = ends[1];
}

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    uv_loop_init(&f->loop);
    f->peer = -1;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    jsonline_close(f->stream);
    if (f->peer >= 0)
        close(f->peer);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_close(&f->loop);
    buf_free(&f->seen);
    free(f);
    return 0;
}

static void say(struct fixture *f, const char *text, size_t len)
{
    assert_int_equal(send(f->peer, text, len, MSG_NOSIGNAL), len);
}

#define SAY(f, text) say((f), (text), strlen(text))

static bool is_closed(void *user)
{
    return ((struct fixture *)user)->closed > 0;
}

static bool has_two(void *user)
{
    return ((struct fixture *)user)->messages >= 2;
}

static void lines_become_objects(void **state)
{
    struct fixture *f = *state;
    open_stream(f, 0);
    SAY(f, "{\"a\":1}\r\n{\"b\":{\"c\":[1,2]}}\n");
    assert_true(loop_until(&f->loop, has_two, f));
    assert_string_equal(buf_str(&f->seen), "{\"a\":1}\n{\"b\":{\"c\":[1,2]}}\n");
}

static void pieces_are_put_together(void **state)
{
    struct fixture *f = *state;
    open_stream(f, 0);
    const char *text = "{\"a\":\"xyz\"}\n{\"a\":2}\n";
    for (; *text; text++) {
        say(f, text, 1);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_true(loop_until(&f->loop, has_two, f));
    assert_string_equal(buf_str(&f->seen), "{\"a\":\"xyz\"}\n{\"a\":2}\n");
    assert_int_equal(f->closed, 0);
}

static void garbage_closes(void **state)
{
    static const char *const bad[] = {"nonsense\n", "[1]\n", "\"text\"\n", "\n", "{\"a\":1\n", "{\"a\":1}{\"b\":2}\n",
        "{\"a\":1,\"a\":2}\n", "{\"a\":\"\xff\"}\n", "{\"\":\"\\u0000\"}\n"};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        f->closed = 0;
        open_stream(f, 0);
        SAY(f, bad[i]);
        SAY(f, "{\"after\":1}\n");
        if (!loop_until(&f->loop, is_closed, f))
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(f->why.code, ERR_PROTOCOL);
        for (int turn = 0; turn < 5; turn++)
            uv_run(&f->loop, UV_RUN_NOWAIT);
        assert_int_equal(f->closed, 1);
        assert_int_equal(f->messages, 0);
        jsonline_close(f->stream);
        f->stream = NULL;
        close(f->peer);
        f->peer = -1;
    }
}

static void deep_nesting_closes(void **state)
{
    struct fixture *f = *state;
    open_stream(f, 0);
    enum { DEPTH = 20000 };
    char *text = mem_alloc(DEPTH + 8);
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', DEPTH);
    text[5 + DEPTH] = '\n';
    say(f, text, DEPTH + 6);
    free(text);
    assert_true(loop_until(&f->loop, is_closed, f));
    assert_int_equal(f->why.code, ERR_PROTOCOL);
}

/* A line that never ends must not eat the memory of the daemon. */
static void oversize_closes(void **state)
{
    struct fixture *f = *state;
    open_stream(f, 1000);
    char text[4096];
    memset(text, ' ', sizeof text);
    text[0] = '{';
    say(f, text, sizeof text);
    assert_true(loop_until(&f->loop, is_closed, f));
    assert_int_equal(f->why.code, ERR_PROTOCOL);
    assert_non_null(strstr(f->why.message, "too long"));
}

static void end_of_stream_is_told_once(void **state)
{
    struct fixture *f = *state;
    open_stream(f, 0);
    SAY(f, "{\"a\":1}\n{\"half");
    close(f->peer);
    f->peer = -1;
    assert_true(loop_until(&f->loop, is_closed, f));
    assert_int_equal(f->why.code, ERR_UNAVAILABLE);
    assert_int_equal(f->messages, 1);
    jsonline_send(f->stream, json_object()); /* dropped */
    for (int turn = 0; turn < 5; turn++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(f->closed, 1);
}

static void closing_inside_callbacks(void **state)
{
    struct fixture *f = *state;
    f->close_inside = true;
    open_stream(f, 0);
    SAY(f, "{\"a\":1}\n{\"a\":2}\n");
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->messages, 1); /* nothing comes after the close */
    assert_int_equal(f->closed, 0);
    close(f->peer);

    open_stream(f, 0);
    close(f->peer);
    f->peer = -1;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(f->closed, 1);
}

static void read_all(void *arg)
{
    struct fixture *f = arg;
    for (;;) {
        ssize_t n = read(f->peer, buf_reserve(&f->seen, 65536), 65536);
        if (n <= 0)
            return;
        f->seen.len += (size_t)n;
    }
}

/* Far more than a socket buffer, sent in one go and closed at once: all of it leaves, in order. */
static void what_was_sent_leaves_before_the_close(void **state)
{
    struct fixture *f = *state;
    open_stream(f, 0);
    for (int i = 0; i < 20000; i++)
        jsonline_send(f->stream, json_pack("{s:i, s:s}", "i", i, "text", "some filler, so that the buffers are full"));
    jsonline_close(f->stream);
    f->stream = NULL;
    uv_thread_t reader;
    assert_int_equal(uv_thread_create(&reader, read_all, f), 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    uv_thread_join(&reader);
    const char *line = buf_str(&f->seen);
    for (int i = 0; i < 20000; i++) {
        char want[32];
        snprintf(want, sizeof want, "{\"i\":%d,", i);
        if (strncmp(line, want, strlen(want)) != 0)
            fail_msg("line %d is missing", i);
        line = strchr(line, '\n') + 1;
    }
    assert_int_equal(*line, 0);
}

static void send_much(struct fixture *f, size_t bytes)
{
    static char filler[65536];
    memset(filler, 'x', sizeof filler - 1);
    for (size_t sent = 0; sent < bytes; sent += sizeof filler)
        jsonline_send(f->stream, json_pack("{s:s}", "text", filler));
}

static void a_peer_that_does_not_read_cannot_keep_a_closed_stream(void **state)
{
    struct fixture *f = *state;
    open_stream(f, 0);
    send_much(f, 4u << 20);
    jsonline_close(f->stream);
    f->stream = NULL;
    alarm(120); /* ends the test where the loop never comes to an end */
    uv_run(&f->loop, UV_RUN_DEFAULT);
    alarm(0);
    assert_int_equal(f->closed, 0);
}

static void a_peer_that_does_not_read_fails_the_stream(void **state)
{
    struct fixture *f = *state;
    for (int inside = 0; inside < 2; inside++) {
        f->closed = 0;
        f->close_inside = inside;
        open_stream(f, 0);
        send_much(f, 4u << 20);
        for (int turn = 0; turn < 5; turn++)
            uv_run(&f->loop, UV_RUN_NOWAIT);
        assert_int_equal(f->closed, 0);
        send_much(f, JSONLINE_QUEUE_MAX);
        assert_int_equal(f->closed, 0); /* never inside of jsonline_send() */
        assert_true(loop_until(&f->loop, is_closed, f));
        assert_int_equal(f->why.code, ERR_UNAVAILABLE);
        close(f->peer);
        f->peer = -1;
        for (int turn = 0; turn < 5; turn++)
            uv_run(&f->loop, UV_RUN_NOWAIT);
        assert_int_equal(f->closed, 1);
        jsonline_close(f->stream);
        f->stream = NULL;
    }
}

static void accepted(void *user, int fd)
{
    struct fixture *f = user;
    struct err err;
    struct jsonline_options o = {.on_message = on_message, .on_closed = on_closed, .user = f};
    assert_int_equal(jsonline_open(&f->loop, fd, &o, &err, &f->stream), 0);
}

static void ignored(void *user, const struct err *err)
{
    (void)user, (void)err;
}

static void server_and_client(void **state)
{
    struct fixture *f = *state;
    char folder[] = "/tmp/drover-jsonline-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    close(open(path, O_CREAT | O_CLOEXEC, 0600)); /* something stale in the way */

    struct err err = {0};
    struct jsonline_server *server;
    assert_int_equal(jsonline_listen(&f->loop, path, accepted, f, &err, &server), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    struct jsonline *client;
    struct jsonline_options o = {.on_message = on_message, .on_closed = ignored, .user = f};
    assert_int_equal(jsonline_connect(&f->loop, path, &o, &err, &client), 0);
    jsonline_send(client, json_pack("{s:i}", "a", 1));
    jsonline_send(client, json_pack("{s:i}", "a", 2));
    assert_true(loop_until(&f->loop, has_two, f));
    jsonline_close(client);
    assert_true(loop_until(&f->loop, is_closed, f));
    jsonline_server_close(server);
    jsonline_server_close(NULL);
    jsonline_close(NULL);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rmdir(folder), 0);
}

static bool is_accepted(void *user)
{
    return ((struct fixture *)user)->stream != NULL;
}

/* Out of descriptors, the server leaves those who wait alone for a while: the loop has nothing to do meanwhile. */
static void who_cannot_be_accepted_does_not_spin(void **state)
{
    struct fixture *f = *state;
    char folder[] = "/tmp/drover-jsonline-test-XXXXXX", path[64];
    struct err err = {0};
    struct jsonline_server *server;
    struct rlimit was, none;
    int client;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    assert_int_equal(jsonline_listen(&f->loop, path, accepted, f, &err, &server), 0);
    assert_int_equal(unixsock_connect(path, &err, &client), 0);
    uv_run(&f->loop, UV_RUN_NOWAIT); /* the loop's own descriptors are there */
    jsonline_close(f->stream);
    f->stream = NULL;
    close(client);
    assert_int_equal(unixsock_connect(path, &err, &client), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int turn = 0; turn < 3; turn++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    struct pollfd ready = {.fd = uv_backend_fd(&f->loop), .events = POLLIN};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(poll(&ready, 1, 0), 0);
    assert_null(f->stream);
    assert_true(loop_until(&f->loop, is_accepted, f)); /* later */
    jsonline_server_close(server);
    close(client);
    assert_int_equal(rmdir(folder), 0);
}

static void connecting_to_nobody_fails(void **state)
{
    struct fixture *f = *state;
    struct jsonline_options o = {.on_message = on_message, .on_closed = on_closed, .user = f};
    struct err err = {0};
    struct jsonline *client = NULL;
    assert_int_equal(jsonline_connect(&f->loop, "/nonexistent/socket", &o, &err, &client), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    char path[300];
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(jsonline_connect(&f->loop, path, &o, &err, &client), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_null(client);
}

/* A server that does not accept (a QEMU that hangs) must not stop our loop in connect(2). */
static void full_backlog_does_not_block(void **state)
{
    struct fixture *f = *state;
    char folder[] = "/tmp/drover-jsonline-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    struct jsonline_options o = {.on_message = on_message, .on_closed = on_closed, .user = f};
    struct err err = {0};
    struct jsonline *clients[8] = {NULL};
    int failed = 0;
    alarm(120); /* ends the test when connect blocks */
    for (size_t i = 0; i < 8; i++)
        failed += jsonline_connect(&f->loop, address.sun_path, &o, &err, &clients[i]) < 0;
    alarm(0);
    assert_true(failed > 0);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    for (size_t i = 0; i < 8; i++)
        jsonline_close(clients[i]);
    close(fd);
    unlink(address.sun_path);
    rmdir(folder);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(lines_become_objects),
        T(pieces_are_put_together),
        T(garbage_closes),
        T(deep_nesting_closes),
        T(oversize_closes),
        T(end_of_stream_is_told_once),
        T(closing_inside_callbacks),
        T(what_was_sent_leaves_before_the_close),
        T(a_peer_that_does_not_read_cannot_keep_a_closed_stream),
        T(a_peer_that_does_not_read_fails_the_stream),
        T(server_and_client),
        T(who_cannot_be_accepted_does_not_spin),
        T(connecting_to_nobody_fails),
        T(full_backlog_does_not_block),
    };
    signal(SIGPIPE, SIG_IGN); /* as loop_on_stop() does in every program */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
