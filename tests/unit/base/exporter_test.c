/* A real client over loopback: a thread with blocking sockets on one side, the loop with the exporter on the other. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/exporter.h"
#include "base/loop.h"

static unsigned collected;

static void collect(void *user, struct metrics *m)
{
    collected++;
    metrics_family(m, "drover_scrapes_total", METRIC_COUNTER, "Scrapes.");
    metrics_sample(m, collected, NULL);
    /* Large enough that it leaves in several pieces. */
    metrics_family(m, "drover_filler", METRIC_GAUGE, "Filler.");
    for (unsigned i = 0; i < *(unsigned *)user; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        metrics_sample(m, i, "i", name, NULL);
    }
}

struct client {
    uint16_t port;
    const char *request;
    struct buf reply;
    bool connected;
    uv_async_t done;
};

static void *client_run(void *arg)
{
    struct client *c = arg;
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(c->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->connected = connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
    if (c->connected && send(fd, c->request, strlen(c->request), MSG_NOSIGNAL) >= 0)
        for (;;) {
            ssize_t n = recv(fd, buf_reserve(&c->reply, 65536), 65536, 0);
            if (n <= 0)
                break;
            c->reply.len += (size_t)n;
        }
    close(fd);
    uv_async_send(&c->done);
    return NULL;
}

static void client_done(uv_async_t *async)
{
    uv_stop(async->loop);
}

struct fixture {
    uv_loop_t loop;
    struct exporter *exporter;
    unsigned fillers;
};

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err;
    collected = 0;
    uv_loop_init(&f->loop);
    f->fillers = 1;
    if (exporter_open(&f->loop, "127.0.0.1:0", collect, &f->fillers, &err, &f->exporter) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return -1;
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    exporter_close(f->exporter);
    loop_close(&f->loop);
    free(f);
    return 0;
}

/* One request; the reply, taken by the caller. */
static struct buf ask(struct fixture *f, const char *request)
{
    struct client c = {.port = exporter_port(f->exporter), .request = request};
    uv_async_init(&f->loop, &c.done, client_done);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, client_run, &c), 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    pthread_join(thread, NULL);
    assert_true(c.connected);
    uv_close((uv_handle_t *)&c.done, NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    return c.reply;
}

static void assert_reply(struct fixture *f, const char *request, const char *status, const char *part)
{
    cleanup_buf struct buf reply = ask(f, request);
    const char *text = buf_str(&reply);
    if (strncmp(text, status, strlen(status)) != 0 || !strstr(text, part))
        fail_msg("to %s the reply is %.300s", request, text);
}

static void metrics_are_served(void **state)
{
    assert_reply(*state, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200",
        "Content-Type: text/plain; version=0.0.4");
    assert_reply(*state, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200",
        "\ndrover_scrapes_total 2\n");
}

static void large_reply_arrives_whole(void **state)
{
    struct fixture *f = *state;
    f->fillers = 200000; /* about 6 MB */
    assert_reply(f, "GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.", "\ndrover_filler{i=\"199999\"} 199999\n");
}

static void head_has_no_body(void **state)
{
    cleanup_buf struct buf reply = ask(*state, "HEAD /metrics HTTP/1.0\r\n\r\n");
    const char *text = buf_str(&reply);
    assert_non_null(strstr(text, " 200 OK\r\n"));
    assert_null(strstr(text, "drover_scrapes_total"));
}

static void health_costs_no_collection(void **state)
{
    assert_reply(*state, "GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.", "\r\n\r\nok\n");
    assert_int_equal(collected, 0);
}

static void everything_else_is_refused(void **state)
{
    assert_reply(*state, "GET /../etc/passwd HTTP/1.0\r\n\r\n", "HTTP/1.1 404", "");
    assert_reply(*state, "POST /metrics HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405", "Allow: GET, HEAD");
    assert_reply(*state, "DELETE /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 405", "");
    assert_reply(*state, "\x16\x03\x01garbage\r\n\r\n", "", "");
    assert_int_equal(collected, 0);
}

static void huge_request_is_refused(void **state)
{
    char *path = mem_zalloc(20000);
    memset(path, 'a', 16000);
    char *request = mem_printf("GET /%s HTTP/1.0\r\n\r\n", path);
    cleanup_buf struct buf reply = ask(*state, request);
    assert_null(strstr(buf_str(&reply), " 200 "));
    free(request);
    free(path);
    assert_reply(*state, "GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.", "ok\n"); /* and it lives on */
}

/* Whoever connects and says nothing is thrown out by the timer, not by the next request. */
static void silent_client_is_dropped(void **state)
{
    cleanup_buf struct buf reply = ask(*state, "");
    assert_true(reply.len == 0 || strstr(buf_str(&reply), " 408 "));
}

static void bad_addresses_are_named(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"", ":", "9100", "localhost:9100", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999",
        "127.0.0.1:12x", "127.0.0.1:-1", "::1:9100", "[::1]", "[", "[:80", "1.2.3.4.5:80",
        "111111111111111111111111111111111111111111111111111111111111:80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        struct exporter *e = NULL;
        assert_int_equal(exporter_open(&f->loop, bad[i], collect, &f->fillers, &err, &e), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_null(e);
    }
    char taken[32];
    snprintf(taken, sizeof taken, "127.0.0.1:%u", exporter_port(f->exporter));
    struct err err = {0};
    struct exporter *e = NULL;
    assert_int_equal(exporter_open(&f->loop, taken, collect, &f->fillers, &err, &e), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(err.message, taken));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(metrics_are_served),
        T(large_reply_arrives_whole),
        T(head_has_no_body),
        T(health_costs_no_collection),
        T(everything_else_is_refused),
        T(huge_request_is_refused),
        T(silent_client_is_dropped),
        T(bad_addresses_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
