/* A disk of a running partition on its way to another file: from the order to the outcome.
 *
 *   order -> record.storage (written down) -> disk_copy -> place_commit + record's definition
 *         -> outcome -> record.storage gone
 *
 * What is valid when hostd, QEMU or the machine dies anywhere in between, the files say (storage/place.h); the record
 * only says that there is something to look at. Only what is certain is told: where hostd has not seen itself how it
 * ended, and the files cannot be seen, it waits for them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "hostd/partition/private.h"
#include "storage/place.h"

#define LOOK_AGAIN_MS 2000

/* Which file is the disk, asked by a thread: storage that hangs must not hang hostd. Outlives a partition that goes. */
struct storage_look {
    uv_work_t work;
    struct partition *partition; /* NULL: nobody waits */
    struct record_storage move;
    int said; /* place_committed() */
    struct err err;
};

static void storage_seen(struct partition *p, int said, const struct err *why);

static void definition_put(struct partition *p)
{
    const struct record_storage *s = &p->record.storage;
    Drover__Disk *disk = p->record.spec->disks[s->disk];
    if (strcmp(disk->path, s->target) == 0)
        return;
    Drover__Disk changed = *disk;
    changed.path = (char *)(uintptr_t)s->target;
    changed.format = (char *)(uintptr_t)s->format;
    spec_put_disk(p->record.spec, s->disk, &changed);
}

/* The guest stands still, and both files are equal: from here on the new one is the disk. */
static int switched(void *user, struct err *err)
{
    struct partition *p = user;
    const struct record_storage *s = &p->record.storage;
    p->copy_linking = true;
    if (place_commit(s->target, s->id, err) < 0)
        return -1;
    crashpoint("hostd", "storage-linked");
    definition_put(p);
    int rc = partition_save(p, err);
    crashpoint("hostd", "storage-saved");
    return rc;
}

/* Only after the change-over does the definition name the new file. */
static bool changed_over(const struct partition *p)
{
    const struct record_storage *s = &p->record.storage;
    return strcmp(p->record.spec->disks[s->disk]->path, s->target) == 0;
}

static void forget(struct partition *p)
{
    if (p->looking)
        p->looking->partition = NULL;
    p->looking = NULL;
    if (p->look_again)
        loop_timer_stop(p->look_again);
    p->record.storage = (struct record_storage){0};
    disk_copy_free(p->copy);
    p->copy = NULL;
    p->copy_cancelled = p->copy_linking = false;
    p->all->env.on_change(p->all->env.user);
}

/* Tells how it ended, which is certain; `why` if it was not taken. */
static void conclude(struct partition *p, bool taken, const struct err *why)
{
    struct err err;
    struct record_storage *s = &p->record.storage;
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    Drover__ErrorInfo error = DROVER__ERROR_INFO__INIT;
    outcome.migration_id = s->id;
    outcome.vm_id = p->record.vm_id;
    outcome.outcome = taken ? DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN : DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    if (!taken) {
        place_forget(s->target, s->id);
        error.code = (char *)(uintptr_t)err_name(why->code);
        error.message = (char *)(uintptr_t)why->message;
        outcome.error = &error;
    }
    crashpoint("hostd", "storage-outcome-before");
    if (outcomes_add(p->all->env.outcomes, &outcome, false, &err) < 0)
        log_event(LOG_ERROR, "outcome.unsaved", "move=%s reason=%s", s->id, LOG_QUOTE(err.message));
    crashpoint("hostd", "storage-outcome-after");
    log_event(LOG_INFO, "storage.ended",
        "move=%s vm=%s disk=%" PRIu32 " target=%s moved=%d pause_us=%" PRIu64 " reason=%s", s->id, p->record.vm_id,
        s->disk, LOG_QUOTE(s->target), taken, p->copy ? disk_copy_pause_us(p->copy) : 0,
        LOG_QUOTE(taken ? "" : why->message));
    forget(p);
}

static void ended(void *user, const struct err *why)
{
    struct partition *p = user;
    struct err err;
    conclude(p, !why || changed_over(p), why);
    if (partition_save(p, &err) < 0)
        log_event(LOG_WARN, "partition.unsaved", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err.message));
    crashpoint("hostd", "storage-concluded");
}

static void copy_start(struct partition *p, bool adopt)
{
    const struct record_storage *s = &p->record.storage;
    struct disk_copy_config config = {
        .id = s->id,
        .disk = s->disk,
        .source = s->source,
        .target = s->target,
        .format = s->format,
        .cache = p->record.spec->disks[s->disk]->cache,
        .aio = p->record.spec->disks[s->disk]->aio,
        .shallow = s->shallow,
        .bandwidth_bytes_per_s = s->bandwidth_bytes_per_s,
        .qemu_img = p->all->env.options->qemu_img,
        .adopt = adopt,
        .switched = adopt && changed_over(p),
    };
    struct disk_copy_events events = {switched, ended, p};
    p->copy = disk_copy_start(p->all->env.loop, p->guest, &config, &events);
    if (p->copy_cancelled)
        disk_copy_cancel(p->copy);
}

int storage_begin(struct partition *p, const struct record_storage *move, struct err *err)
{
    ENSURE(!p->copy && !p->record.storage.id[0]);
    p->record.storage = *move;
    if (partition_save(p, err) < 0) {
        p->record.storage = (struct record_storage){0};
        return -1;
    }
    crashpoint("hostd", "storage-recorded");
    log_event(LOG_INFO, "storage.begun", "move=%s vm=%s disk=%" PRIu32 " target=%s", move->id, p->record.vm_id,
        move->disk, LOG_QUOTE(move->target));
    copy_start(p, false);
    return 0;
}

static void look_work(uv_work_t *work)
{
    struct storage_look *look = work->data;
    look->said = place_committed(look->move.target, look->move.id, look->move.where, &look->err);
}

static void look_done(uv_work_t *work, int status)
{
    struct storage_look *look = work->data;
    struct partition *p = look->partition;
    (void)status; /* nobody cancels it */
    if (p) {
        p->looking = NULL;
        storage_seen(p, look->said, &look->err);
    }
    free(look);
}

static void look_start(void *user)
{
    struct partition *p = user;
    if (p->looking || p->copy)
        return;
    struct storage_look *look = mem_zalloc(sizeof *look);
    look->work.data = look;
    look->partition = p;
    look->move = p->record.storage;
    p->looking = look;
    ENSURE(uv_queue_work(p->all->env.loop, &look->work, look_work, look_done) == 0);
}

/* What is done with QEMU depends on which file is the disk, so while that cannot be seen, nothing is. */
static void storage_seen(struct partition *p, int said, const struct err *why)
{
    const struct record_storage *s = &p->record.storage;
    if (said < 0) {
        if (!p->look_again)
            p->look_again = loop_timer_new(p->all->env.loop, look_start, p);
        log_event(
            LOG_WARN, "storage.not_seen", "move=%s vm=%s reason=%s", s->id, p->record.vm_id, LOG_QUOTE(why->message));
        loop_timer_start(p->look_again, LOOK_AGAIN_MS, 0);
        return;
    }
    if (said > 0)
        definition_put(p);
    copy_start(p, true);
}

void storage_adopt(struct partition *p)
{
    const struct record_storage *s = &p->record.storage;
    if (!s->id[0] || p->copy || p->looking || !p->guest)
        return;
    log_event(LOG_INFO, "storage.adopted", "move=%s vm=%s", s->id, p->record.vm_id);
    if (changed_over(p))
        copy_start(p, true);
    else
        look_start(p); /* hostd may have been killed between the link and the record */
}

void storage_drop(struct partition *p)
{
    if (p->looking)
        p->looking->partition = NULL;
    loop_timer_free(p->look_again);
    disk_copy_free(p->copy);
}

void storage_cancel(struct partition *p)
{
    p->copy_cancelled = true;
    if (p->copy)
        disk_copy_cancel(p->copy);
}

void storage_guest_dead(struct partition *p)
{
    struct err err;
    const struct record_storage *s = &p->record.storage;
    if (!s->id[0])
        return;
    err_set(&err, ERR_UNAVAILABLE, "the guest ended while disk %.300s was being copied", s->source);
    if (changed_over(p) || (p->copy && !p->copy_linking)) {
        conclude(p, changed_over(p), &err);
        return;
    }
    /* The controllers will ask, and the files be looked at then (storage_requests.c). */
    log_event(LOG_WARN, "storage.undecided", "move=%s vm=%s reason=%s", s->id, p->record.vm_id, LOG_QUOTE(err.message));
    forget(p);
}
