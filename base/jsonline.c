#include "base/jsonline.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/unixsock.h"

#define BACKLOG         16
#define CLOSE_MS        1000u /* for what was sent to leave: a peer that does not read must not keep the stream for ever */
#define ACCEPT_AGAIN_MS 100u

struct jsonline {
    uv_pipe_t pipe;
    struct jsonline_options options;
    struct buf in;
    size_t scanned;           /* bytes of `in` known to hold no line end */
    bool closing;             /* nothing is delivered any more */
    bool full;                /* the peer does not read: nothing more is sent, and the timer tells the owner */
    bool failed;              /* the owner was told */
    struct loop_timer *timer; /* NULL until needed */
};

struct jsonline_write {
    uv_write_t request;
    char *text;
};

static void jsonline_closed(uv_handle_t *handle)
{
    struct jsonline *stream = handle->data;
    loop_timer_free(stream->timer);
    buf_free(&stream->in);
    free(stream);
}

static void jsonline_shut(uv_shutdown_t *request, int status)
{
    (void)status;
    uv_handle_t *handle = (uv_handle_t *)request->handle;
    free(request);
    if (!uv_is_closing(handle))
        uv_close(handle, jsonline_closed);
}

static void jsonline_fail(struct jsonline *stream, enum err_code code, const char *why)
{
    if (stream->closing || stream->failed)
        return;
    stream->failed = true;
    uv_read_stop((uv_stream_t *)&stream->pipe);
    struct err err;
    err_set(&err, code, "%s", why);
    if (stream->options.on_closed)
        stream->options.on_closed(stream->options.user, &err);
}

static void jsonline_overdue(void *user)
{
    struct jsonline *stream = user;
    if (!stream->closing)
        jsonline_fail(stream, ERR_UNAVAILABLE, "peer does not read what it is sent");
    else if (!uv_is_closing((uv_handle_t *)&stream->pipe))
        uv_close((uv_handle_t *)&stream->pipe, jsonline_closed); /* ends the shutdown, too */
}

static void jsonline_in(struct jsonline *stream, uint64_t ms)
{
    if (!stream->timer)
        stream->timer = loop_timer_new(stream->pipe.loop, jsonline_overdue, stream);
    loop_timer_start(stream->timer, ms, 0);
}

void jsonline_close(struct jsonline *stream)
{
    if (!stream || stream->closing)
        return;
    stream->closing = true;
    uv_read_stop((uv_stream_t *)&stream->pipe);
    uv_shutdown_t *request = mem_alloc(sizeof *request);
    if (uv_shutdown(request, (uv_stream_t *)&stream->pipe, jsonline_shut) != 0) {
        free(request);
        uv_close((uv_handle_t *)&stream->pipe, jsonline_closed);
        return;
    }
    jsonline_in(stream, stream->full ? 0 : CLOSE_MS);
}

/* Delivers the line of `len` bytes at the front; false when the stream must not be touched any more. */
static bool jsonline_deliver(struct jsonline *stream, size_t len)
{
    json_error_t why;
    json_t *message = json_loadb((const char *)stream->in.data, len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(message)) {
        json_decref(message);
        jsonline_fail(stream, ERR_PROTOCOL, "peer sent a line that is not a JSON object");
        return false;
    }
    buf_consume(&stream->in, len + 1);
    stream->scanned = 0;
    stream->options.on_message(stream->options.user, message);
    json_decref(message);
    return !stream->closing;
}

static void jsonline_read(uv_stream_t *pipe, ssize_t n, const uv_buf_t *unused)
{
    (void)unused;
    struct jsonline *stream = pipe->data;
    if (n < 0) {
        jsonline_fail(stream, ERR_UNAVAILABLE, n == UV_EOF ? "peer closed the connection" : uv_strerror((int)n));
        return;
    }
    stream->in.len += (size_t)n;
    for (;;) {
        uint8_t *end = memchr(stream->in.data + stream->scanned, '\n', stream->in.len - stream->scanned);
        if (!end)
            break;
        if (!jsonline_deliver(stream, (size_t)(end - stream->in.data)))
            return;
    }
    stream->scanned = stream->in.len;
    if (stream->in.len > stream->options.max_line)
        jsonline_fail(stream, ERR_PROTOCOL, "peer sent a line that is too long");
}

static void jsonline_space(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct jsonline *stream = handle->data;
    *out = uv_buf_init(buf_reserve(&stream->in, 16384), 16384);
}

int jsonline_open(
    uv_loop_t *loop, int fd, const struct jsonline_options *options, struct err *err, struct jsonline **out)
{
    struct jsonline *stream = mem_zalloc(sizeof *stream);
    stream->options = *options;
    if (stream->options.max_line == 0)
        stream->options.max_line = JSONLINE_MAX;
    ENSURE(uv_pipe_init(loop, &stream->pipe, 0) == 0);
    stream->pipe.data = stream;
    int rc = uv_pipe_open(&stream->pipe, fd);
    if (rc != 0)
        close(fd);
    else
        rc = uv_read_start((uv_stream_t *)&stream->pipe, jsonline_space, jsonline_read);
    if (rc != 0) {
        stream->closing = true;
        uv_close((uv_handle_t *)&stream->pipe, jsonline_closed);
        return err_set(err, ERR_INTERNAL, "cannot use socket: %s", uv_strerror(rc));
    }
    *out = stream;
    return 0;
}

int jsonline_connect(
    uv_loop_t *loop, const char *path, const struct jsonline_options *options, struct err *err, struct jsonline **out)
{
    int fd;
    if (unixsock_connect(path, err, &fd) < 0)
        return -1;
    return jsonline_open(loop, fd, options, err, out);
}

static void jsonline_written(uv_write_t *request, int status)
{
    (void)status; /* a broken stream shows when it is read */
    struct jsonline_write *write = (struct jsonline_write *)request;
    free(write->text);
    free(write);
}

void jsonline_send(struct jsonline *stream, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    ENSURE(text != NULL);
    struct jsonline_write *write = mem_zalloc(sizeof *write);
    write->text = text;
    static char newline[] = "\n";
    uv_buf_t pieces[2] = {uv_buf_init(text, (unsigned)strlen(text)), uv_buf_init(newline, 1)};
    if (stream->closing || stream->full ||
        uv_write(&write->request, (uv_stream_t *)&stream->pipe, pieces, 2, jsonline_written) != 0)
        jsonline_written(&write->request, UV_ECANCELED);
    else if (uv_stream_get_write_queue_size((uv_stream_t *)&stream->pipe) > JSONLINE_QUEUE_MAX) {
        stream->full = true;
        jsonline_in(stream, 0);
    }
}

bool jsonline_pending(const struct jsonline *stream)
{
    uv_os_fd_t fd;
    if (stream->closing || uv_fileno((const uv_handle_t *)&stream->pipe, &fd) != 0)
        return false;
    struct pollfd look = {.fd = fd, .events = POLLIN};
    return stream->in.len > 0 || poll(&look, 1, 0) != 0; /* a part of a line is something, too */
}

struct jsonline_server {
    uv_poll_t poll;
    int fd;
    struct loop_timer *again; /* until it accepts again; NULL: it always could */
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    void (*on_accept)(void *user, int fd);
    void *user;
};

static void jsonline_acceptable(uv_poll_t *poll, int status, int events);

static void jsonline_await(void *user)
{
    struct jsonline_server *server = user;
    ENSURE(uv_poll_start(&server->poll, UV_READABLE, jsonline_acceptable) == 0);
}

/* Who waits stays in the backlog, and would wake the loop again at once, and for ever. */
static void jsonline_pause(struct jsonline_server *server, int cause)
{
    if (!server->again) {
        log_event(LOG_WARN, "jsonline.not_accepted", "path=%s reason=%s", server->path, LOG_QUOTE(strerror(cause)));
        server->again = loop_timer_new(server->poll.loop, jsonline_await, server);
    }
    uv_poll_stop(&server->poll);
    loop_timer_start(server->again, ACCEPT_AGAIN_MS, 0);
}

static void jsonline_acceptable(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct jsonline_server *server = poll->data;
    if (status < 0)
        return;
    int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        server->on_accept(server->user, fd);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        jsonline_pause(server, errno);
}

int jsonline_listen(uv_loop_t *loop, const char *path, void (*on_accept)(void *user, int fd), void *user,
    struct err *err, struct jsonline_server **out)
{
    int fd;
    if (unixsock_listen(path, BACKLOG, err, &fd) < 0)
        return -1;
    fcntl(fd, F_SETFL, O_NONBLOCK); /* who wanted in may be gone when it is accepted */
    struct jsonline_server *server = mem_zalloc(sizeof *server);
    server->fd = fd;
    strcpy(server->path, path);
    server->on_accept = on_accept;
    server->user = user;
    ENSURE(uv_poll_init(loop, &server->poll, fd) == 0);
    server->poll.data = server;
    jsonline_await(server);
    *out = server;
    return 0;
}

static void jsonline_server_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void jsonline_server_close(struct jsonline_server *server)
{
    if (!server)
        return;
    uv_poll_stop(&server->poll);
    loop_timer_free(server->again);
    close(server->fd);
    unlink(server->path);
    uv_close((uv_handle_t *)&server->poll, jsonline_server_closed);
}
