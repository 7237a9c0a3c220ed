/* The hand-over: recorded, sent, answered, or in doubt. */

#include <string.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/record.h"
#include "migrate/source_private.h"
#include "proto/bounded.h"

#define HAND_OVER_MS       2000u  /* one try */
#define HAND_OVER_PAUSE_MS 200u   /* until the next */
#define DOUBT_MS           3000u  /* the guest stands still; the controllers, who hear both hosts, can tell sooner */
#define DOUBT_LOADING_MS   20000u /* the destination has not loaded all devices yet, and is still connected */

void source_doubt(struct source *s, const struct err *err)
{
    s->failure = *err;
    err_wrap(&s->failure, "handed over, but the destination has not said whether it took it");
    pusher_stop(s->pusher);
    tracker_close(s->tracker); /* who hears that we have failed relies on that the guest's memory is let go of */
    s->tracker = NULL;
    source_move(s, SOURCE_DOUBT);
    side_failed(&s->side, &s->failure);
    source_finish(s);
}

/* The destination has all of the guest. */
void source_done(struct source *s)
{
    struct err err;
    if (record_write(s->side.options->record_file, s->side.options->migration_id, "taken", &err) < 0)
        log_event(LOG_ERROR, "record.unwritten", "message=%s", LOG_QUOTE(err.message));
    s->report.total_us = (clock_now_ns() - s->started_ns) / 1000;
    s->report.state_bytes = s->state_bytes;
    Drover__EngineFarewell farewell = DROVER__ENGINE_FAREWELL__INIT;
    farewell.migration_id = s->side.options->migration_id;
    if (wire_note(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_FAREWELL, &farewell.base, &err) < 0)
        log_event(LOG_DEBUG, "farewell.unsent", "message=%s", LOG_QUOTE(err.message)); /* it waits a little longer */
    crashpoint("source", "farewell-sent");
    source_move(s, SOURCE_DONE);
    control_event(s->side.control, "done", json_pack("{s:o}", "record", report_json(&s->report)), true);
    source_finish(s);
}

/* What the destination knows of the blackout: it has heard when the guest stopped, by its own clock. */
static void source_take_told(struct source *s, const Drover__EngineHandOverReply *reply)
{
    if (reply->stood_us)
        s->report.blackout_us = reply->stood_us;
    s->report.clock_forward_us = reply->clock_forward_us;
    s->report.clock_left = reply->clock_left;
}

/* It runs there, and has for `running_us`. Without post-copy it is all there, too. */
void source_started(struct source *s, uint64_t running_us)
{
    uint64_t elapsed_us = (clock_now_ns() - s->sw.stopped_ns) / 1000;
    if (s->sw.stopped_ns && !s->report.blackout_us) /* else only the engine before us knew */
        s->report.blackout_us = elapsed_us - (running_us < elapsed_us ? running_us : 0);
    source_trace(s, "taken");
    if (!s->pusher) {
        source_done(s);
        return;
    }
    source_move(s, SOURCE_POSTCOPY);
    loop_timer_stop(s->deadline);
    if (s->lost) {
        sender_close(s->sender, NULL);
        s->sender = NULL;
    }
    pusher_push(s->pusher, s->sender);
    s->sender = NULL;
}

static uint64_t source_patience_ms(const struct source *s)
{
    return s->pusher || s->sw.peer_ready || s->lost ? DOUBT_MS : DOUBT_LOADING_MS;
}

static uint64_t source_patience_left_ms(const struct source *s)
{
    uint64_t patience_ms = source_patience_ms(s), gone_ms = (clock_now_ns() - s->hand_over_ns) / 1000000;
    return gone_ms < patience_ms ? patience_ms - gone_ms : 0;
}

/* Nobody has answered for so long that it is said. In post-copy pages that the guest may need there are here alone, so
 * we ask on until we are answered or ended: the controllers, who are told, have the destination decide. */
static void source_out_of_patience(struct source *s, const struct err *err)
{
    if (!s->pusher) {
        source_doubt(s, err);
        return;
    }
    if (s->phase == SOURCE_HANDED_OVER)
        source_move(s, SOURCE_UNANSWERED);
    loop_timer_start(s->deadline, HAND_OVER_PAUSE_MS, 0);
}

/* The destination has written down that it never will be its: from here on nobody need ask whose it is. */
static void source_back(struct source *s)
{
    struct err err;
    if (record_write(s->side.options->record_file, s->side.options->migration_id, "failed", &err) < 0)
        log_event(LOG_WARN, "record.unwritten", "message=%s", LOG_QUOTE(err.message));
}

static void source_handed_over(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    if (!source_asking(s))
        return;
    crashpoint("source", "hand-over-answered");
    if (err) {
        if (source_patience_left_ms(s) == 0)
            source_out_of_patience(s, err);
        else
            loop_timer_start(s->deadline, HAND_OVER_PAUSE_MS, 0);
        return;
    }
    Drover__EngineHandOverReply *reply = BOUNDED_UNPACK(engine_hand_over_reply, body, len);
    struct err why;
    if (reply && strcmp(reply->receipt, s->report.receipt) != 0) /* it runs there, whatever it says it compared */
        s->report.receipt[0] = '\0';
    if (!reply && !s->pusher) { /* it answered, so it lives; only its words are lost */
        err_set(&why, ERR_PROTOCOL, "the destination's answer makes no sense");
        source_doubt(s, &why);
    } else if (reply && reply->refused) {
        source_back(s);
        side_error_from(reply->refused, &why);
        err_wrap(&why, "the destination refused the guest");
        source_fail(s, &why);
    } else {
        if (reply)
            source_take_told(s, reply);
        source_started(s, reply ? reply->running_us : 0);
    }
    drover__engine_hand_over_reply__free_unpacked(reply, NULL);
}

void source_hand_over(void *user)
{
    struct source *s = user;
    Drover__EngineHandOver request = DROVER__ENGINE_HAND_OVER__INIT;
    request.migration_id = s->side.options->migration_id;
    request.receipt = s->report.receipt;
    uint64_t left_ms = s->phase == SOURCE_UNANSWERED ? HAND_OVER_MS : source_patience_left_ms(s) + 1;
    wire_call(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_HAND_OVER, &request.base,
        left_ms < HAND_OVER_MS ? (uint32_t)left_ms : HAND_OVER_MS, source_handed_over, s);
    crashpoint("source", "hand-over-sent");
}

void source_commit(struct source *s)
{
    struct err err;
    const struct options *o = s->side.options;
    if ((s->pusher ? record_write_postcopy : record_write)(o->record_file, o->migration_id, "handed-over", &err) < 0) {
        source_fail(s, &err); /* nothing has been sent: it is still ours */
        return;
    }
    source_move(s, SOURCE_HANDED_OVER);
    source_trace(s, "handed-over");
    loop_timer_free(s->deadline);
    s->deadline = loop_timer_new(&s->side.loop, source_hand_over, s);
    s->hand_over_ns = clock_now_ns();
    /* In post-copy there is no moment when both sides hold the same; what goes through a tunnel nobody here sees. */
    if ((o->receipt || o->verify) && !s->pusher && !s->tunnel)
        digests_root(&s->digests, s->report.receipt);
    source_hand_over(s);
}
