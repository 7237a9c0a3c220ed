/* Private to proto/: how many bytes ZeroMQ holds for one connection, because its other end does not take them. ZeroMQ's
 * own high-water mark counts messages, of which one has ten bytes and another two million.
 *
 * A message counts from being made until ZeroMQ gives its memory back: it was written to the connection, or dropped
 * with it. That happens on ZeroMQ's thread, and may be after the connection's owner has gone. */
#ifndef PROTO_BACKLOG_H
#define PROTO_BACKLOG_H

#include <stddef.h>
#include <zmq.h>

struct backlog;

/* Take: backlog_drop(). */
struct backlog *backlog_new(void);
/* The messages that are left count on, unseen, and free it. */
void backlog_drop(struct backlog *backlog);
size_t backlog_bytes(const struct backlog *backlog);
/* Makes a message of `size` bytes, not set yet. Take: send or close it. */
void backlog_message(struct backlog *backlog, size_t size, zmq_msg_t *out);

#endif
