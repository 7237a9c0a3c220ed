/* A disk of a running partition on its way to another file: from the order to the outcome.
 *
 *   order -> record.storage (written down) -> disk_copy -> place_commit + record's definition -> outcome ->
 * record.storage gone
 *
 * What is valid when hostd, QEMU or the machine dies anywhere in between, the files say (storage/place.h); the record
 * only says that there is something to look at. */
#include <inttypes.h>
#include <string.h>

#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "hostd/partition/private.h"
#include "storage/place.h"

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
    if (place_commit(s->target, s->id, err) < 0)
        return -1;
    crashpoint("hostd", "storage-linked");
    definition_put(p);
    int rc = partition_save(p, err);
    crashpoint("hostd", "storage-saved");
    return rc;
}

/* Tells how it ended; what is told is what the files say, so that nothing is lost with a message. */
static void conclude(struct partition *p, const struct err *why)
{
    struct err err;
    struct record_storage *s = &p->record.storage;
    bool taken = place_committed(s->target, s->id);
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
    *s = (struct record_storage){0};
    disk_copy_free(p->copy);
    p->copy = NULL;
    p->copy_cancelled = false;
    p->all->env.on_change(p->all->env.user);
}

static void ended(void *user, const struct err *why)
{
    struct partition *p = user;
    struct err err;
    conclude(p, why);
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
        .switched = adopt && place_committed(s->target, s->id),
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

void storage_adopt(struct partition *p)
{
    const struct record_storage *s = &p->record.storage;
    if (!s->id[0] || p->copy || !p->guest)
        return;
    log_event(LOG_INFO, "storage.adopted", "move=%s vm=%s", s->id, p->record.vm_id);
    if (place_committed(s->target, s->id))
        definition_put(p); /* hostd was killed between the link and the record */
    copy_start(p, true);
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
    if (!p->record.storage.id[0])
        return;
    err_set(&err, ERR_UNAVAILABLE, "the guest ended while disk %.300s was being copied", p->record.storage.source);
    conclude(p, &err);
}
