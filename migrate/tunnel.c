/* What both ends of a tunnel share. */
#include "migrate/tunnel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "migrate/tunnel_private.h"

static void tunnel_woken(uv_async_t *async)
{
    struct tunnel *t = async->data;
    pthread_mutex_lock(&t->lock);
    struct err failure = t->failure;
    bool over = t->over;
    pthread_mutex_unlock(&t->lock);
    if (t->told || (!over && failure.code == ERR_NONE))
        return;
    t->told = true;
    if (over)
        t->options.on_over(t->options.user);
    else
        t->options.on_failed(t->options.user, &failure);
}

int tunnel_new(uv_loop_t *loop, const struct tunnel_options *options, enum seal_direction out_direction,
    struct err *err, struct tunnel **out)
{
    if (strlen(options->socket) >= sizeof((struct tunnel *)0)->path)
        return err_set(err, ERR_INVALID, "socket path is too long: %s", options->socket);
    struct tunnel *t = mem_zalloc(sizeof *t);
    bool source = out_direction == SEAL_TO_DESTINATION;
    t->options = *options;
    t->options.key = NULL; /* only lent */
    t->listener = t->stream = -1;
    t->silence_ms = TUNNEL_SILENCE_MS;
    strcpy(t->path, options->socket);
    t->zmq = zmq_ctx_new();
    ENSURE(t->zmq != NULL);
    t->out = seal_new(options->key, out_direction, 0);
    t->in = seal_new(options->key, source ? SEAL_TO_SOURCE : SEAL_TO_DESTINATION, 0);
    pthread_mutex_init(&t->lock, NULL);
    ENSURE(uv_async_init(loop, &t->wake, tunnel_woken) == 0);
    t->wake.data = t;
    *out = t;
    return 0;
}

int tunnel_start(struct tunnel *t, void *(*main)(void *tunnel), struct err *err)
{
    int rc = pthread_create(&t->thread, NULL, main, t);
    if (rc != 0)
        return err_errno(err, ERR_INTERNAL, rc, "cannot start a thread");
    t->started = true;
    return 0;
}

void tunnel_fail(struct tunnel *t, const struct err *err)
{
    pthread_mutex_lock(&t->lock);
    t->failure = *err;
    pthread_mutex_unlock(&t->lock);
    uv_async_send(&t->wake);
}

const char *tunnel_address(const struct tunnel *t)
{
    return t->address;
}

uint64_t tunnel_stream_bytes(const struct tunnel *t)
{
    return atomic_load(&t->stream_bytes);
}

uint64_t tunnel_wire_bytes(const struct tunnel *t)
{
    return atomic_load(&t->wire_bytes);
}

static void tunnel_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void tunnel_close(struct tunnel *t)
{
    if (!t)
        return;
    atomic_store(&t->stop, true);
    if (t->started)
        pthread_join(t->thread, NULL);
    if (t->socket)
        zmq_close(t->socket);
    zmq_ctx_term(t->zmq);
    seal_free(t->out);
    seal_free(t->in);
    if (t->stream >= 0)
        close(t->stream);
    if (t->listener >= 0) {
        close(t->listener);
        unlink(t->path);
    }
    pthread_mutex_destroy(&t->lock);
    uv_close((uv_handle_t *)&t->wake, tunnel_closed);
}
