/* Disks that move with the guest: copied before memory is, kept equal while memory travels, let go of in the switch. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/loop.h"
#include "migrate/source_private.h"

#define OVER_MS    10000u
#define ABANDON_MS 500u /* the guest may stand still for so long */

/* What the guest writes meanwhile waits, and a guest's SCSI or SATA driver gives a disk up after 30 s. No disk that
 * works takes 10 s for a write; with neighbouring writes under way nothing at all may pass for that long. */
#define DATA_MS  10000u
#define RANGE_MS 25000u

static void disks_ready(void *user)
{
    struct source *s = user;
    if (s->phase != SOURCE_DISKS)
        return;
    s->report.disk_us = (clock_now_ns() - s->disks_ns) / 1000;
    crashpoint("source", "disks-ready");
    source_send_memory(s);
}

static void disks_failed(void *user, const struct err *err)
{
    source_fail_if_running(user, err);
}

/* The destination's QEMU has the disks to itself, so the guest's state may come. */
static void disks_taken(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    (void)body;
    (void)len;
    if (!err)
        crashpoint("source", "disks-over");
    if (err)
        source_fail_if_running(s, err);
    else if (s->phase == SOURCE_SWITCHING)
        source_let_switch(s);
}

static void disks_finished(void *user)
{
    struct source *s = user;
    if (s->phase != SOURCE_SWITCHING)
        return;
    s->report.disk_bytes = relay_wire_bytes(s->relay);
    source_trace(s, "disks-equal");
    crashpoint("source", "disks-equal");
    Drover__EngineDisksOver request = DROVER__ENGINE_DISKS_OVER__INIT;
    wire_call(
        wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_DISKS_OVER, &request.base, OVER_MS, disks_taken, s);
}

static void disks_lost(void *user, const struct err *err)
{
    struct source *s = user;
    if (s->mirror && mirror_copies(s->mirror)) /* else the destination has closed its side, as it should */
        source_fail_if_running(s, err);
}

void source_send_disks(struct source *s, const char *address)
{
    struct err err;
    char path[108];
    const struct options *o = s->side.options;
    const struct mirror_options mirror = {
        .qmp = guest_qmp(s->side.guest),
        .numbers = o->disks,
        .path = path,
        .bytes_per_s = quota_bytes_per_s(&s->side.quota),
        .id = o->migration_id,
        .on_ready = disks_ready,
        .on_finished = disks_finished,
        .on_failed = disks_failed,
        .user = s,
    };
    const struct relay_watch watch = {.data_ms = DATA_MS, .range_ms = RANGE_MS, .on_lost = disks_lost, .user = s};
    if (snprintf(path, sizeof path, "%s.nbd", o->control_socket) >= (int)sizeof path)
        err_set(&err, ERR_INVALID, "control.socket is too long");
    else if (relay_open_source(&s->side.loop, path, address, s->bulk_key, &watch, &err, &s->relay) == 0 &&
             mirror_new(&mirror, &err, &s->mirror) == 0) {
        source_move(s, SOURCE_DISKS);
        s->disks_ns = clock_now_ns();
        loop_timer_stop(s->deadline);
        mirror_start(s->mirror);
        return;
    }
    source_fail(s, &err);
}

void source_on_block_job(void *user, const char *event, json_t *data)
{
    struct source *s = user;
    if (s->mirror)
        mirror_on_job(s->mirror, event, data);
}

void source_finish_disks(struct source *s)
{
    mirror_finish(s->mirror);
}

static void disks_abandoned(void *user)
{
    struct source *s = user;
    loop_timer_stop(s->abandoning);
    relay_close(s->relay);
    s->relay = NULL;
}

/* The relay stays until QEMU has heard of it, and answers it meanwhile: what the guest writes must neither wait for a
 * host that may be gone nor break the mirror. Should QEMU not hear of it either, its connections are closed. */
void source_abandon_disks(struct source *s)
{
    s->abandoning = loop_timer_new(&s->side.loop, disks_abandoned, s);
    relay_answer_alone(s->relay);
    if (s->mirror) {
        loop_timer_start(s->abandoning, ABANDON_MS, 0);
        mirror_abandon(s->mirror, disks_abandoned);
    } else {
        disks_abandoned(s);
    }
}
