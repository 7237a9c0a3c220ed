/* statepipe: QEMU's device state stream as bytes, through a UNIX socket. On the source we listen and QEMU connects
 * (`migrate unix:PATH`); on the destination QEMU listens (`migrate-incoming unix:PATH`) and we connect. Callbacks come
 * on the loop's thread. */
#ifndef MIGRATE_STATEPIPE_H
#define MIGRATE_STATEPIPE_H

#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "base/err.h"
#include "migrate/pack.h"

#define STATEPIPE_CHUNK PACK_BYTES_MAX
/* What may wait here for QEMU to take it: many times the state of any guest (its RAM is no part of it), and little
 * beside that RAM. */
#define STATEPIPE_HELD_MAX (64u << 20)

struct statepipe;

struct statepipe_options {
    /* Source: a piece of the stream (lent); len 0: the end. */
    void (*on_data)(void *user, const uint8_t *data, size_t len);
    /* Source: has the socket hold little of what this process writes, so that a writer who waits for us is nearly where
     * we are. 0, or where its end of the socket cannot be had: as much as usual. */
    pid_t narrow_pid;
    /* The stream broke; at most once. */
    void (*on_failed)(void *user, const struct err *err);
    void *user;
};

/* Listens for one connection at `path` (mode 0600), and takes nothing from it before statepipe_flow(): a writer with
 * more to say than the socket holds waits there. Take: statepipe_close(). */
MUST_CHECK int statepipe_listen(uv_loop_t *loop, const char *path, const struct statepipe_options *options,
    struct err *err, struct statepipe **out);
/* Source: from now on on_data is called. */
void statepipe_flow(struct statepipe *pipe);
/* Source: and from now on it is not, up to the next statepipe_flow(). Allowed in on_data. */
void statepipe_hold(struct statepipe *pipe);
/* Source: from now on the socket holds as much as usual (options, narrow_pid). */
void statepipe_widen(struct statepipe *pipe);
/* Connects to QEMU at `path`. Take: statepipe_close(). */
MUST_CHECK int statepipe_connect(uv_loop_t *loop, const char *path, const struct statepipe_options *options,
    struct err *err, struct statepipe **out);
/* Destination: writes the next bytes (copied). on_failed, and they are dropped, if QEMU takes so little that more than
 * STATEPIPE_HELD_MAX would wait. */
void statepipe_write(struct statepipe *pipe, const uint8_t *data, size_t len);
/* Destination: calls `fn` once, with the options' `user`, when QEMU has taken all that was written so far out of the
 * socket (what it reads at once, 32 KiB, may still be before it), or that cannot be told. */
void statepipe_when_taken(struct statepipe *pipe, void (*fn)(void *user));
/* NULL is fine. No callback comes any more. */
void statepipe_close(struct statepipe *pipe);

#endif
