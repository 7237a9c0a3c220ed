/* Talks to the controllers, one answer at a time.
 *
 * It connects to all of them at once and asks the one that leads: whoever answers not-leader names it. While there is
 * no leader, or the connection to it is lost, it asks on until the time-out. So a command outlives the leader's death.
 *
 * A request that changes something must not happen twice, and after a lost connection nobody knows whether it has
 * happened once. So each carries a random id, the same one however often it is sent: the controllers answer a request
 * that they have taken with the job it made. */
#ifndef CLI_CONNECT_H
#define CLI_CONNECT_H

#include <uv.h>

#include "cli/context.h"
#include "proto/api.pb-c.h"
#include "proto/host.pb-c.h"

struct connection;

/* `timeout_ms` is for each answer. Take: connect_close(). The context's secret is copied; wipe it. */
MUST_CHECK int connect_open(
    const struct context *context, uint32_t timeout_ms, struct err *err, struct connection **out);
void connect_close(struct connection *connection);

/* Asks for a reply of `type`. `out` is a pointer to a pointer of that message. Take:
 * protobuf_c_message_free_unpacked(). May be asked more than once, so only for what changes nothing, or nothing more
 * the second time. */
MUST_CHECK int connect_call(struct connection *connection, uint32_t method, const ProtobufCMessage *request,
    const ProtobufCMessageDescriptor *type, struct err *err, void *out);
/* Asks for a change that makes a job; `request` has a field `request_id`. Take: drover__job_reply__free_unpacked(). An
 * error says so where it is not known whether the change was taken. */
MUST_CHECK int connect_submit(struct connection *connection, uint32_t method, const ProtobufCMessage *request,
    struct err *err, Drover__JobReply **out);

/* Waits, with the connections alive. */
void connect_pause(struct connection *connection, uint32_t ms);
/* From now on Ctrl-C ends pauses and calls (ERR_CANCELLED) instead of the program; a second one ends the program. */
MUST_CHECK int connect_catch_interrupt(struct connection *connection, struct err *err);
bool connect_interrupted(const struct connection *connection);

/* For calls that must not block each other: the loop, and whom connect_call() asked last with success (NULL: gone
 * since). */
uv_loop_t *connect_loop(struct connection *connection);
struct wire_peer *connect_peer(struct connection *connection);

#endif
