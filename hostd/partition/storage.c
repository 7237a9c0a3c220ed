/* A disk of a running partition on its way to another file: from the order to the outcome.
 *
 *   order -> record.storage (written down) -> disk_copy -> place_commit + record's definition
 *         -> outcome -> record.storage gone
 *
 * What is valid when hostd, QEMU or the machine dies anywhere in between, the files say (storage/place.h), and where
 * they cannot be seen (any more), two others know:
 *
 * - QEMU, while it lives: the link is not made before it has changed over, so copy_step() goes by QEMU alone.
 * - The record, once QEMU is dead: it is written before the guest runs with the new file. While it names the old one,
 *   no write of the guest is in the new one alone. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "hostd/partition/files.h"
#include "hostd/partition/private.h"
#include "storage/place.h"

/* Whether the storage answers, found out by a thread: what hangs must not hang hostd. Outlives a partition that goes.
 */
struct storage_look {
    uv_work_t work;
    struct partition *partition; /* NULL: nobody waits */
    struct record_storage move;
    int said; /* place_committed() */
    struct err err;
};

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
    p->record.storage = (struct record_storage){0};
    disk_copy_free(p->copy);
    p->copy = NULL;
    p->copy_cancelled = p->copy_linking = false;
    p->all->env.on_change(p->all->env.user);
}

/* Tells how it ended, which is certain; `why` if it was not taken. */
static void tell(struct partitions *ps, const char *vm_id, const struct record_storage *s, bool taken,
    const struct err *why, uint64_t pause_us)
{
    struct err err;
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    Drover__ErrorInfo error = DROVER__ERROR_INFO__INIT;
    outcome.migration_id = (char *)(uintptr_t)s->id;
    outcome.vm_id = (char *)(uintptr_t)vm_id;
    outcome.outcome = taken ? DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN : DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    if (!taken) {
        place_forget(s->target, s->id);
        error.code = (char *)(uintptr_t)err_name(why->code);
        error.message = (char *)(uintptr_t)why->message;
        outcome.error = &error;
    }
    crashpoint("hostd", "storage-outcome-before");
    if (outcomes_add(ps->env.outcomes, &outcome, false, &err) < 0)
        log_event(LOG_ERROR, "outcome.unsaved", "move=%s reason=%s", s->id, LOG_QUOTE(err.message));
    crashpoint("hostd", "storage-outcome-after");
    log_event(LOG_INFO, "storage.ended",
        "move=%s vm=%s disk=%" PRIu32 " target=%s moved=%d pause_us=%" PRIu64 " reason=%s", s->id, vm_id, s->disk,
        LOG_QUOTE(s->target), taken, pause_us, LOG_QUOTE(taken ? "" : why->message));
}

static void conclude(struct partition *p, bool taken, const struct err *why)
{
    tell(p->all, p->record.vm_id, &p->record.storage, taken, why, p->copy ? disk_copy_pause_us(p->copy) : 0);
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

/* Whatever it says: QEMU tells where to go on. Where that is behind the link, it is made again, which does no harm, and
 * then written down. */
static void storage_seen(struct partition *p, int said, const struct err *why)
{
    const struct record_storage *s = &p->record.storage;
    if (said < 0)
        log_event(
            LOG_WARN, "storage.not_seen", "move=%s vm=%s reason=%s", s->id, p->record.vm_id, LOG_QUOTE(why->message));
    p->copy_linking = said != 0;
    copy_start(p, true);
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

static void look_start(struct partition *p)
{
    struct storage_look *look = mem_zalloc(sizeof *look);
    look->work.data = look;
    look->partition = p;
    look->move = p->record.storage;
    p->looking = look;
    ENSURE(uv_queue_work(p->all->env.loop, &look->work, look_work, look_done) == 0);
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
    disk_copy_free(p->copy);
}

void storage_cancel(struct partition *p)
{
    p->copy_cancelled = true;
    if (p->copy)
        disk_copy_cancel(p->copy);
}

static void settle_look(struct files *files)
{
    const struct record_storage *s = &files->move;
    files->said = place_committed(s->target, s->id, s->where, &files->err);
}

static const struct err *guest_ended(const struct record_storage *s, struct err *err)
{
    err_set(err, ERR_UNAVAILABLE, "the guest ended while disk %.300s was being copied", s->source);
    return err;
}

static void settle_seen(struct files *files)
{
    struct err err;
    const struct record_storage *s = &files->move;
    if (files->said < 0)
        log_event(LOG_WARN, "storage.not_seen", "move=%s vm=%s reason=%s", s->id, files->vm_id,
            LOG_QUOTE(files->err.message));
    if (!outcomes_find(files->ps->env.outcomes, s->id))
        tell(files->ps, files->vm_id, s, files->said > 0, guest_ended(s, &err), 0);
}

/* The record names the old file, and the link may have been made: as the files say, and if they cannot be seen, as the
 * record does. */
static void settle(struct partition *p)
{
    struct files *files = files_new(p->all, NULL, NULL);
    files->unasked = true;
    files->move = p->record.storage;
    strcpy(files->vm_id, p->record.vm_id);
    forget(p);
    files_start(files, settle_look, settle_seen);
}

void storage_guest_dead(struct partition *p)
{
    struct err err;
    const struct record_storage *s = &p->record.storage;
    if (!s->id[0])
        return;
    if (changed_over(p) || (p->copy && !p->copy_linking))
        conclude(p, changed_over(p), guest_ended(s, &err));
    else
        settle(p);
}
