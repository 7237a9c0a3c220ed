/* Connections of a relay, and what passes through them. */
#include <endian.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "migrate/relay_private.h"

#define RELAY_STRIPE   1000u /* first part of the nonces: far from those of the stripes for pages */
#define RELAY_PROVE_MS 10000 /* how long a connection may take to prove that it is the source's */
#define HEADER_BYTES   4u
#define SEALED_MAX     (RELAY_DATA_MAX + SEAL_OVERHEAD)

/* A write on its way; `held` counts it until QEMU or the network has taken it. */
struct piece {
    uv_write_t request;
    struct link *link;
    size_t *held;
    size_t len;
    uint8_t data[];
};

static void link_free(struct link *link)
{
    seal_free(link->closing);
    seal_free(link->opening);
    buf_free(&link->in);
    free(link);
}

static void link_handle_closed(uv_handle_t *handle)
{
    struct link *link = handle->data;
    if (--link->handles == 0)
        link_free(link);
}

void relay_link_close(struct link *link)
{
    if (link->closed)
        return;
    link->closed = true;
    if (link->relay)
        DL_DELETE(link->relay->links, link); // NOLINT: it is in the list, so it has neighbours
    loop_timer_free(link->timer);
    uv_close((uv_handle_t *)&link->local, link_handle_closed);
    uv_close((uv_handle_t *)&link->remote, link_handle_closed);
}

static void link_fail(struct link *link, const char *what)
{
    struct err err;
    if (link->closed || link->alone)
        return;
    if (link->relay->source) {
        err_set(&err, ERR_UNAVAILABLE, "the connection over which disks are copied broke: %s", what);
        relay_link_lost(link, &err);
    } else {
        log_event(LOG_WARN, "relay.broken", "what=%s", LOG_QUOTE(what));
        relay_link_close(link);
    }
}

struct link *relay_link_new(struct relay *relay)
{
    struct link *link = mem_zalloc(sizeof *link);
    link->relay = relay;
    ENSURE(uv_pipe_init(relay->loop, &link->local, 0) == 0 && uv_tcp_init(relay->loop, &link->remote) == 0);
    link->local.data = link->remote.data = link->connect.data = link;
    link->handles = 2;
    nbd_init(&link->nbd);
    DL_APPEND(relay->links, link);
    return link;
}

/* The other relay's end of it is gone, which is nothing to speak of at the destination. */
static void remote_over(struct link *link, int status)
{
    if (link->relay && link->relay->source)
        link_fail(link, uv_strerror(status));
    else
        relay_link_close(link);
}

static void link_seals(struct link *link, uint32_t number)
{
    bool source = link->relay->source;
    link->closing = seal_new(link->relay->key, source ? SEAL_TO_DESTINATION : SEAL_TO_SOURCE, RELAY_STRIPE + number);
    link->opening = seal_new(link->relay->key, source ? SEAL_TO_SOURCE : SEAL_TO_DESTINATION, RELAY_STRIPE + number);
}

/* --- writing --- */

static void piece_written(uv_write_t *request, int status)
{
    struct piece *piece = (struct piece *)request;
    struct link *link = piece->link;
    bool to_remote = piece->held == &link->remote_held;
    *piece->held -= piece->len;
    if (to_remote && status == 0)
        link->sent_bytes += piece->len;
    free(piece);
    if (status == 0)
        relay_link_pump(link);
    else if (to_remote)
        remote_over(link, status);
    else
        relay_link_close(link);
}

static struct piece *piece_new(struct link *link, size_t *held, size_t len)
{
    struct piece *piece = mem_alloc(sizeof *piece + len);
    piece->link = link;
    piece->held = held;
    piece->len = len;
    return piece;
}

static void piece_write(struct piece *piece, uv_stream_t *to)
{
    uv_buf_t data = uv_buf_init((char *)piece->data, (unsigned)piece->len);
    *piece->held += piece->len;
    int rc = uv_write(&piece->request, to, &data, 1, piece_written);
    if (rc != 0)
        piece_written(&piece->request, rc);
}

static void remote_send(struct link *link, const uint8_t *data, size_t len)
{
    struct piece *piece = piece_new(link, &link->remote_held, HEADER_BYTES + len + SEAL_OVERHEAD);
    uint32_t header = htole32((uint32_t)(len + SEAL_OVERHEAD));
    memcpy(piece->data, &header, HEADER_BYTES);
    seal_close(link->closing, data, len, piece->data + HEADER_BYTES);
    link->relay->wire_bytes += piece->len;
    piece_write(piece, (uv_stream_t *)&link->remote);
}

void relay_link_tell(struct link *link, const void *data, size_t len)
{
    struct piece *piece = piece_new(link, &link->local_held, len);
    memcpy(piece->data, data, len);
    piece_write(piece, (uv_stream_t *)&link->local);
}

/* --- from QEMU to the network --- */

static void local_space(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)handle;
    (void)suggested;
    static char room[RELAY_DATA_MAX]; /* used up before the next read */
    *out = uv_buf_init(room, sizeof room);
}

static void local_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *data)
{
    struct link *link = stream->data;
    if (n < 0) {
        relay_link_close(link);
        return;
    }
    if (link->relay->source)
        nbd_sent(&link->nbd, (const uint8_t *)data->base, (size_t)n);
    if (!link->alone && n > 0)
        remote_send(link, (const uint8_t *)data->base, (size_t)n);
    else if (link->alone && !relay_link_answer(link))
        relay_link_close(link);
    relay_link_pump(link);
}

/* --- from the network to QEMU --- */

static void local_connected(uv_connect_t *request, int status);

/* Destination: it is the source, so QEMU may be spoken to. */
static void link_proved(struct link *link)
{
    if (link->relay->used[link->number]) {
        link_fail(link, "a connection that has been before");
        return;
    }
    link->relay->used[link->number] = link->proved = true; /* only now: a stranger must not take the number away */
    loop_timer_stop(link->timer);
    uv_pipe_connect(&link->connect, &link->local, link->relay->path, local_connected);
}

/* One whole message. False: the link is closed. */
static bool message_take(struct link *link, const uint8_t *sealed, size_t len)
{
    struct err err;
    struct piece *piece = piece_new(link, &link->local_held, len - SEAL_OVERHEAD);
    if (seal_open(link->opening, sealed, len, &err, piece->data) < 0) {
        free(piece);
        link_fail(link, err.message);
        return false;
    }
    if (piece->len > 0) {
        if (link->relay->source)
            nbd_answered(&link->nbd, piece->data, piece->len);
        piece_write(piece, (uv_stream_t *)&link->local);
        return !link->closed;
    }
    free(piece);
    if (!link->relay->source && !link->proved)
        link_proved(link);
    return !link->closed;
}

/* Destination: the number that a connection begins with. */
static bool number_take(struct link *link)
{
    uint32_t number;
    memcpy(&number, link->in.data, HEADER_BYTES);
    buf_consume(&link->in, HEADER_BYTES);
    number = le32toh(number);
    if (number >= RELAY_LINKS_MAX) {
        link_fail(link, "a connection begins with a number that cannot be");
        return false;
    }
    link->number = number;
    link_seals(link, number);
    return true;
}

static void remote_take(struct link *link)
{
    uint32_t len;
    while (!link->closed && link->in.len >= HEADER_BYTES) {
        if (!link->opening) {
            if (!number_take(link))
                return;
            continue;
        }
        memcpy(&len, link->in.data, HEADER_BYTES);
        len = le32toh(len);
        bool first = !link->relay->source && !link->proved;
        if (len < SEAL_OVERHEAD || len > SEALED_MAX || (first && len != SEAL_OVERHEAD)) {
            link_fail(link, "a message of a length that cannot be");
            return;
        }
        if (link->in.len < HEADER_BYTES + len)
            return;
        if (!message_take(link, link->in.data + HEADER_BYTES, len))
            return;
        buf_consume(&link->in, HEADER_BYTES + len);
    }
}

static void remote_space(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct link *link = handle->data;
    (void)suggested;
    *out = uv_buf_init(buf_reserve(&link->in, RELAY_DATA_MAX), RELAY_DATA_MAX);
}

static void remote_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *data)
{
    struct link *link = stream->data;
    (void)data;
    if (n < 0) {
        remote_over(link, (int)n);
        return;
    }
    link->in.len += (size_t)n;
    link->came_bytes += (uint64_t)n;
    link->relay->wire_bytes += (uint64_t)n;
    remote_take(link);
    relay_link_pump(link);
}

/* --- back-pressure: each side is read only while the other takes what it is given --- */

static void pump_one(bool want, bool *reading, uv_stream_t *stream, uv_alloc_cb space, uv_read_cb read)
{
    if (want && !*reading)
        *reading = uv_read_start(stream, space, read) == 0;
    else if (!want && *reading)
        *reading = uv_read_stop(stream) != 0;
}

void relay_link_pump(struct link *link)
{
    if (link->closed)
        return;
    bool joined = link->connected && (link->relay->source || link->proved);
    bool to_remote = joined && (link->alone || link->remote_held < RELAY_HELD_BYTES);
    bool to_local = (joined || (!link->relay->source && !link->proved)) && link->local_held < RELAY_HELD_BYTES;
    to_local = to_local && !link->alone;
    pump_one(to_remote, &link->local_reading, (uv_stream_t *)&link->local, local_space, local_read);
    pump_one(to_local, &link->remote_reading, (uv_stream_t *)&link->remote, remote_space, remote_read);
}

/* --- connecting --- */

static void local_connected(uv_connect_t *request, int status)
{
    struct link *link = request->data;
    if (link->closed)
        return;
    if (status < 0) {
        link_fail(link, uv_strerror(status));
        return;
    }
    link->connected = true;
    crashpoint("destination", "relay-connected");
    relay_link_pump(link);
}

static void remote_connected(uv_connect_t *request, int status)
{
    struct link *link = request->data;
    if (link->closed)
        return;
    if (status < 0) {
        link_fail(link, uv_strerror(status));
        return;
    }
    uint32_t number = link->relay->opened++;
    if (number >= RELAY_LINKS_MAX) {
        link_fail(link, "too many connections");
        return;
    }
    link_seals(link, number);
    struct piece *piece = piece_new(link, &link->remote_held, HEADER_BYTES);
    number = htole32(number);
    memcpy(piece->data, &number, HEADER_BYTES);
    piece_write(piece, (uv_stream_t *)&link->remote);
    if (link->closed)
        return;
    remote_send(link, NULL, 0);
    uv_tcp_nodelay(&link->remote, 1);
    link->connected = true;
    crashpoint("source", "relay-connected");
    relay_link_pump(link);
}

void relay_source_accept(uv_stream_t *listener, int status)
{
    struct relay *relay = listener->data;
    struct link *link = relay_link_new(relay);
    if (relay->alone || status < 0 || uv_accept(listener, (uv_stream_t *)&link->local) != 0 ||
        uv_tcp_connect(&link->connect, &link->remote, (const struct sockaddr *)&relay->to, remote_connected) != 0)
        link_fail(link, "cannot connect to the destination");
}

static void prove_late(void *user)
{
    link_fail(user, "a connection did not prove whose it is");
}

/* Of whatever port. */
static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
    const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;
    if (a->ss_family != b->ss_family)
        return false;
    return a->ss_family == AF_INET ? a4->sin_addr.s_addr == b4->sin_addr.s_addr
                                   : memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof a6->sin6_addr) == 0;
}

static bool link_is_the_sources(const struct link *link)
{
    struct sockaddr_storage from;
    int len = sizeof from;
    return uv_tcp_getpeername(&link->remote, (struct sockaddr *)&from, &len) == 0 &&
           same_host(&from, &link->relay->from);
}

void relay_destination_accept(uv_stream_t *listener, int status)
{
    struct relay *relay = listener->data;
    struct link *other, *link = relay_link_new(relay);
    unsigned count = 0;
    DL_COUNT(relay->links, other, count);
    if (status < 0 || uv_accept(listener, (uv_stream_t *)&link->remote) != 0 || count > RELAY_LINKS_MAX) {
        link_fail(link, "cannot take a connection");
        return;
    }
    if (!link_is_the_sources(link)) {
        relay_link_close(link); /* in silence: strangers are not to fill the log either */
        return;
    }
    uv_tcp_nodelay(&link->remote, 1);
    link->timer = loop_timer_new(relay->loop, prove_late, link);
    loop_timer_start(link->timer, RELAY_PROVE_MS, 0);
    relay_link_pump(link);
}
