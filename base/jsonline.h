/* A UNIX stream that carries one JSON object a line each way: QMP, and the engine's control socket. A line longer than
 * `max_line`, or one that is not a JSON object, closes the stream. */
#ifndef BASE_JSONLINE_H
#define BASE_JSONLINE_H

#include <jansson.h>
#include <stdbool.h>
#include <uv.h>

#include "base/err.h"

#define JSONLINE_MAX       (4u << 20)
#define JSONLINE_QUEUE_MAX (8u << 20) /* sent and not yet read by the peer; beyond it the stream has failed */

struct jsonline;

struct jsonline_options {
    void (*on_message)(void *user, json_t *message); /* lent for the call */
    /* The peer closed it, broke the rules or does not read; comes at most once, and not after jsonline_close(). */
    void (*on_closed)(void *user, const struct err *err);
    void *user;
    size_t max_line; /* 0: JSONLINE_MAX */
};

/* Connects to the socket at `path`. Take: jsonline_close(). */
MUST_CHECK int jsonline_connect(
    uv_loop_t *loop, const char *path, const struct jsonline_options *options, struct err *err, struct jsonline **out);
/* Makes one of a connected socket; takes `fd`, also on failure. */
MUST_CHECK int jsonline_open(
    uv_loop_t *loop, int fd, const struct jsonline_options *options, struct err *err, struct jsonline **out);
/* Sends an object; takes the reference. On a stream that was closed, or has failed, it is dropped. */
void jsonline_send(struct jsonline *stream, json_t *message);
/* Has the peer written something that was not delivered yet? What it writes to us in one piece before it does something
 * that we see otherwise is so known to have been heard, or not. */
bool jsonline_pending(const struct jsonline *stream);
/* Closes after what was sent before has left, or a second later. Allowed inside the callbacks. NULL is fine. */
void jsonline_close(struct jsonline *stream);

/* Listens at `path` (mode 0600; a stale socket there is replaced); `on_accept` gets each connection's descriptor
 * (take). */
struct jsonline_server;
MUST_CHECK int jsonline_listen(uv_loop_t *loop, const char *path, void (*on_accept)(void *user, int fd), void *user,
    struct err *err, struct jsonline_server **out);
void jsonline_server_close(struct jsonline_server *server); /* and removes the socket; NULL is fine */

#endif
