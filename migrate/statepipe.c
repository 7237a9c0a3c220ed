#include "migrate/statepipe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/log.h"

#define NARROW_BYTES (16 << 10) /* which Linux doubles: what it needs itself is in it */

struct statepipe {
    uv_pipe_t listener, stream;
    struct statepipe_options options;
    char path[108];
    bool connected, flowing, closed;
    int open_handles;
    size_t writing; /* writes under way */
    uv_poll_t taken;
    int taken_fd;                 /* the stream's, again: libuv has a file descriptor watched once; -1: not watched */
    int writer_fd;                /* the other end, while it is narrow; else -1 */
    int buffer;                   /* what a socket is told to have what it had before */
    void (*on_taken)(void *user); /* NULL: nobody waits */
    uint8_t chunk[STATEPIPE_CHUNK];
};

struct statepipe_request {
    uv_write_t request;
    struct statepipe *pipe;
    uint8_t data[];
};

static void statepipe_fail(struct statepipe *pipe, const char *what, int why)
{
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "device state stream with QEMU: %s: %s", what, uv_strerror(why));
    if (!pipe->closed)
        pipe->options.on_failed(pipe->options.user, &err);
}

static void statepipe_space(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct statepipe *pipe = handle->data;
    *out = uv_buf_init((char *)pipe->chunk, sizeof pipe->chunk);
}

static void statepipe_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *data)
{
    struct statepipe *pipe = stream->data;
    if (n == 0)
        return;
    if (n < 0)
        uv_read_stop(stream);
    if (n < 0 && n != UV_EOF)
        statepipe_fail(pipe, "read", (int)n);
    else if (!pipe->closed)
        pipe->options.on_data(pipe->options.user, (const uint8_t *)data->base, n > 0 ? (size_t)n : 0);
}

static void statepipe_begin(struct statepipe *pipe)
{
    int rc = uv_read_start((uv_stream_t *)&pipe->stream, statepipe_space, statepipe_read);
    if (rc != 0)
        statepipe_fail(pipe, "read", rc);
}

/* Of the descriptors of a process, the one that is connected to us. -1: cannot be had. */
static int statepipe_find_writer(const struct statepipe *pipe, pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    DIR *dir = opendir(path);
    int found = -1;
    for (struct dirent *entry; dir && found < 0 && (entry = readdir(dir));) {
        char target[16] = "";
        struct sockaddr_un peer = {0};
        socklen_t len = sizeof peer - 1; /* ends with a zero */
        int fd =
            readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1) > 0 && strncmp(target, "socket:", 7) == 0
                ? (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0)
                : -1;
        if (fd >= 0 && getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.sun_family == AF_UNIX &&
            strcmp(peer.sun_path, pipe->path) == 0)
            found = fd;
        else if (fd >= 0)
            close(fd);
    }
    if (dir)
        closedir(dir);
    return found;
}

/* What a socket has to be told to have the buffer that it has: Linux tells twice what it is told. -1: not known. */
static int buffer_of(int fd)
{
    int bytes;
    socklen_t len = sizeof bytes;
    return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &len) == 0 ? bytes / 2 : -1;
}

static void statepipe_narrow(struct statepipe *pipe)
{
    int bytes = NARROW_BYTES, fd = statepipe_find_writer(pipe, pipe->options.narrow_pid);
    int before = fd < 0 ? -1 : buffer_of(fd);
    if (before > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0) {
        pipe->writer_fd = fd;
        pipe->buffer = before;
        return;
    }
    log_event(LOG_DEBUG, "statepipe.wide", "errno=%d", errno);
    if (fd >= 0)
        close(fd);
}

void statepipe_widen(struct statepipe *pipe)
{
    pipe->options.narrow_pid = 0; /* it may have written, and be heard to have, before it is accepted */
    if (pipe->writer_fd < 0)
        return;
    if (setsockopt(pipe->writer_fd, SOL_SOCKET, SO_SNDBUF, &pipe->buffer, sizeof pipe->buffer) < 0)
        log_event(LOG_DEBUG, "statepipe.narrow", "errno=%d", errno);
    close(pipe->writer_fd); /* else the writer's end would not be the stream's */
    pipe->writer_fd = -1;
}

static void statepipe_accept(uv_stream_t *listener, int status)
{
    struct statepipe *pipe = listener->data;
    if (pipe->connected)
        return;
    int rc = status < 0 ? status : uv_accept(listener, (uv_stream_t *)&pipe->stream);
    pipe->connected = true;
    if (rc == 0 && pipe->options.narrow_pid)
        statepipe_narrow(pipe);
    if (rc != 0)
        statepipe_fail(pipe, "accept", rc);
    else if (pipe->flowing)
        statepipe_begin(pipe);
}

void statepipe_flow(struct statepipe *pipe)
{
    if (pipe->flowing)
        return;
    pipe->flowing = true;
    if (pipe->connected)
        statepipe_begin(pipe);
}

void statepipe_hold(struct statepipe *pipe)
{
    pipe->flowing = false;
    uv_read_stop((uv_stream_t *)&pipe->stream);
}

static struct statepipe *statepipe_new(uv_loop_t *loop, const char *path, const struct statepipe_options *options)
{
    struct statepipe *pipe = mem_zalloc(sizeof *pipe);
    pipe->options = *options;
    strncpy(pipe->path, path, sizeof pipe->path - 1);
    ENSURE(uv_pipe_init(loop, &pipe->listener, 0) == 0 && uv_pipe_init(loop, &pipe->stream, 0) == 0);
    pipe->listener.data = pipe->stream.data = pipe;
    pipe->open_handles = 2;
    pipe->taken_fd = pipe->writer_fd = -1;
    return pipe;
}

static int statepipe_check_path(const char *path, struct err *err)
{
    if (strlen(path) >= sizeof((struct statepipe *)0)->path)
        return err_set(err, ERR_INVALID, "socket path is too long: %s", path);
    return 0;
}

int statepipe_listen(
    uv_loop_t *loop, const char *path, const struct statepipe_options *options, struct err *err, struct statepipe **out)
{
    if (statepipe_check_path(path, err) < 0)
        return -1;
    struct statepipe *pipe = statepipe_new(loop, path, options);
    unlink(path);
    mode_t old = umask(0177);
    int rc = uv_pipe_bind(&pipe->listener, path);
    umask(old);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&pipe->listener, 1, statepipe_accept);
    if (rc != 0) {
        statepipe_close(pipe);
        return err_set(err, ERR_INTERNAL, "cannot listen at %s: %s", path, uv_strerror(rc));
    }
    *out = pipe;
    return 0;
}

static void statepipe_on_connect(uv_connect_t *request, int status)
{
    struct statepipe *pipe = request->data;
    free(request);
    if (status < 0 && status != UV_ECANCELED)
        statepipe_fail(pipe, "connect", status);
}

int statepipe_connect(
    uv_loop_t *loop, const char *path, const struct statepipe_options *options, struct err *err, struct statepipe **out)
{
    if (statepipe_check_path(path, err) < 0)
        return -1;
    struct statepipe *pipe = statepipe_new(loop, path, options);
    pipe->path[0] = '\0'; /* the socket is QEMU's */
    uv_connect_t *request = mem_zalloc(sizeof *request);
    request->data = pipe;
    uv_pipe_connect(request, &pipe->stream, path, statepipe_on_connect);
    pipe->connected = true;
    *out = pipe;
    return 0;
}

static void statepipe_closed(uv_handle_t *handle)
{
    struct statepipe *pipe = handle->data;
    if (--pipe->open_handles == 0)
        free(pipe);
}

static void statepipe_unwatch(struct statepipe *pipe)
{
    if (pipe->taken_fd < 0)
        return;
    uv_poll_stop(&pipe->taken);
    uv_close((uv_handle_t *)&pipe->taken, statepipe_closed);
    close(pipe->taken_fd);
    pipe->taken_fd = -1;
}

static void statepipe_buffer(struct statepipe *pipe, int bytes)
{
    if (setsockopt(pipe->taken_fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) < 0)
        log_event(LOG_DEBUG, "statepipe.buffer", "bytes=%d", bytes); /* then it is told sooner than it should be */
}

static void statepipe_tell_taken(struct statepipe *pipe)
{
    void (*fn)(void *user) = pipe->on_taken;
    pipe->on_taken = NULL;
    fn(pipe->options.user);
}

static void statepipe_writable(uv_poll_t *handle, int status, int events)
{
    struct statepipe *pipe = handle->data;
    (void)status;
    (void)events;
    if (pipe->buffer > 0)
        statepipe_buffer(pipe, pipe->buffer);
    statepipe_unwatch(pipe);
    statepipe_tell_taken(pipe);
}

/* A socket is writable once what waits in it is no more than a quarter of its buffer. With the least of buffers (Linux:
 * 4.5 KiB, bookkeeping included) that is nothing. */
static void statepipe_watch(struct statepipe *pipe)
{
    uv_os_fd_t fd = -1;
    if (uv_fileno((uv_handle_t *)&pipe->stream, &fd) == 0)
        pipe->taken_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (pipe->taken_fd < 0) {
        log_event(LOG_WARN, "statepipe.unwatched", "errno=%d", errno);
        statepipe_tell_taken(pipe);
        return;
    }
    ENSURE(uv_poll_init(pipe->stream.loop, &pipe->taken, pipe->taken_fd) == 0);
    pipe->taken.data = pipe;
    pipe->open_handles++;
    pipe->buffer = buffer_of(pipe->taken_fd);
    if (pipe->buffer > 0)
        statepipe_buffer(pipe, 1);
    ENSURE(uv_poll_start(&pipe->taken, UV_WRITABLE, statepipe_writable) == 0);
}

void statepipe_when_taken(struct statepipe *pipe, void (*fn)(void *user))
{
    ENSURE(!pipe->on_taken);
    pipe->on_taken = fn;
    if (pipe->writing == 0) /* else once that is done */
        statepipe_watch(pipe);
}

static void statepipe_written(uv_write_t *request, int status)
{
    struct statepipe_request *write = (struct statepipe_request *)request;
    struct statepipe *pipe = write->pipe;
    pipe->writing--;
    if (status < 0 && status != UV_ECANCELED)
        statepipe_fail(pipe, "write", status);
    free(write);
    if (pipe->writing == 0 && pipe->on_taken && !pipe->closed && pipe->taken_fd < 0)
        statepipe_watch(pipe);
}

void statepipe_write(struct statepipe *pipe, const uint8_t *data, size_t len)
{
    if (uv_stream_get_write_queue_size((uv_stream_t *)&pipe->stream) + len > STATEPIPE_HELD_MAX) {
        statepipe_fail(pipe, "QEMU does not take it", UV_ENOBUFS);
        return;
    }
    struct statepipe_request *write = mem_alloc(sizeof *write + len);
    write->pipe = pipe;
    memcpy(write->data, data, len);
    pipe->writing++;
    uv_buf_t piece = uv_buf_init((char *)write->data, (unsigned)len);
    int rc = uv_write(&write->request, (uv_stream_t *)&pipe->stream, &piece, 1, statepipe_written);
    if (rc != 0)
        statepipe_written(&write->request, rc);
}

void statepipe_close(struct statepipe *pipe)
{
    if (!pipe || pipe->closed)
        return;
    pipe->closed = true;
    if (pipe->path[0])
        unlink(pipe->path);
    statepipe_unwatch(pipe);
    statepipe_widen(pipe);
    uv_close((uv_handle_t *)&pipe->listener, statepipe_closed);
    uv_close((uv_handle_t *)&pipe->stream, statepipe_closed);
}
