/* The source end of a tunnel: reads what QEMU writes, packs, seals and sends it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "migrate/ack.h"
#include "migrate/tunnel_private.h"

static int stopped(const struct tunnel *t, struct err *err)
{
    return atomic_load(&t->stop) ? err_set(err, ERR_CANCELLED, "stopped") : 0;
}

/* Takes the acknowledgements that are there. */
static int take_acks(struct tunnel *t, struct err *err)
{
    for (;;) {
        uint8_t frame[ACK_FRAME_BYTES], body[ACK_BODY_BYTES];
        int n = zmq_recv(t->socket, frame, sizeof frame, ZMQ_DONTWAIT);
        if (n < 0)
            return 0;
        if (n != (int)sizeof frame || seal_open(t->in, frame, sizeof frame, err, body) < 0)
            return err_set(err, ERR_PROTOCOL, "destination sent an acknowledgement that is not genuine");
        uint64_t acked = ack_decode(body);
        if (acked < t->acked_bytes || acked > atomic_load(&t->wire_bytes))
            return err_set(err, ERR_PROTOCOL, "destination acknowledged bytes that were never sent");
        t->acked_bytes = acked;
        t->heard_ns = clock_now_ns();
    }
}

/* Waits until at most `limit` bytes are unacknowledged. */
static int wait_acks(struct tunnel *t, uint64_t limit, struct err *err)
{
    t->heard_ns = clock_now_ns();
    while (atomic_load(&t->wire_bytes) - t->acked_bytes > limit) {
        zmq_pollitem_t item = {.socket = t->socket, .events = ZMQ_POLLIN};
        (void)zmq_poll(&item, 1, TUNNEL_POLL_MS);
        if (stopped(t, err) < 0 || take_acks(t, err) < 0)
            return -1;
        if (clock_now_ns() - t->heard_ns > t->silence_ms * 1000000)
            return err_set(err, ERR_TIMEOUT, "destination has acknowledged nothing for %llu s",
                (unsigned long long)t->silence_ms / 1000);
    }
    return 0;
}

/* Waits until the quota lets `bytes` more go (0: until CPU time may be used again). */
static int wait_quota(struct tunnel *t, size_t bytes, struct err *err)
{
    struct quota *quota = t->options.quota;
    for (uint64_t wait_ns;
         quota && (wait_ns = bytes ? quota_link_wait_ns(quota, clock_now_ns(), bytes) : quota_rest_ns(quota)) > 0;) {
        zmq_pollitem_t item = {.socket = t->socket, .events = ZMQ_POLLIN};
        uint64_t ms = wait_ns / 1000000 + 1;
        (void)zmq_poll(&item, 1, ms < TUNNEL_POLL_MS ? (long)ms : TUNNEL_POLL_MS);
        if (stopped(t, err) < 0 || take_acks(t, err) < 0)
            return -1;
    }
    return 0;
}

static int send_piece(struct tunnel *t, size_t len, struct err *err)
{
    size_t sealed = seal_close(t->out, t->plain, pack_headed(t->piece, len, t->plain), t->frame);
    if (wait_quota(t, sealed, err) < 0)
        return -1;
    atomic_fetch_add(&t->stream_bytes, len);
    atomic_fetch_add(&t->wire_bytes, sealed);
    uint64_t since_ns = clock_now_ns();
    while (zmq_send(t->socket, t->frame, sealed, 0) < 0) { /* waits for TUNNEL_POLL_MS at most */
        if (errno != EAGAIN && errno != EINTR)
            return err_set(err, ERR_UNAVAILABLE, "connection to the destination: %s", zmq_strerror(errno));
        if (stopped(t, err) < 0)
            return -1;
        if (clock_now_ns() - since_ns > t->silence_ms * 1000000) /* the queue fills before the window */
            return err_set(err, ERR_UNAVAILABLE,
                "the destination takes nothing of QEMU's stream; is its port for bulk data (%s) reached?", t->address);
    }
    return 0;
}

static int await_qemu(struct tunnel *t, struct err *err)
{
    struct pollfd polled = {.fd = t->listener, .events = POLLIN};
    while (poll(&polled, 1, TUNNEL_POLL_MS) <= 0)
        if (stopped(t, err) < 0)
            return -1;
    t->stream = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return t->stream < 0 ? err_errno(err, ERR_INTERNAL, errno, "QEMU's migration stream") : 0;
}

/* Until QEMU closes its end. */
static int send_stream(struct tunnel *t, struct err *err)
{
    for (;;) {
        zmq_pollitem_t items[] = {{.fd = t->stream, .events = ZMQ_POLLIN}, {.socket = t->socket, .events = ZMQ_POLLIN}};
        (void)zmq_poll(items, 2, TUNNEL_POLL_MS);
        if (stopped(t, err) < 0 || take_acks(t, err) < 0 || wait_quota(t, 0, err) < 0)
            return -1;
        ssize_t n = read(t->stream, t->piece, sizeof t->piece);
        if (n == 0)
            return 0;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return err_errno(err, ERR_UNAVAILABLE, errno, "QEMU's migration stream");
        if (wait_acks(t, t->options.window_bytes, err) < 0 || send_piece(t, (size_t)n, err) < 0)
            return -1;
    }
}

static void *source_main(void *arg)
{
    struct tunnel *t = arg;
    struct err err;
    if (await_qemu(t, &err) < 0 || send_stream(t, &err) < 0 || wait_acks(t, 0, &err) < 0) {
        tunnel_fail(t, &err);
        return NULL;
    }
    pthread_mutex_lock(&t->lock);
    t->over = true;
    pthread_mutex_unlock(&t->lock);
    uv_async_send(&t->wake);
    return NULL;
}

static int listen_for_qemu(struct tunnel *t, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, t->path, sizeof t->path);
    unlink(t->path);
    t->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t old = umask(0177);
    int rc = t->listener < 0 ? -1 : bind(t->listener, (struct sockaddr *)&address, sizeof address);
    umask(old);
    if (rc < 0 || listen(t->listener, 1) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot listen at %s", t->path);
    return 0;
}

static int connect_peer(struct tunnel *t, struct err *err)
{
    int linger = 0, hwm = 8, timeout = TUNNEL_POLL_MS;
    int64_t max = 1024; /* acknowledgements are tiny; ZeroMQ's own handshake is not quite */
    t->socket = zmq_socket(t->zmq, ZMQ_DEALER);
    snprintf(t->address, sizeof t->address, "%s", t->options.address); /* to name it later */
    if (!t->socket || zmq_setsockopt(t->socket, ZMQ_LINGER, &linger, sizeof linger) < 0 ||
        zmq_setsockopt(t->socket, ZMQ_SNDHWM, &hwm, sizeof hwm) < 0 ||
        zmq_setsockopt(t->socket, ZMQ_SNDTIMEO, &timeout, sizeof timeout) < 0 ||
        zmq_setsockopt(t->socket, ZMQ_MAXMSGSIZE, &max, sizeof max) < 0 ||
        zmq_connect(t->socket, t->options.address) < 0)
        return err_set(err, ERR_UNAVAILABLE, "cannot connect to %s: %s", t->options.address, zmq_strerror(errno));
    return 0;
}

int tunnel_open_source(uv_loop_t *loop, const struct tunnel_options *options, struct err *err, struct tunnel **out)
{
    struct tunnel *t;
    if (tunnel_new(loop, options, SEAL_TO_DESTINATION, err, &t) < 0)
        return -1;
    if (listen_for_qemu(t, err) < 0 || connect_peer(t, err) < 0 || tunnel_start(t, source_main, err) < 0) {
        tunnel_close(t);
        return -1;
    }
    t->options.address = NULL; /* only lent */
    *out = t;
    return 0;
}
