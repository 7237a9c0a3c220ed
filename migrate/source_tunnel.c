/* A move by QEMU's own migration (tracker qemu): QEMU tells what the guest writes, sends RAM and devices as one stream,
 * and decides when to stop the guest, within our limit; we carry the stream (tunnel.h), and what follows the switch is
 * as in every other move. QEMU waits before its switch, so that it does not stop the guest for a destination that is
 * gone.
 *
 *   QEMU's migrate -> passes -> pre-switchover (stopped) -> continue -> completed and stream over -> hand-over
 */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/loop.h"
#include "migrate/source_private.h"

static void tunnel_done(struct source *s, const struct err *err)
{
    if (err)
        source_fail_if_running(s, err);
}

/* Everything is there once QEMU says that it has written all, and QEMU there has taken all. */
static void tunnel_check_end(struct source *s)
{
    struct err err;
    if (!s->sw.saved || !s->sw.state_over || s->sw.sent || s->phase != SOURCE_SWITCHING)
        return;
    Drover__EngineStateEnd end = DROVER__ENGINE_STATE_END__INIT;
    end.total_bytes = s->state_bytes = tunnel_stream_bytes(s->tunnel);
    source_tell_stop(s, &end);
    s->sw.sent = s->sw.memory_there = s->sw.memory_final = true;
    source_trace(s, "state-sent");
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_STATE_END, &end.base, &err) < 0)
        source_fail(s, &err);
    else
        source_try_commit(s);
}

static void tunnel_on_over(void *user)
{
    struct source *s = user;
    s->sw.state_over = true;
    tunnel_check_end(s);
}

static void tunnel_on_failed(void *user, const struct err *err)
{
    source_fail_if_running(user, err);
}

int source_open_tunnel(struct source *s, const Drover__EngineHelloReply *reply, struct err *err)
{
    if (reply->n_bulk_addresses != 1 || reply->window_bytes == 0)
        return err_set(err, ERR_PROTOCOL, "the destination offers no tunnel for QEMU's own migration");
    const struct tunnel_options options = {
        .key = s->bulk_key,
        .socket = s->pipe_path,
        .address = reply->bulk_addresses[0],
        .quota = &s->side.quota,
        .window_bytes = reply->window_bytes,
        .on_over = tunnel_on_over,
        .on_failed = tunnel_on_failed,
        .user = s,
    };
    return tunnel_open_source(&s->side.loop, &options, err, &s->tunnel);
}

static void tunnel_migrating(void *user, const struct err *err)
{
    tunnel_done(user, err);
}

void source_tunnel_prepared(struct source *s)
{
    s->report.tracker = "qemu";
    s->tunnelled.round_ns = clock_now_ns();
    source_move(s, SOURCE_PRECOPY);
    loop_timer_stop(s->deadline);
    guest_migrate(s->side.guest, s->pipe_path, true, tunnel_migrating, s);
}

/* QEMU's figures are for all of the migration; a round is what came since the last time. */
static void tunnel_round(struct source *s, const struct guest_ram *now)
{
    struct tunnelled *t = &s->tunnelled;
    uint64_t raw = tunnel_stream_bytes(s->tunnel), wire = tunnel_wire_bytes(s->tunnel), at = clock_now_ns();
    struct sender_stats stats = {
        .pages = now->pages - t->seen.pages,
        .raw_bytes = raw - t->raw_bytes,
        .wire_bytes = wire - t->wire_bytes,
        .duration_ns = at - t->round_ns,
        .classes.pages[CLASS_ZERO] = now->zero_pages - t->seen.zero_pages,
    };
    s->policy.bytes_per_us = (double)stats.raw_bytes * 1000 / ((double)stats.duration_ns + 1);
    s->policy.dirty_pages_per_us = (double)now->dirty_pages_per_s / 1e6;
    s->policy.remaining_pages = now->remaining_bytes / PAGE_BYTES;
    control_event(s->side.control, "round", report_round(&s->report, &stats, &s->policy), false);
    *t = (struct tunnelled){.seen = *now, .raw_bytes = raw, .wire_bytes = wire, .round_ns = at};
}

static void tunnel_passed(void *user, const struct guest_ram *ram)
{
    struct source *s = user;
    struct err err;
    if (s->phase != SOURCE_PRECOPY || !ram)
        return;
    tunnel_round(s, ram);
    if (s->report.rounds <= s->side.options->max_rounds)
        return;
    err_set(&err, ERR_CONVERGENCE,
        "the guest writes %" PRIu64 " pages/s, and after %" PRIu32
        " rounds of QEMU's own migration a switch would still take longer than %" PRIu64
        " ms; allow a longer downtime, or calm the guest",
        ram->dirty_pages_per_s, s->report.rounds, s->side.options->max_downtime_ms);
    source_fail(s, &err);
}

/* The first pass begins when the migration does. */
void source_tunnel_on_pass(void *user, uint64_t pass)
{
    struct source *s = user;
    if (s->tunnel && pass > 1)
        guest_query_ram(s->side.guest, tunnel_passed, s);
}

static void tunnel_completed(void *user, const struct guest_ram *ram)
{
    struct source *s = user;
    if (s->phase != SOURCE_SWITCHING)
        return;
    if (ram)
        tunnel_round(s, ram);
    s->sw.saved = true;
    tunnel_check_end(s);
}

void source_tunnel_on_migration(struct source *s, const char *status)
{
    struct err err;
    source_trace(s, status);
    if (strcmp(status, "pre-switchover") == 0 && s->phase == SOURCE_PRECOPY) {
        source_move(s, SOURCE_SWITCHING);
        loop_timer_start(s->deadline, SOURCE_SWITCH_MS, 0);
        guest_switch(s->side.guest, tunnel_migrating, s);
    } else if (strcmp(status, "completed") == 0 && s->phase == SOURCE_SWITCHING) {
        guest_query_ram(s->side.guest, tunnel_completed, s);
    } else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
        err_set(&err, ERR_INTERNAL, "QEMU's own migration %s", status);
        source_fail_if_running(s, &err);
    }
}
