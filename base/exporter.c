/* libmicrohttpd is told to use an epoll instance of its own and no thread. That descriptor is watched with uv_poll;
 * what MHD wants to do later (close idle connections, go on with a connection that is ready) it tells by
 * MHD_get_timeout, which becomes a uv_timer. Every wake-up is one MHD_run(). */
#include "base/exporter.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/address.h"
#include "base/ensure.h"

enum {
    EXPORTER_CONNECTIONS = 16,
    EXPORTER_TIMEOUT_S = 5,
    EXPORTER_REQUEST_MAX = 8192, /* MHD's pool per connection: request line, headers and reply headers */
};

struct exporter {
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles; /* still to be closed before the memory may go */
    struct MHD_Daemon *http;
    void (*collect)(void *user, struct metrics *m);
    void *user;
    char complaint[256]; /* what MHD said last */
};

__attribute__((format(printf, 2, 0))) static void exporter_log(void *user, const char *fmt, va_list args)
{
    struct exporter *exporter = user;
    vsnprintf(exporter->complaint, sizeof exporter->complaint, fmt, args);
    exporter->complaint[strcspn(exporter->complaint, "\n")] = '\0';
    log_event(LOG_DEBUG, "exporter.complained", "reason=%s", LOG_QUOTE(exporter->complaint));
}

static enum MHD_Result exporter_reply(
    struct MHD_Connection *connection, unsigned status, struct MHD_Response *response, const char *type)
{
    ENSURE(response != NULL);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result exporter_reply_text(struct MHD_Connection *connection, unsigned status, const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    return exporter_reply(connection, status, response, "text/plain; charset=utf-8");
}

static enum MHD_Result exporter_request(void *user, struct MHD_Connection *connection, const char *path,
    const char *method, const char *version, const char *body, size_t *body_len, void **state)
{
    (void)version, (void)body, (void)body_len, (void)state;
    struct exporter *exporter = user;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return exporter_reply_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (strcmp(path, "/healthz") == 0)
        return exporter_reply_text(connection, MHD_HTTP_OK, "ok\n");
    if (strcmp(path, "/metrics") != 0)
        return exporter_reply_text(connection, MHD_HTTP_NOT_FOUND, "there are /metrics and /healthz\n");

    struct metrics m = {0};
    exporter->collect(exporter->user, &m);
    buf_reserve(&m.text, 1); /* so that there is memory to give away even without a metric */
    struct MHD_Response *response = MHD_create_response_from_buffer(m.text.len, m.text.data, MHD_RESPMEM_MUST_FREE);
    return exporter_reply(connection, MHD_HTTP_OK, response, "text/plain; version=0.0.4; charset=utf-8");
}

static void exporter_timer_fired(uv_timer_t *timer);

static void exporter_run(struct exporter *exporter)
{
    MHD_run(exporter->http);
    MHD_UNSIGNED_LONG_LONG wait_ms;
    if (MHD_get_timeout(exporter->http, &wait_ms) == MHD_YES) {
        uv_update_time(exporter->timer.loop);
        uv_timer_start(&exporter->timer, exporter_timer_fired, wait_ms, 0);
    } else
        uv_timer_stop(&exporter->timer);
}

static void exporter_timer_fired(uv_timer_t *timer)
{
    exporter_run(timer->data);
}

static void exporter_polled(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    exporter_run(poll->data);
}

static void exporter_handle_closed(uv_handle_t *handle)
{
    struct exporter *exporter = handle->data;
    if (--exporter->handles == 0)
        free(exporter);
}

/* Starts MHD; its flags for IPv4 and IPv6 differ. */
static int exporter_listen(struct exporter *exporter, const char *text, struct err *err)
{
    struct address address;
    struct sockaddr_storage socket;
    if (address_parse_bare(text, err, &address) < 0)
        return -1;
    address_socket(&address, &socket);
    unsigned flags = MHD_USE_EPOLL | MHD_USE_ERROR_LOG | (address.ipv6 ? MHD_USE_IPv6 : 0);
    exporter->http =
        MHD_start_daemon(flags, 0, NULL, NULL, exporter_request, exporter, MHD_OPTION_EXTERNAL_LOGGER, exporter_log,
            exporter, MHD_OPTION_SOCK_ADDR, &socket, MHD_OPTION_CONNECTION_LIMIT, (unsigned)EXPORTER_CONNECTIONS,
            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)EXPORTER_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
            (size_t)EXPORTER_REQUEST_MAX, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!exporter->http)
        return err_set(err, ERR_UNAVAILABLE, "cannot serve metrics at %s: %s", text,
            exporter->complaint[0] ? exporter->complaint : "the HTTP server did not start");
    return 0;
}

int exporter_open(uv_loop_t *loop, const char *address, void (*collect)(void *user, struct metrics *m), void *user,
    struct err *err, struct exporter **out)
{
    struct exporter *exporter = mem_zalloc(sizeof *exporter);
    exporter->collect = collect;
    exporter->user = user;
    if (exporter_listen(exporter, address, err) < 0) {
        free(exporter);
        return -1;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(exporter->http, MHD_DAEMON_INFO_EPOLL_FD);
    ENSURE(info != NULL);
    int rc = uv_poll_init(loop, &exporter->poll, info->epoll_fd);
    if (rc != 0) {
        MHD_stop_daemon(exporter->http);
        free(exporter);
        return err_set(err, ERR_INTERNAL, "cannot watch the HTTP server: %s", uv_strerror(rc));
    }
    ENSURE(uv_timer_init(loop, &exporter->timer) == 0);
    exporter->poll.data = exporter->timer.data = exporter;
    exporter->handles = 2;
    ENSURE(uv_poll_start(&exporter->poll, UV_READABLE, exporter_polled) == 0);
    *out = exporter;
    return 0;
}

uint16_t exporter_port(const struct exporter *exporter)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(exporter->http, MHD_DAEMON_INFO_BIND_PORT);
    ENSURE(info != NULL);
    return info->port;
}

void exporter_close(struct exporter *exporter)
{
    if (!exporter)
        return;
    /* The descriptor leaves the loop before MHD closes it. */
    uv_close((uv_handle_t *)&exporter->poll, exporter_handle_closed);
    uv_close((uv_handle_t *)&exporter->timer, exporter_handle_closed);
    MHD_stop_daemon(exporter->http);
    exporter->http = NULL;
}
