/* The switch: last pages, device state, and, with verify, the comparison.
 *
 * QEMU takes a while to set its migration up, so it is started while the guest runs, and held: nobody reads what it
 * writes, and the memory that only QEMU knows (firmware) is more than a socket holds. Meanwhile one more round is sent,
 * and when that is over QEMU may go on, piece by piece, which stops the guest once the rest fits into the socket.
 * Should it not be held, the guest stops a little sooner and more is left to send.
 *
 * QEMU does not wait between the stop and saving its devices, unless disks have to change hands there. But it says so
 * (`device`) before it saves the first: what it wrote is taken for memory of its own only if all had been heard that it
 * had said, and neither that nor `pre-switchover` was among it. All else is held until memory is there.
 *
 * The destination's QEMU looks into guest memory while it loads a device (virtio reads the indices of its rings), so
 * no device may be loaded before the last page has been applied. And QEMU itself might write memory while it saves
 * devices (none does that we know of). So, from the moment the guest stands still:
 *
 *   here:         scan, send, until a scan finds nothing         closing scan: must find nothing, or it is called off
 *   QEMU here:    saves its devices (held back) ............. done |
 *   to there:                                    held state, then the rest as it comes, end, hand-over
 *   QEMU there:                                       loads ............ started
 *
 * The hand-over does not wait for the destination to have loaded the state: it refuses if it cannot. Only in post-copy
 * it does: a source engine that dies after the hand-over is started again there, and must find a destination that needs
 * nothing but pages. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crashpoint.h"
#include "base/loop.h"
#include "migrate/pack.h"
#include "migrate/source_private.h"
#include "proto/bounded.h"

#define LAST_PASSES_MAX 8u

/* ---- verifying ---- */

static void source_release_state(struct source *s);

/* In post-copy there is no moment when both sides are equal. Where the destination wants the state's end before,
 * because memory comes within the state or its engine is an older one, the guest's clock is late by the hashing. */
static bool source_to_verify(const struct source *s)
{
    return s->side.options->verify && !s->pusher && !s->sw.verified;
}

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
    s->sw.hashing = false;
    s->sw.verified = true;
    source_release_state(s);
    source_try_commit(s);
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
    Drover__EngineVerifyReply *reply = BOUNDED_UNPACK(engine_verify_reply, body, len);
    snprintf(s->report.destination_hash, sizeof s->report.destination_hash, "%s", reply ? reply->hash : "nothing");
    drover__engine_verify_reply__free_unpacked(reply, NULL);
    source_compare(s);
}

/* ---- the switch ---- */

static void source_verify(struct source *s)
{
    s->sw.hashing = true;
    Drover__EngineVerify request = DROVER__ENGINE_VERIFY__INIT;
    wire_call(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_VERIFY, &request.base, SOURCE_SWITCH_MS,
        source_peer_hashed, s);
    side_hash(&s->side, source_hashed, s);
}

/* Everything the hand-over needs has been sent? Then it goes. With `verify` the hashes are compared before, and before
 * the end of the state is sent: from there on nothing is waited for, as the guest's clock is set by then. */
void source_try_commit(struct source *s)
{
    const struct switching *sw = &s->sw;
    if (s->phase != SOURCE_SWITCHING || !sw->memory_final || sw->hashing)
        return;
    if (source_to_verify(s)) {
        if (s->verifies_early ? sw->state_over : sw->sent && sw->peer_ready)
            source_verify(s);
    } else if (sw->sent && (!s->pusher || sw->peer_ready)) {
        source_commit(s);
    }
}

void source_send_pass(struct source *s)
{
    struct bitmap swap = s->sending;
    s->sending = s->dirty;
    s->dirty = swap;
    bitmap_clear(&s->dirty);
    struct err err;
    if (source_watch(s, &err) < 0) {
        source_fail(s, &err);
        return;
    }
    s->pass_under_way = true;
    /* Not in the switch, where the disks' last drain may come at any moment. */
    s->collecting.renewing = s->phase == SOURCE_PRECOPY && s->tracker;
    sender_pass(s->sender, &s->sending);
}

static void source_send_state(struct source *s, const uint8_t *data, size_t len)
{
    struct err err;
    Drover__EngineState state = DROVER__ENGINE_STATE__INIT;
    state.offset = s->state_bytes;
    uint8_t *packed = mem_alloc(len);
    size_t packed_len = pack(data, len, packed);
    if (packed_len)
        state.unpacked_bytes = (uint32_t)len;
    state.data = packed_len ? (ProtobufCBinaryData){packed_len, packed} : (ProtobufCBinaryData){len, (uint8_t *)data};
    s->state_bytes += len;
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_STATE, &state.base, &err) < 0)
        source_fail(s, &err);
    free(packed);
}

/* Sends what was held back, and the end if QEMU has written it. */
static void source_release_state(struct source *s)
{
    struct err err;
    struct buf *held = &s->sw.held;
    for (size_t at = 0; at < held->len && s->phase == SOURCE_SWITCHING; at += PACK_BYTES_MAX)
        source_send_state(s, held->data + at, held->len - at < PACK_BYTES_MAX ? held->len - at : PACK_BYTES_MAX);
    buf_clear(held);
    if (!s->sw.state_over || s->sw.sent || s->phase != SOURCE_SWITCHING || (s->verifies_early && source_to_verify(s)))
        return;
    Drover__EngineStateEnd end = DROVER__ENGINE_STATE_END__INIT;
    end.total_bytes = s->state_bytes;
    source_tell_stop(s, &end);
    s->sw.sent = true;
    source_trace(s, "state-sent");
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_STATE_END, &end.base, &err) < 0)
        source_fail(s, &err);
    crashpoint("source", "state-sent");
}

/* A pass of pre-copy with the guest stopped; post-copy names the pages instead, and once. */
static void source_send_rest(struct source *s, struct err *err)
{
    if (++s->sw.last_passes > LAST_PASSES_MAX) {
        err_set(err, ERR_INTERNAL, "memory goes on changing although the guest stands still");
        source_fail(s, err);
    } else {
        source_send_pass(s);
    }
}

/* With the guest stopped: has all of memory gone out? Sends what a scan finds, until one finds nothing. */
static void source_settle(struct source *s)
{
    struct err err;
    if (source_scan(s, &err) < 0) {
        source_fail(s, &err);
        return;
    }
    size_t written = bitmap_count(&s->dirty);
    if (written > 0 && s->sw.memory_there) {
        err_set(&err, ERR_UNSUPPORTED,
            "a device wrote %zu pages of guest memory while its state was being saved, which QEMU's devices must not "
            "do; the guest goes on here",
            written);
        source_fail(s, &err);
        return;
    }
    if (written > 0 && !s->pusher) {
        source_send_rest(s, &err);
        return;
    }
    if (s->pusher && !s->sw.memory_there)
        pusher_seal(s->pusher, &s->dirty);
    bitmap_clear(&s->dirty);
    s->sw.memory_there = true;
    s->sw.memory_final = s->sw.saved;
    source_trace(s, s->sw.saved ? "memory-final" : "memory-there");
    source_release_state(s);
    source_try_commit(s);
}

static void source_switched(void *user, const struct err *err)
{
    if (err)
        source_fail_if_running(user, err);
}

void source_let_switch(struct source *s)
{
    guest_switch(s->side.guest, source_switched, s);
}

/* QEMU waits before it saves its devices, or has begun to. */
static void source_quiet(struct source *s)
{
    if (s->sw.quiet)
        return;
    s->sw.quiet = true;
    source_drained(s);
    if (s->tracker && !s->pass_under_way) /* else nobody would see what is written after the pages were named */
        source_settle(s);
}

void source_on_migration(void *user, const char *status)
{
    struct source *s = user;
    struct err err;
    if (s->tunnel) {
        source_tunnel_on_migration(s, status);
        return;
    }
    if (s->phase != SOURCE_SWITCHING)
        return;
    source_trace(s, status);
    if (strcmp(status, "pre-switchover") == 0) {
        if (s->mirror)
            source_finish_disks(s);
        else
            source_let_switch(s);
        source_quiet(s);
    } else if (strcmp(status, "device") == 0) {
        source_quiet(s);
    } else if (strcmp(status, "completed") == 0) {
        s->sw.saved = true;
        if (!s->pass_under_way)
            source_settle(s);
    } else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
        err_set(&err, ERR_INTERNAL, "QEMU's migration of the device state %s", status);
        source_fail(s, &err);
    }
}

/* What the guest has written goes at once, while QEMU still waits for its disks. */
static void source_send_early(struct source *s)
{
    struct err err;
    if (!s->tracker || s->pusher || s->pass_under_way)
        return;
    if (source_scan(s, &err) < 0)
        source_fail(s, &err);
    else if (bitmap_count(&s->dirty) > 0)
        source_send_pass(s);
}

void source_on_stopped(void *user, uint64_t at_ns)
{
    struct source *s = user;
    if ((s->phase != SOURCE_SWITCHING && !s->tunnel) || s->sw.stopped_ns)
        return;
    s->sw.stopped_ns = at_ns;
    if (s->pipe) {
        statepipe_widen(s->pipe);
        source_state_arrived(s);
    }
    source_release_brake(s); /* not before: until it stands still it would write as fast as ever */
    source_trace(s, "stopped");
    crashpoint("source", "stopped");
    source_send_early(s);
}

static void source_flow(struct source *s)
{
    s->sw.flowing = true;
    statepipe_flow(s->pipe);
}

void source_switch_passed(struct source *s)
{
    if (!s->sw.flowing)
        source_flow(s);
    if (s->sw.quiet)
        source_settle(s);
    else if (s->sw.stopped_ns)
        source_send_early(s);
}

/* QEMU saves no device yet: what it holds in memory of its own, firmware most of all, comes first. It is a few hundred
 * KB, and the hosts are busy with them for milliseconds. QEMU stops the guest once the socket holds the rest; so it
 * holds little, and each piece is taken when the one before is there. */
static void source_send_own_memory(struct source *s)
{
    source_release_state(s);
    if (s->sw.stopped_ns || s->phase != SOURCE_SWITCHING)
        return;
    s->sw.pacing = true;
    statepipe_hold(s->pipe);
    source_ask_clock(s, 1);
}

void source_state_arrived(struct source *s)
{
    if (s->phase != SOURCE_SWITCHING || !s->sw.pacing)
        return;
    s->sw.pacing = false;
    statepipe_flow(s->pipe);
}

static void source_state_data(void *user, const uint8_t *data, size_t len)
{
    struct source *s = user;
    if (s->phase != SOURCE_SWITCHING)
        return;
    if (len == 0)
        s->sw.state_over = true;
    else if (s->sw.memory_there)
        source_send_state(s, data, len);
    else
        buf_append(&s->sw.held, data, len);
    if (!s->sw.memory_there && !s->sw.quiet && !s->sw.state_over && guest_heard(s->side.guest))
        source_send_own_memory(s);
    if (s->sw.state_over && s->sw.memory_there) {
        source_release_state(s);
        source_try_commit(s);
    }
}

static void source_state_failed(void *user, const struct err *err)
{
    source_fail_if_running(user, err);
}

/* From here on the guest may stand still any moment, and neither side rests to keep to its share of CPU time. */
static void source_hurry(struct source *s)
{
    struct err ignored; /* a connection that is lost ends the switch by itself */
    Drover__EngineHurry hurry = DROVER__ENGINE_HURRY__INIT;
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_HURRY, &hurry.base, &ignored) < 0)
        source_trace(s, "hurry-unsent");
}

void source_begin_switch(struct source *s)
{
    struct err err;
    struct statepipe_options options = {.on_data = source_state_data,
        .narrow_pid = (pid_t)s->side.options->qemu_pid,
        .on_failed = source_state_failed,
        .user = s};
    source_move(s, SOURCE_SWITCHING);
    source_hurry(s);
    loop_timer_start(s->deadline, SOURCE_SWITCH_MS, 0);
    if (statepipe_listen(&s->side.loop, s->pipe_path, &options, &err, &s->pipe) < 0) {
        source_fail(s, &err);
        return;
    }
    /* First the pass, which others are busy with: then QEMU is heard at once when it connects. */
    if (s->pusher)
        source_flow(s);
    else if (source_scan(s, &err) < 0)
        source_fail(s, &err);
    else
        source_send_pass(s);
    if (s->phase != SOURCE_SWITCHING) /* the scan or the pass may have failed, and has ended it */
        return;
    guest_migrate(s->side.guest, s->pipe_path, s->mirror != NULL, source_switched, s);
    source_ask_clock(s, CLOCK_QUESTIONS);
}
