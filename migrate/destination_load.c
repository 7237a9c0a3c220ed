/* Once the pages are there: QEMU's device state, and the hash of all RAM where it is asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/destination_private.h"
#include "migrate/pack.h"
#include "proto/bounded.h"

/* ---- device state ---- */

void destination_on_state(struct destination *d, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineState *state = BOUNDED_UNPACK(engine_state, body, len);
    uint8_t *room = mem_alloc(PACK_BYTES_MAX);
    const uint8_t *data = NULL;
    if (!state || state->offset != d->state_bytes || d->phase != DESTINATION_RECEIVING || d->state_complete || !d->pipe)
        err_set(&err, ERR_PROTOCOL, "device state came out of order");
    else
        data = unpack(state->data.data, state->data.len, state->unpacked_bytes, &err, room);
    if (data) {
        size_t bytes = state->unpacked_bytes ? state->unpacked_bytes : state->data.len;
        d->state_bytes += bytes;
        destination_trace(d, "state");
        destination_write_state(d, data, bytes);
    } else {
        destination_on_broken(d, &err);
    }
    free(room);
    drover__engine_state__free_unpacked(state, NULL);
}

void destination_on_state_end(struct destination *d, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineStateEnd *end = BOUNDED_UNPACK(engine_state_end, body, len);
    uint64_t total = end ? end->total_bytes : UINT64_MAX;
    if (!d->state_complete) {
        d->stopped_ns = end ? end->stopped_ns : 0;
        d->round_trip_ns = end ? end->round_trip_ns : 0;
    }
    drover__engine_state_end__free_unpacked(end, NULL);
    if (d->tunnel)
        d->state_bytes = tunnel_stream_bytes(d->tunnel);
    if (d->disks && !d->disks_closed)
        total = UINT64_MAX; /* a device must not be loaded while somebody else may write its disk */
    bool over = total == d->state_bytes && !d->state_complete;
    d->state_complete = total == d->state_bytes;
    destination_trace(d, "state-complete");
    crashpoint("destination", "state-received");
    if (over)
        destination_end_state(d);
    if (d->state_complete)
        return;
    err_set(&err, ERR_PROTOCOL, "device state is incomplete");
    destination_on_broken(d, &err);
}

void destination_on_migration(void *user, const char *status)
{
    struct destination *d = user;
    struct err err;
    if (strcmp(status, "failed") == 0) {
        err_set(&err, ERR_INTERNAL, "QEMU could not load the device state; its log says why");
        destination_on_broken(d, &err);
        return;
    }
    destination_trace(d, status);
    if (strcmp(status, "completed") != 0 || d->phase != DESTINATION_RECEIVING)
        return;
    destination_move(d, DESTINATION_LOADED);
    if (d->hand_over)
        destination_take(d);
    Drover__EngineReady ready = DROVER__ENGINE_READY__INIT;
    /* Without a connection, or if it breaks now, the hand-over may still come over a new one. */
    if (d->phase != DESTINATION_FAILED && d->source &&
        wire_note(d->source, DROVER__ENGINE_METHOD__ENGINE_READY, &ready.base, &err) < 0)
        log_event(LOG_INFO, "ready.unsent", "message=%s", LOG_QUOTE(err.message));
    crashpoint("destination", "ready-sent");
}

/* ---- verifying ---- */

static void destination_hashed(void *user, const struct err *err, const char *hash)
{
    struct destination *d = user;
    if (err) {
        wire_reply_error(d->verify, err);
    } else {
        char text[RAM_HASH_TEXT];
        snprintf(text, sizeof text, "%s", hash);
        Drover__EngineVerifyReply reply = DROVER__ENGINE_VERIFY_REPLY__INIT;
        reply.hash = text;
        wire_reply(d->verify, &reply.base);
    }
    d->verify = NULL;
}

void destination_on_verify(struct destination *d, struct wire_request *request)
{
    struct err err;
    bool waits = d->phase == DESTINATION_RECEIVING && d->pipe && !d->state_complete; /* for the end of the state */
    if ((d->phase != DESTINATION_LOADED && !waits) || d->verify) {
        err_set(&err, ERR_PROTOCOL, "nothing to verify now");
        wire_reply_error(request, &err);
        return;
    }
    d->verify = request;
    side_hash(&d->side, destination_hashed, d);
}
