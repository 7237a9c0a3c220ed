/* The hand-over: compared, recorded, started, answered, announced. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/announce.h"
#include "migrate/destination_private.h"
#include "migrate/record.h"
#include "proto/bounded.h"

#define LINGER_MS      5000u      /* after the start: the source may ask again if our answer was lost */
#define TOLD_MS        600000u    /* after post-copy the source must learn that it may go */
#define HEARD_MAX_NS   250000000u /* a guest that is asked anything answers sooner, emulated or not */
#define START_AGAIN_MS 100u
#define REFUSED_MS     1000u /* less than one try of the source's (source_hand_over.c), so that it hears the answer */
#define ASKED_BACK_MS  2000u /* ten times of what a source waits that is told to ask again */
#define UNWRITTEN_MS   1000u
/* Switches learn from one frame; the others are for a lost one. */
static const uint32_t announce_at_ms[] = {0, 50, 200};
#define ANNOUNCEMENTS (sizeof announce_at_ms / sizeof *announce_at_ms)

/* Once the guest runs: over when the source has said that it has its answer, and the guest has been announced. */
void destination_try_finish(struct destination *d)
{
    bool announced = d->announcements == ANNOUNCEMENTS || !d->side.options->announce_interface[0];
    if (d->phase == DESTINATION_DONE && d->farewell && announced)
        destination_finish(d);
}

void destination_announce(void *user)
{
    struct destination *d = user;
    const char *list = d->side.options->announce_macs;
    struct err err;
    if (d->announce_socket < 0 && announce_open(&err, &d->announce_socket) < 0)
        log_event(LOG_WARN, "announce.failed", "message=%s", LOG_QUOTE(err.message));
    while (*list) {
        size_t len = strcspn(list, "\n");
        char mac[32];
        snprintf(mac, sizeof mac, "%.*s", (int)len, list);
        if (announce_mac(d->announce_socket, d->side.options->announce_interface, mac, &err) < 0)
            log_event(LOG_WARN, "announce.failed", "mac=%s message=%s", mac, LOG_QUOTE(err.message));
        list += len + (list[len] == '\n');
    }
    for (size_t i = 0; i < d->addresses.count; i++)
        if (announce_address(d->announce_socket, d->side.options->announce_interface, &d->addresses.list[i], &err) < 0)
            log_event(
                LOG_WARN, "announce.failed", "address=%s message=%s", d->addresses.text[i], LOG_QUOTE(err.message));
    if (++d->announcements < ANNOUNCEMENTS)
        loop_timer_start(d->announcer, announce_at_ms[d->announcements] - announce_at_ms[d->announcements - 1], 0);
    else
        destination_try_finish(d);
}

static void destination_answer(struct destination *d)
{
    Drover__EngineHandOverReply reply = DROVER__ENGINE_HAND_OVER_REPLY__INIT;
    reply.started_after_us = (d->resumed_ns - d->hand_over_ns) / 1000;
    reply.running_us = (clock_now_ns() - d->resumed_ns) / 1000;
    reply.receipt = d->receipt;
    if (d->stopped_ns && d->stopped_ns < d->resumed_ns)
        reply.stood_us = (d->resumed_ns - d->stopped_ns) / 1000;
    reply.clock_forward_us = d->clock_forward_ns / 1000;
    reply.clock_left = d->clock_left;
    wire_reply(d->hand_over, &reply.base);
    d->hand_over = NULL;
    crashpoint("destination", "hand-over-answered");
}

/* All of the guest is here. */
void destination_done(struct destination *d)
{
    destination_move(d, DESTINATION_DONE);
    json_t *postcopy = d->puller ? puller_report(d->puller) : NULL;
    control_event(d->side.control, "done", json_pack("{s:{s:o*}}", "record", "postcopy", postcopy), true);
    loop_timer_free(d->deadline);
    d->deadline = loop_timer_new(&d->side.loop, destination_finish, d);
    loop_timer_start(d->deadline, d->puller ? TOLD_MS : LINGER_MS, 0);
    destination_try_finish(d);
}

/* Nobody has waited for it: who wants to know is told as soon as both are known. One that was silent for so long had
 * nothing to say. */
static void destination_tell_heard(struct destination *d)
{
    if (!d->resumed_ns || !d->heard_ns)
        return;
    uint64_t after_ns = d->heard_ns > d->resumed_ns ? d->heard_ns - d->resumed_ns : 0;
    if (after_ns <= HEARD_MAX_NS)
        control_event(
            d->side.control, "heard", json_pack("{s:I}", "after_us", (json_int_t)(after_ns / 1000 + 1)), true);
}

/* What came in before QEMU was told to run the guest is not the guest's. */
bool destination_on_heard(void *user, uint64_t at_ns)
{
    struct destination *d = user;
    if (!d->taken_ns || at_ns < d->taken_ns)
        return false;
    d->heard_ns = at_ns;
    destination_trace(d, "heard");
    destination_tell_heard(d);
    return true;
}

void destination_on_resumed(void *user, uint64_t at_ns)
{
    struct destination *d = user;
    if (d->resumed_ns)
        return;
    d->resumed_ns = at_ns > d->hand_over_ns ? at_ns : d->hand_over_ns;
    destination_trace(d, "resumed");
    destination_tell_heard(d);
}

/* From RETURNING on QEMU is not asked to run it, whatever happens. The record that it is ours may be on the disk: the
 * one that takes it back must outlive a loss of power before the source runs its guest. Until then it is ours, and who
 * finds us dead sees to it that it runs here, or reads that it never will. */
static void destination_return(struct destination *d)
{
    struct err err;
    const struct options *o = d->side.options;
    if (record_take_back(o->record_file, o->migration_id, &err) == 0) {
        destination_refuse(d, &d->refusal);
        return;
    }
    log_event(LOG_ERROR, "record.unwritten", "message=%s", LOG_QUOTE(err.message));
    loop_timer_start(d->starter, UNWRITTEN_MS, 0);
}

/* Where it cannot be told that it has not run: in post-copy nothing else can be done with it, its pages are at the
 * source, and who finds us dead can only end it. Else who finds us dead asks on, and says so. */
static void destination_asks_on(struct destination *d)
{
    if (d->puller)
        loop_timer_start(d->starter, START_AGAIN_MS, 0);
    else
        destination_fail(d, &d->refusal);
}

static void destination_give_back(struct destination *d)
{
    loop_timer_stop(d->starter);
    loop_timer_stop(d->announcer);
    destination_move(d, DESTINATION_RETURNING);
    destination_return(d);
}

/* The guest is whole here, and its source may have died since it was handed over: only one that asks once more, as each
 * does that is not told whether the guest was taken, gets it back. In post-copy it is nowhere whole but there. */
static void destination_ask_back(struct destination *d)
{
    d->asked_back = true;
    if (d->hand_over)
        wire_reply_error(d->hand_over, &d->refusal);
    d->hand_over = NULL;
    loop_timer_start(d->starter, ASKED_BACK_MS, 0);
}

/* QEMU says of each start that it comes, and answers in order: so it had not begun to run the guest when it refused. */
static void destination_looked(void *user, const struct err *err)
{
    struct destination *d = user;
    if (d->phase != DESTINATION_OWNER)
        return;
    if (err || d->resumed_ns) {
        log_event(LOG_WARN, "guest.unknown", "message=%s", LOG_QUOTE(err ? err->message : "it was told to run"));
        destination_asks_on(d);
        return;
    }
    if (d->puller)
        destination_give_back(d);
    else
        destination_ask_back(d);
}

/* QEMU opens the guest's disks for writing only now, and refuses while somebody else has one open. That may be for a
 * moment: it is tried again, and nobody is answered meanwhile. Then the source, whose guest is whole, gets it back. */
static void destination_refused(struct destination *d, const struct err *err)
{
    uint64_t now_ns = clock_now_ns();
    d->refusal = *err;
    err_wrap(&d->refusal, "the guest is here but could not be started");
    if (!d->refused_ns) {
        d->refused_ns = now_ns;
        log_event(LOG_WARN, "guest.refused", "message=%s", LOG_QUOTE(err->message));
    }
    if (now_ns - d->refused_ns < REFUSED_MS * UINT64_C(1000000))
        loop_timer_start(d->starter, START_AGAIN_MS, 0);
    else
        guest_look_paused(d->side.guest, destination_looked, d);
}

static void destination_started(void *user, const struct err *err)
{
    struct destination *d = user;
    if (err && err->code == ERR_TIMEOUT && d->puller) {
        /* QEMU itself waits for a page, perhaps until the connection is back. Asking twice does no harm. */
        destination_start(d);
        return;
    }
    if (err && err->code == ERR_WRONG_STATE) {
        destination_refused(d, err);
        return;
    }
    if (err) {
        struct err why = *err;
        err_wrap(&why, "the guest is here but could not be started");
        destination_fail(d, &why);
        return;
    }
    destination_trace(d, "started");
    destination_on_resumed(d, clock_now_ns());
    crashpoint("destination", "guest-started");
    if (d->puller)
        destination_move(d, DESTINATION_POSTCOPY);
    if (d->hand_over)
        destination_answer(d);
    if (d->puller)
        puller_started(d->puller);
    else
        destination_done(d);
}

static void destination_ask(struct destination *d)
{
    guest_start(d->side.guest, destination_started, d);
    crashpoint("destination", "start-asked");
}

void destination_start(void *user)
{
    struct destination *d = user;
    if (d->phase == DESTINATION_OWNER && d->asked_back)
        destination_asks_on(d); /* nobody has */
    else if (d->phase == DESTINATION_OWNER)
        destination_ask(d);
    else if (d->phase == DESTINATION_RETURNING)
        destination_return(d);
}

/* The source may come back over another connection. */
void destination_adopt(struct destination *d, struct wire_peer *peer)
{
    d->source = peer;
    if (d->puller)
        puller_set_peer(d->puller, peer);
}

/* Handed over, and all of it is loaded: from the record on the guest is ours. */
void destination_take(struct destination *d)
{
    struct err err;
    const struct options *o = d->side.options;
    if ((d->puller ? record_write_postcopy : record_write)(o->record_file, o->migration_id, "owner", &err) < 0) {
        destination_fail(d, &err);
        return;
    }
    destination_move(d, DESTINATION_OWNER);
    d->taken_ns = clock_now_ns();
    destination_start(d);
    /* It is ours, and runs nowhere else: what is sent to it from now on waits in its network card, and QEMU's word that
     * it runs may come late where its CPU keeps the machine busy. */
    if (o->announce_interface[0])
        destination_announce(d);
}

/* All pages were applied before the device state came; is what is held what was sent? */
static int destination_compare(struct destination *d, const Drover__EngineHandOver *hand_over, struct err *err)
{
    if (!d->digests.page || d->puller || d->receipt[0] || !hand_over->receipt[0])
        return 0;
    digests_root(&d->digests, d->receipt);
    if (strcmp(d->receipt, hand_over->receipt) == 0)
        return 0;
    return err_set(err, ERR_CORRUPT, "memory is not held as it was sent: receipt %s here, %.40s there", d->receipt,
        hand_over->receipt);
}

static void destination_consider(
    struct destination *d, struct wire_request *request, const Drover__EngineHandOver *hand_over)
{
    struct err err;
    bool first = !d->hand_over_ns;
    if (d->hand_over) { /* asked again because the first answer is late: the newest gets it */
        err_set(&err, ERR_BUSY, "asked again");
        wire_reply_error(d->hand_over, &err);
    }
    d->hand_over = request;
    if (first)
        d->hand_over_ns = clock_now_ns();
    destination_trace(d, "hand-over");
    crashpoint("destination", "hand-over-received");
    if (d->phase < DESTINATION_OWNER && destination_compare(d, hand_over, &err) < 0) {
        destination_fail(d, &err);
    } else if (d->phase == DESTINATION_LOADED) {
        destination_take(d);
    } else if (d->phase == DESTINATION_OWNER && d->asked_back) {
        destination_give_back(d);
    } else if (d->phase == DESTINATION_POSTCOPY || d->phase == DESTINATION_DONE) {
        destination_answer(d);
    } else if (d->phase != DESTINATION_OWNER && d->phase != DESTINATION_RETURNING &&
               !(d->phase == DESTINATION_RECEIVING && d->state_complete)) {
        err_set(&err, ERR_PROTOCOL, "handed over before everything was here");
        destination_fail(d, &err);
    }
}

/* All engines of a host have its key, and this one's port may have been another's: whose guest it is must be said.
 * Another's source is told of an error, after which it asks on; "refused" would have it run its guest, which may run
 * where it was handed over to. */
void destination_on_hand_over(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len)
{
    struct err err;
    Drover__EngineHandOver *hand_over = BOUNDED_UNPACK(engine_hand_over, body, len);
    int rc = 0;
    if (!hand_over)
        rc = err_set(&err, ERR_PROTOCOL, "hand-over makes no sense");
    else if (strcmp(hand_over->migration_id, d->side.options->migration_id) != 0)
        rc = err_set(&err, ERR_INVALID, "this engine serves another migration");
    if (rc < 0) {
        wire_reply_error(request, &err);
    } else {
        destination_adopt(d, peer);
        destination_consider(d, request, hand_over);
    }
    drover__engine_hand_over__free_unpacked(hand_over, NULL);
}

/* It may come over a new connection, and those of all sources of a host look alike. Who loses a farewell waits a little
 * longer. */
void destination_on_farewell(struct destination *d, const uint8_t *body, size_t len)
{
    Drover__EngineFarewell *farewell = BOUNDED_UNPACK(engine_farewell, body, len);
    bool mine = farewell && strcmp(farewell->migration_id, d->side.options->migration_id) == 0;
    drover__engine_farewell__free_unpacked(farewell, NULL);
    if (!mine) {
        log_event(LOG_WARN, "farewell.refused", "reason=%s", LOG_QUOTE("it is another migration's"));
        return;
    }
    crashpoint("destination", "farewell-received");
    d->farewell = true;
    destination_try_finish(d);
}
