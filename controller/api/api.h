/* The API: every request of proto/api.proto and what hosts send, from wire to answer.
 *
 *   wire -> api_handle: known method, may this principal, decodes -> the method's function -> exactly one answer
 *
 * Changes are made by the leader alone and answer with their job as soon as it is in the log. Reads are answered after
 * the leader has proved that it leads (replica_read), or at once from what this member has applied when the request
 * says `stale`. */
#ifndef CONTROLLER_API_API_H
#define CONTROLLER_API_API_H

#include "controller/controller.h"

/* A wire_handler_fn and a wire_peer_fn; `controller` is the struct controller. */
void api_handle(void *controller, struct wire_request *request, struct wire_peer *peer, uint32_t method,
    const uint8_t *body, size_t len);
void api_peer(void *controller, struct wire_peer *peer, bool up);

#endif
