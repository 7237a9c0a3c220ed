/* The destination end of a tunnel: opens, unpacks and writes to QEMU what the source end sends. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <zmq.h>

#include "migrate/ack.h"
#include "migrate/listener.h"
#include "migrate/tunnel_private.h"

static int connect_qemu(struct tunnel *t, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, t->path, sizeof t->path);
    t->stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (t->stream < 0 || connect(t->stream, (struct sockaddr *)&address, sizeof address) < 0)
        return err_errno(err, ERR_UNAVAILABLE, errno, "cannot connect to QEMU at %s", t->path);
    return 0;
}

/* As fast as QEMU takes it. */
static int write_stream(struct tunnel *t, const uint8_t *data, size_t len, struct err *err)
{
    if (t->stream < 0 && connect_qemu(t, err) < 0)
        return -1;
    while (len > 0) {
        struct pollfd polled = {.fd = t->stream, .events = POLLOUT};
        if (atomic_load(&t->stop))
            return err_set(err, ERR_CANCELLED, "stopped");
        if (poll(&polled, 1, TUNNEL_POLL_MS) <= 0)
            continue;
        ssize_t n = send(t->stream, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return err_errno(err, ERR_UNAVAILABLE, errno, "QEMU does not take its migration; its log says why");
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int apply(struct tunnel *t, const uint8_t *plain, size_t len, struct err *err)
{
    size_t bytes;
    const uint8_t *data = unpack_headed(plain, len, err, t->piece, &bytes);
    if (!data || write_stream(t, data, bytes, err) < 0)
        return -1;
    atomic_fetch_add(&t->stream_bytes, bytes);
    return 0;
}

/* Messages that are not genuine cost nothing and are dropped. */
static int take(struct tunnel *t, zmq_msg_t *identity, zmq_msg_t *message, struct err *err)
{
    struct err forged;
    size_t len = zmq_msg_size(message);
    if (len > TUNNEL_FRAME_MAX || seal_open(t->in, zmq_msg_data(message), len, &forged, t->plain) < 0)
        return 0;
    if (apply(t, t->plain, len - SEAL_OVERHEAD, err) < 0)
        return -1;
    t->acked_bytes += len;
    atomic_fetch_add(&t->wire_bytes, len);
    uint8_t body[ACK_BODY_BYTES], ack[ACK_FRAME_BYTES];
    ack_encode(t->acked_bytes, body);
    seal_close(t->out, body, sizeof body, ack);
    if (zmq_send(t->socket, zmq_msg_data(identity), zmq_msg_size(identity), ZMQ_SNDMORE) < 0 ||
        zmq_send(t->socket, ack, sizeof ack, 0) < 0)
        return err_set(err, ERR_UNAVAILABLE, "connection to the source lost");
    return 0;
}

static void *destination_main(void *arg)
{
    struct tunnel *t = arg;
    struct err err;
    zmq_msg_t identity, message;
    int rc = 0;
    zmq_msg_init(&identity);
    zmq_msg_init(&message);
    while (rc == 0 && !atomic_load(&t->stop)) {
        zmq_pollitem_t item = {.socket = t->socket, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, TUNNEL_POLL_MS) <= 0 || zmq_msg_recv(&identity, t->socket, ZMQ_DONTWAIT) < 0)
            continue;
        bool more = zmq_msg_more(&identity), ours = false;
        while (more) { /* ours have one part after the identity; the rest of a stranger's is taken off the socket */
            if (zmq_msg_recv(&message, t->socket, ZMQ_DONTWAIT) < 0)
                break;
            more = zmq_msg_more(&message);
            ours = !ours && !more;
        }
        if (ours)
            rc = take(t, &identity, &message, &err);
    }
    zmq_msg_close(&identity);
    zmq_msg_close(&message);
    if (rc < 0)
        tunnel_fail(t, &err);
    return NULL;
}

int tunnel_open_destination(uv_loop_t *loop, const struct tunnel_options *options, struct err *err, struct tunnel **out)
{
    struct tunnel *t;
    if (tunnel_new(loop, options, SEAL_TO_SOURCE, err, &t) < 0)
        return -1;
    if (listener_open(t->zmq, options->host, options->from, TUNNEL_FRAME_MAX, err, t->address, &t->socket) < 0 ||
        tunnel_start(t, destination_main, err) < 0) {
        tunnel_close(t);
        return -1;
    }
    t->options.host = t->options.from = NULL; /* only lent */
    *out = t;
    return 0;
}
