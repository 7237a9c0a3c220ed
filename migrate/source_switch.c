/* The switch: last pages, device state, and, with verify, the comparison. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/loop.h"
#include "migrate/source_private.h"

#define SWITCH_MS       20000u /* from QEMU's migrate to the hand-over; then it is called off */
#define LAST_PASSES_MAX 8u

/* ---- verifying ---- */

static void source_compare(struct source *s)
{
    struct err err;
    if (!s->report.source_hash[0] || !s->report.destination_hash[0] || s->phase != SOURCE_SWITCHING)
        return;
    if (strcmp(s->report.source_hash, s->report.destination_hash) != 0) {
        err_set(&err, ERR_CORRUPT, "RAM differs: %s here, %s on the destination", s->report.source_hash,
            s->report.destination_hash);
        source_fail(s, &err);
        return;
    }
    source_commit(s);
}

static void source_hashed(void *user, const struct err *err, const char *hash)
{
    struct source *s = user;
    if (err) {
        source_fail_if_running(s, err);
        return;
    }
    snprintf(s->report.source_hash, sizeof s->report.source_hash, "%s", hash);
    source_compare(s);
}

static void source_peer_hashed(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    if (err) {
        source_fail_if_running(s, err);
        return;
    }
    Drover__EngineVerifyReply *reply = drover__engine_verify_reply__unpack(NULL, len, body);
    snprintf(s->report.destination_hash, sizeof s->report.destination_hash, "%s", reply ? reply->hash : "nothing");
    drover__engine_verify_reply__free_unpacked(reply, NULL);
    source_compare(s);
}

/* ---- the switch ---- */

/* Everything the hand-over needs has come? Then it goes; with `verify`, after the hashes were compared. */
void source_try_commit(struct source *s)
{
    const struct switching *sw = &s->sw;
    if (s->phase != SOURCE_SWITCHING || !sw->saved || !sw->sent || !sw->pages_applied || !sw->peer_ready || sw->hashing)
        return;
    if (!s->side.options->verify || s->pusher) { /* in post-copy there is no moment when both sides are equal */
        source_commit(s);
        return;
    }
    s->sw.hashing = true;
    Drover__EngineVerify request = DROVER__ENGINE_VERIFY__INIT;
    wire_call(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_VERIFY, &request.base, SWITCH_MS,
        source_peer_hashed, s);
    side_hash(&s->side, source_hashed, s);
}

void source_send_pass(struct source *s)
{
    struct bitmap swap = s->sending;
    s->sending = s->dirty;
    s->dirty = swap;
    bitmap_clear(&s->dirty);
    s->pass_under_way = true;
    sender_pass(s->sender, &s->sending);
}

static void source_send_state(struct source *s, const uint8_t *data, size_t len)
{
    struct err err;
    Drover__EngineState state = DROVER__ENGINE_STATE__INIT;
    state.offset = s->state_bytes;
    state.data = (ProtobufCBinaryData){len, (uint8_t *)data};
    s->state_bytes += len;
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_STATE, &state.base, &err) < 0)
        source_fail(s, &err);
}

/* The destination's QEMU looks into guest memory while it loads a device (virtio reads the indices of its rings), so no
 * device may come before the last page has been applied. */
static void source_release_state(struct source *s)
{
    struct err err;
    struct buf *held = &s->sw.held;
    for (size_t at = 0; at < held->len && s->phase == SOURCE_SWITCHING; at += STATEPIPE_CHUNK)
        source_send_state(s, held->data + at, held->len - at < STATEPIPE_CHUNK ? held->len - at : STATEPIPE_CHUNK);
    buf_clear(held);
    s->sw.holding = false;
    if (!s->sw.state_over || s->sw.sent || s->phase != SOURCE_SWITCHING)
        return;
    Drover__EngineStateEnd end = DROVER__ENGINE_STATE_END__INIT;
    end.total_bytes = s->state_bytes;
    s->sw.sent = true;
    source_trace(s, "state-sent");
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_STATE_END, &end.base, &err) < 0)
        source_fail(s, &err);
    else
        source_try_commit(s);
}

/* With the guest stopped: sends what was written since the last scan, until a scan finds nothing. The scan that counts
 * comes after QEMU has saved the device state, so that a write made by saving would be seen too. */
void source_last_pass(struct source *s)
{
    struct err err;
    if (tracker_scan(s->tracker, &err, &s->dirty) < 0) {
        source_fail(s, &err);
        return;
    }
    if (bitmap_count(&s->dirty) != 0) {
        if (++s->sw.last_passes > LAST_PASSES_MAX) {
            err_set(&err, ERR_INTERNAL, "memory goes on changing although the guest stands still");
            source_fail(s, &err);
            return;
        }
        source_send_pass(s);
    } else if (s->sw.saved) {
        s->sw.pages_applied = true;
        source_release_state(s);
    }
}

/* What has been written since the pages were sent; without tracking nothing was sent, so all that is allocated. */
int source_scan(struct source *s, struct err *err)
{
    return s->tracker ? tracker_scan(s->tracker, err, &s->dirty) : ram_allocated(&s->side.ram, err, &s->dirty);
}

/* In post-copy the last pages are named when QEMU has saved the device state, so that a write made by saving counts.
 * The state goes after the names: loading it may need one of these pages. */
static void source_name_rest(struct source *s)
{
    struct err err;
    if (source_scan(s, &err) < 0) {
        source_fail(s, &err);
        return;
    }
    pusher_seal(s->pusher, &s->dirty);
    source_trace(s, "named");
    s->sw.pages_applied = true;
    source_release_state(s);
}

static void source_switched(void *user, const struct err *err)
{
    if (err)
        source_fail_if_running(user, err);
}

void source_on_migration(void *user, const char *status)
{
    struct source *s = user;
    struct err err;
    if (s->phase != SOURCE_SWITCHING)
        return;
    source_trace(s, status);
    if (strcmp(status, "pre-switchover") == 0) {
        s->sw.holding = true;
        guest_switch(s->side.guest, source_switched, s);
        if (!s->pusher)
            source_last_pass(s);
    } else if (strcmp(status, "completed") == 0) {
        s->sw.saved = true;
        if (s->pusher)
            source_name_rest(s);
        else if (!s->pass_under_way)
            source_last_pass(s);
    } else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
        err_set(&err, ERR_INTERNAL, "QEMU's migration of the device state %s", status);
        source_fail(s, &err);
    }
}

void source_on_stopped(void *user)
{
    struct source *s = user;
    if (s->phase == SOURCE_SWITCHING && s->sw.stopped_ns == 0)
        s->sw.stopped_ns = clock_now_ns();
    source_trace(s, "stopped");
}

static void source_state_data(void *user, const uint8_t *data, size_t len)
{
    struct source *s = user;
    if (s->phase != SOURCE_SWITCHING)
        return;
    if (s->sw.holding && len)
        buf_append(&s->sw.held, data, len);
    else if (len)
        source_send_state(s, data, len);
    else
        s->sw.state_over = true;
    if (s->sw.state_over && s->sw.pages_applied)
        source_release_state(s);
}

static void source_state_failed(void *user, const struct err *err)
{
    source_fail_if_running(user, err);
}

void source_begin_switch(struct source *s)
{
    struct err err;
    struct statepipe_options options = {.on_data = source_state_data, .on_failed = source_state_failed, .user = s};
    source_move(s, SOURCE_SWITCHING);
    loop_timer_start(s->deadline, SWITCH_MS, 0);
    if (statepipe_listen(&s->side.loop, s->pipe_path, &options, &err, &s->pipe) < 0) {
        source_fail(s, &err);
        return;
    }
    guest_migrate(s->side.guest, s->pipe_path, source_switched, s);
}
