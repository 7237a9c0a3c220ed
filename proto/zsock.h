/* zsock: one ZeroMQ socket on a libuv loop.
 *
 * A ZeroMQ socket says through its descriptor only that *something* happened, once; any call on the socket, a send too,
 * may swallow that signal. So the descriptor is used for waking the loop and for nothing else: before the loop goes to
 * sleep a prepare handle asks the socket itself (ZMQ_EVENTS), and whoever stopped reading with messages left keeps an
 * idle handle active, which keeps the loop from sleeping. No state of the socket can be missed, whatever edges were
 * lost, and an idle socket costs nothing.
 *
 *        poll: descriptor readable ──┐
 *        prepare: before sleeping ───┼─> ZMQ_EVENTS ──(readable, or writable changed, or kicked)──> turn()
 *        idle: work was left over ───┘ (by prepare)
 *
 * Everything runs on the loop's thread. */
#ifndef PROTO_ZSOCK_H
#define PROTO_ZSOCK_H

#include <uv.h>
#include <zmq.h>

#include "base/err.h"

struct zsock;

/* The socket can be read, or its writability changed, or it was kicked. True: there may be more to read; come again
 * soon. zsock_close() is allowed inside. */
typedef bool (*zsock_turn_fn)(void *user, bool readable, bool writable);

/* Makes a socket, to be configured, bound or connected through zsock_socket(). Take: zsock_close(). */
MUST_CHECK int zsock_open(uv_loop_t *loop, void *context, int type, struct err *err, struct zsock **out);
void *zsock_socket(const struct zsock *zsock);
/* Sets an option whose value is always right: failing is our fault. */
void zsock_set(struct zsock *zsock, int option, int value);
/* Begins to watch. */
void zsock_start(struct zsock *zsock, zsock_turn_fn turn, void *user);
/* Makes a turn come soon, though nothing may have happened. */
void zsock_kick(struct zsock *zsock);
/* Closes at once, frees once the loop has let go. No turn comes after it. NULL is fine. */
void zsock_close(struct zsock *zsock);

/* Receives one part. 0: received into `message` (initialized, to be closed by the caller); -1: nothing there. */
MUST_CHECK int zsock_receive(struct zsock *zsock, zmq_msg_t *message);
/* Receives and drops what is left of a message whose last received part is `last`; true when there was something. */
bool zsock_skip_rest(struct zsock *zsock, zmq_msg_t *last);

#endif
