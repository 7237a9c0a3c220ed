/* Post-copy: stale pages, and the source that comes back after the connection was lost. */
#include <string.h>

#include "base/crashpoint.h"
#include "base/log.h"
#include "migrate/destination_private.h"
#include "migrate/record.h"
#include "migrate/seal.h"
#include "proto/bounded.h"

/* Whoever finds us dead after the record has nothing left to fetch; before it the guest would be taken for lost, so the
 * source, whose pages are the other copy, is not told either. */
static bool destination_on_all_here(void *user)
{
    struct destination *d = user;
    struct err err;
    if (record_write(d->side.options->record_file, d->side.options->migration_id, "owner", &err) < 0) {
        log_event(LOG_WARN, "record.unwritten", "message=%s", LOG_QUOTE(err.message));
        return false;
    }
    destination_done(d);
    return true;
}

static void destination_on_told(void *user)
{
    struct destination *d = user;
    d->farewell = true;
    destination_try_finish(d);
}

static void destination_on_puller_failed(void *user, const struct err *err)
{
    destination_fail(user, err);
}

void destination_on_postcopy(struct destination *d, struct wire_request *request)
{
    const struct puller_options options = {
        .side = &d->side,
        .on_complete = destination_on_all_here,
        .on_told = destination_on_told,
        .on_failed = destination_on_puller_failed,
        .user = d,
    };
    struct err err;
    if (d->phase != DESTINATION_RECEIVING || d->puller || d->state_bytes || d->tunnel)
        err_set(&err, ERR_PROTOCOL, "post-copy is not possible now");
    else if (puller_open(&options, &err, &d->puller) == 0) {
        Drover__EnginePostcopyReply reply = DROVER__ENGINE_POSTCOPY_REPLY__INIT;
        d->naming = true;
        puller_set_peer(d->puller, d->source);
        wire_reply(request, &reply.base);
        crashpoint("destination", "postcopy-armed");
        return;
    }
    wire_reply_error(request, &err);
}

void destination_on_stale(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len)
{
    struct err err;
    bool last = false;
    if (!d->puller || !d->naming) {
        err_set(&err, ERR_PROTOCOL, "no pages may become stale now");
        wire_reply_error(request, &err);
        return;
    }
    if (puller_take_stale(d->puller, body, len, &err, &last) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    Drover__EngineStaleReply reply = DROVER__ENGINE_STALE_REPLY__INIT;
    wire_reply(request, &reply.base);
    if (!last)
        return;
    receiver_fill(d->receiver, puller_filler(d->puller));
    d->naming = false;
    crashpoint("destination", "stale-named");
}

void destination_on_resume(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineResume *resume = BOUNDED_UNPACK(engine_resume, body, len);
    int rc = -1;
    if (!resume || resume->bulk_key.len != SEAL_KEY_BYTES)
        err_set(&err, ERR_PROTOCOL, "resume makes no sense");
    else if (strcmp(resume->migration_id, d->side.options->migration_id) != 0)
        err_set(&err, ERR_INVALID, "this engine serves another migration");
    else if (!d->puller || d->phase < DESTINATION_OWNER || d->phase > DESTINATION_DONE)
        err_set(&err, ERR_WRONG_STATE, "there is nothing to resume");
    else {
        receiver_close(d->receiver, NULL);
        d->receiver = NULL;
        rc = destination_open_receiver(d, wire_peer_ip(peer), resume->bulk_key.data, &err);
    }
    drover__engine_resume__free_unpacked(resume, NULL);
    if (rc < 0) {
        wire_reply_error(request, &err);
        return;
    }
    char *addresses[STRIPES_MAX];
    Drover__EngineResumeReply reply = DROVER__ENGINE_RESUME_REPLY__INIT;
    reply.n_bulk_addresses = destination_addresses(d, addresses);
    reply.bulk_addresses = addresses;
    reply.window_bytes = RECEIVER_WINDOW_BYTES;
    reply.bandwidth_bytes_per_s = quota_bytes_per_s(&d->side.quota);
    wire_reply(request, &reply.base);
    destination_adopt(d, peer);
}

void destination_on_missing(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len)
{
    struct err err;
    if (d->puller) {
        puller_answer_missing(d->puller, request, body, len);
        return;
    }
    err_set(&err, ERR_PROTOCOL, "no page is missing here");
    wire_reply_error(request, &err);
}

void destination_on_pages(struct destination *d, const uint8_t *body, size_t len)
{
    struct err err;
    if (d->puller && puller_take_pages(d->puller, body, len, &err) < 0)
        destination_on_broken(d, &err);
}
