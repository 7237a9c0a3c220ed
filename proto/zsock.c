#include "proto/zsock.h"

#include <errno.h>

#include "base/buf.h"
#include "base/ensure.h"

struct zsock {
    void *socket;
    uv_poll_t poll;
    uv_prepare_t prepare;
    uv_idle_t idle;
    int handles; /* of libuv that are not closed yet */
    zsock_turn_fn turn;
    void *user;
    bool started, closed, kicked, writable;
};

static void zsock_idle(uv_idle_t *handle)
{
    (void)handle; /* its being active is what matters: the prepare handle follows */
}

static void zsock_run(struct zsock *zsock)
{
    if (zsock->closed)
        return;
    int events = 0;
    size_t size = sizeof events;
    while (zmq_getsockopt(zsock->socket, ZMQ_EVENTS, &events, &size) < 0)
        ENSURE(errno == EINTR);
    bool readable = events & ZMQ_POLLIN, writable = events & ZMQ_POLLOUT;
    bool more = false;
    if (readable || zsock->kicked || writable != zsock->writable) {
        zsock->kicked = false;
        zsock->writable = writable;
        more = zsock->turn(zsock->user, readable, writable);
    }
    if (zsock->closed)
        return;
    if (more || zsock->kicked)
        uv_idle_start(&zsock->idle, zsock_idle);
    else
        uv_idle_stop(&zsock->idle);
}

static void zsock_prepared(uv_prepare_t *handle)
{
    struct zsock *zsock = handle->data;
    zsock_run(zsock);
}

static void zsock_polled(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    zsock_run(handle->data);
}

int zsock_open(uv_loop_t *loop, void *context, int type, struct err *err, struct zsock **out)
{
    void *socket = zmq_socket(context, type);
    if (!socket)
        return err_set(err, ERR_INTERNAL, "cannot make a socket: %s", zmq_strerror(errno));
    int fd;
    size_t size = sizeof fd;
    ENSURE(zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0);
    struct zsock *zsock = mem_zalloc(sizeof *zsock);
    zsock->socket = socket;
    int rc = uv_poll_init(loop, &zsock->poll, fd);
    if (rc != 0) {
        zmq_close(socket);
        free(zsock);
        return err_set(err, ERR_INTERNAL, "cannot watch a socket: %s", uv_strerror(rc));
    }
    uv_prepare_init(loop, &zsock->prepare);
    uv_idle_init(loop, &zsock->idle);
    zsock->poll.data = zsock->prepare.data = zsock->idle.data = zsock;
    zsock->handles = 3;
    *out = zsock;
    return 0;
}

void *zsock_socket(const struct zsock *zsock)
{
    return zsock->socket;
}

void zsock_set(struct zsock *zsock, int option, int value)
{
    ENSURE(zmq_setsockopt(zsock->socket, option, &value, sizeof value) == 0);
}

void zsock_start(struct zsock *zsock, zsock_turn_fn turn, void *user)
{
    ENSURE(!zsock->started);
    zsock->started = true;
    zsock->turn = turn;
    zsock->user = user;
    ENSURE(uv_poll_start(&zsock->poll, UV_READABLE, zsock_polled) == 0);
    uv_prepare_start(&zsock->prepare, zsock_prepared);
}

void zsock_kick(struct zsock *zsock)
{
    zsock->kicked = true;
    uv_idle_start(&zsock->idle, zsock_idle);
}

static void zsock_handle_closed(uv_handle_t *handle)
{
    struct zsock *zsock = handle->data;
    if (--zsock->handles == 0)
        free(zsock);
}

void zsock_close(struct zsock *zsock)
{
    if (!zsock || zsock->closed)
        return;
    zsock->closed = true;
    uv_close((uv_handle_t *)&zsock->poll, zsock_handle_closed);
    uv_close((uv_handle_t *)&zsock->prepare, zsock_handle_closed);
    uv_close((uv_handle_t *)&zsock->idle, zsock_handle_closed);
    /* After uv_close(): the descriptor must not vanish while libuv watches it. */
    zmq_close(zsock->socket);
    zsock->socket = NULL;
}

int zsock_receive(struct zsock *zsock, zmq_msg_t *message)
{
    zmq_msg_init(message);
    for (;;) {
        if (zmq_msg_recv(message, zsock->socket, ZMQ_DONTWAIT) >= 0)
            return 0;
        if (errno != EINTR)
            break;
    }
    ENSURE(errno == EAGAIN);
    zmq_msg_close(message);
    return -1;
}

bool zsock_skip_rest(struct zsock *zsock, zmq_msg_t *last)
{
    bool any = false;
    for (bool more = zmq_msg_more(last); more; any = true) {
        zmq_msg_t part;
        if (zsock_receive(zsock, &part) < 0)
            break; /* cannot be: a message arrives whole */
        more = zmq_msg_more(&part);
        zmq_msg_close(&part);
    }
    return any;
}
