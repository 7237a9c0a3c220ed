/* statepipe: QEMU's device state stream as bytes, through a UNIX socket. On the source we listen and QEMU connects
 * (`migrate unix:PATH`); on the destination QEMU listens (`migrate-incoming unix:PATH`) and we connect. Callbacks come
 * on the loop's thread. */
#ifndef MIGRATE_STATEPIPE_H
#define MIGRATE_STATEPIPE_H

#include <stdint.h>
#include <uv.h>

#include "base/err.h"

#define STATEPIPE_CHUNK (256u << 10)

struct statepipe;

struct statepipe_options {
    /* Source: a piece of the stream (lent); len 0: the end. */
    void (*on_data)(void *user, const uint8_t *data, size_t len);
    /* The stream broke; at most once. */
    void (*on_failed)(void *user, const struct err *err);
    void *user;
};

/* Listens for one connection at `path` (mode 0600). Take: statepipe_close(). */
MUST_CHECK int statepipe_listen(uv_loop_t *loop, const char *path, const struct statepipe_options *options,
    struct err *err, struct statepipe **out);
/* Connects to QEMU at `path`. Take: statepipe_close(). */
MUST_CHECK int statepipe_connect(uv_loop_t *loop, const char *path, const struct statepipe_options *options,
    struct err *err, struct statepipe **out);
/* Destination: writes the next bytes (copied). */
void statepipe_write(struct statepipe *pipe, const uint8_t *data, size_t len);
/* NULL is fine. No callback comes any more. */
void statepipe_close(struct statepipe *pipe);

#endif
