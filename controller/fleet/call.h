/* Asks a host for something over the connection it made. */
#ifndef CONTROLLER_FLEET_CALL_H
#define CONTROLLER_FLEET_CALL_H

#include <uv.h>

#include "controller/fleet/fleet.h"

/* As wire_call(): `fn` exactly once, never from inside. A host without a session: ERR_UNAVAILABLE. */
void fleet_call(uv_loop_t *loop, const struct fleet *fleet, const char *host, uint32_t method,
    const ProtobufCMessage *request, uint32_t deadline_ms, wire_reply_fn fn, void *user);

#endif
