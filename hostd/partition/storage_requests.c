/* The controllers' requests about disks on the move. */
#include <inttypes.h>
#include <string.h>
#include <utlist.h>

#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "hostd/partition/private.h"
#include "proto/api.pb-c.h"
#include "storage/place.h"

static struct partition *find_move(struct partitions *ps, const char *id)
{
    struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        if (p->record.storage.id[0] && strcmp(p->record.storage.id, id) == 0)
            return p;
    }
    return NULL;
}

static int check_move(const Drover__StorageMove *move, struct err *err)
{
    if (!move || move->disk[0] != '/' || move->target[0] != '/' || strlen(move->disk) > PLACE_PATH_MAX ||
        strlen(move->target) > PLACE_PATH_MAX)
        return err_set(err, ERR_INVALID, "disk or target is missing or malformed");
    if (move->format[0] && strcmp(move->format, "raw") != 0 && strcmp(move->format, "qcow2") != 0)
        return err_set(err, ERR_INVALID, "format '%.32s' is neither raw nor qcow2", move->format);
    return 0;
}

static int check_id(const char *id, struct err *err)
{
    /* Its first letters become part of names within QEMU. */
    return paths_vm_id_ok(id) ? 0 : err_set(err, ERR_INVALID, "'%.64s' is not the id of a move", id);
}

/* The running partition and the number of the disk; NULL: `err` says why not. */
static struct partition *find_disk(struct partitions *ps, const char *vm_id, uint64_t generation,
    const Drover__StorageMove *move, struct err *err, uint32_t *disk)
{
    struct partition *p = paths_vm_id_ok(vm_id) ? partition_find(ps, vm_id) : NULL;
    if (!p || p->record.generation != generation || p->record.state != STATE_RUNNING || !p->guest) {
        err_set(err, ERR_WRONG_STATE, "the VM does not run here as generation %" PRIu64, generation);
        return NULL;
    }
    if (p->record.storage.id[0] || p->starting || p->moving) {
        err_set(err, ERR_BUSY, "something else is being done with this partition");
        return NULL;
    }
    for (uint32_t i = 0; i < p->record.spec->n_disks; i++) {
        const Drover__Disk *d = p->record.spec->disks[i];
        if (strcmp(d->path, move->disk) != 0)
            continue;
        *disk = i;
        if (!d->read_only)
            return p;
        err_set(err, ERR_UNSUPPORTED, "disk %.400s is read-only", d->path);
        return NULL;
    }
    err_set(err, ERR_NOT_FOUND, "the VM has no disk %.400s here", move->disk);
    return NULL;
}

static int check_target(struct partitions *ps, const Drover__Disk *disk, const Drover__StorageMove *move,
    struct err *err, char out[static PATH_MAX])
{
    const char *format = move->format[0] ? move->format : disk->format;
    if (move->shallow && strcmp(format, "qcow2") != 0)
        return err_set(err, ERR_INVALID, "a raw file cannot read from a backing file");
    if (place_target(ps->env.options->storage_directories, disk->path, move->target, err, out) < 0)
        return -1;
    return place_room(disk->path, out, err);
}

void storage_check(struct partitions *ps, const Drover__StorageCheckRequest *m, struct wire_request *request)
{
    struct err err;
    uint32_t disk = 0;
    char target[PATH_MAX];
    struct partition *p =
        check_move(m->move, &err) < 0 ? NULL : find_disk(ps, m->vm_id, m->generation, m->move, &err, &disk);
    if (!p || check_target(ps, p->record.spec->disks[disk], m->move, &err, target) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    const char *format = p->record.spec->disks[disk]->format;
    Drover__StorageCheckReply reply = DROVER__STORAGE_CHECK_REPLY__INIT;
    reply.target = target;
    reply.format = m->move->format[0] ? m->move->format : (char *)(uintptr_t)(format[0] ? format : "raw");
    wire_reply(request, &reply.base);
}

/* 1: begin; 0: begun before; -1: refused. */
static int move_check(struct partitions *ps, const Drover__StorageMoveRequest *m, struct err *err,
    struct partition **out, struct record_storage *move)
{
    char target[PATH_MAX];
    if (check_id(m->migration_id, err) < 0 || check_move(m->move, err) < 0)
        return -1;
    const Drover__MigrateOutcomeRequest *kept = outcomes_find(ps->env.outcomes, m->migration_id);
    if (kept || find_move(ps, m->migration_id))
        return 0;
    struct partition *p = find_disk(ps, m->vm_id, m->generation, m->move, err, &move->disk);
    if (!p || check_target(ps, p->record.spec->disks[move->disk], m->move, err, target) < 0)
        return -1;
    *out = p;
    if (strcmp(target, m->move->target) != 0) /* the log holds this name */
        return err_set(err, ERR_WRONG_STATE, "%.300s is %.300s by now", m->move->target, target);
    strcpy(move->id, m->migration_id);
    strcpy(move->source, m->move->disk);
    strcpy(move->target, target);
    strcpy(move->format, m->move->format[0] ? m->move->format : "raw");
    move->shallow = m->move->shallow;
    move->bandwidth_bytes_per_s = m->move->bandwidth_bytes_per_s;
    return 1;
}

void storage_move(struct partitions *ps, const Drover__StorageMoveRequest *m, struct wire_request *request)
{
    struct err err;
    struct partition *p;
    struct record_storage move = {0};
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__STORAGE_MOVE, m->key, request);
    if (!action)
        return;
    crashpoint("hostd", "storage-received");
    int go = move_check(ps, m, &err, &p, &move);
    if (go > 0)
        go = storage_begin(p, &move, &err);
    if (go < 0)
        action_fail(action, &err);
    else
        action_done(action, "");
}

static void answer(struct wire_request *request, Drover__MigrationOutcome outcome, Drover__ErrorInfo *error)
{
    Drover__MigrateQueryReply reply = DROVER__MIGRATE_QUERY_REPLY__INIT;
    reply.outcome = outcome;
    reply.error = error;
    wire_reply(request, &reply.base);
}

/* Nothing is known of it here (any more), and the files decide. A request to begin that is still on its way must find
 * the door shut. */
static void decide_unknown(struct partitions *ps, const Drover__StorageQueryRequest *m, struct wire_request *request)
{
    struct err err;
    char target[PATH_MAX];
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    if (check_move(m->move, &err) < 0 ||
        place_resolve(ps->env.options->storage_directories, m->move->target, &err, target) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    bool taken = place_committed(target, m->migration_id);
    outcome.migration_id = m->migration_id;
    outcome.outcome = taken ? DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN : DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    if (outcomes_add(ps->env.outcomes, &outcome, true, &err) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    if (!taken)
        place_forget(target, m->migration_id);
    answer(request, outcome.outcome, NULL);
}

void storage_query(struct partitions *ps, const Drover__StorageQueryRequest *m, struct wire_request *request)
{
    struct err err;
    if (check_id(m->migration_id, &err) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    const Drover__MigrateOutcomeRequest *kept = outcomes_find(ps->env.outcomes, m->migration_id);
    struct partition *p = find_move(ps, m->migration_id);
    if (kept) {
        answer(request, kept->outcome, kept->error);
    } else if (p) {
        if (m->fence)
            storage_cancel(p);
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY, NULL);
    } else if (m->fence) {
        decide_unknown(ps, m, request);
    } else {
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL);
    }
}

static bool disk_in_use(struct partitions *ps, const char *path)
{
    struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        for (size_t i = 0; i < p->record.spec->n_disks; i++)
            if (strcmp(p->record.spec->disks[i]->path, path) == 0)
                return true;
    }
    return false;
}

/* The old file goes only where the files prove that the guest has left it. */
static void finish(
    struct partitions *ps, const Drover__StorageFinishRequest *m, const char *target, struct action *action)
{
    char detail[LEDGER_TEXT_MAX];
    struct err err;
    const char *old = m->move->disk, *directories = ps->env.options->storage_directories;
    if (!place_committed(target, m->migration_id))
        snprintf(detail, sizeof detail, "nothing was left to do");
    else if (m->move->keep)
        snprintf(detail, sizeof detail, "%.200s is kept", old);
    else if (disk_in_use(ps, old))
        snprintf(detail, sizeof detail, "%.200s is used here, and kept", old);
    else if (place_remove(directories, old, target, &err) < 0)
        snprintf(detail, sizeof detail, "%.100s is left: %.140s", old, err.message);
    else
        snprintf(detail, sizeof detail, "%.200s is removed", old);
    crashpoint("hostd", "storage-finish-removed");
    place_forget(target, m->migration_id);
    action_done(action, detail);
}

void storage_finish(struct partitions *ps, const Drover__StorageFinishRequest *m, struct wire_request *request)
{
    struct err err;
    char target[PATH_MAX];
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__STORAGE_FINISH, m->key, request);
    if (!action)
        return;
    crashpoint("hostd", "storage-finish-received");
    if (check_id(m->migration_id, &err) < 0 || check_move(m->move, &err) < 0 ||
        place_resolve(ps->env.options->storage_directories, m->move->target, &err, target) < 0)
        action_fail(action, &err);
    else if (find_move(ps, m->migration_id))
        action_fail(action, (err_set(&err, ERR_BUSY, "QEMU still has the old file open"), &err));
    else
        finish(ps, m, target, action);
}

static void leave_one(struct partitions *ps, const char *path)
{
    struct err err;
    if (disk_in_use(ps, path))
        log_event(LOG_WARN, "disk.left", "path=%s reason=%s", LOG_QUOTE(path), LOG_QUOTE("it is used here"));
    else if (place_remove(ps->env.options->storage_directories, path, "", &err) < 0)
        log_event(LOG_WARN, "disk.left", "path=%s reason=%s", LOG_QUOTE(path), LOG_QUOTE(err.message));
    else
        log_event(LOG_INFO, "disk.removed", "path=%s", LOG_QUOTE(path));
}

/* Only where this host itself knows that the guest has gone, its disks with it. */
void storage_leave(struct partitions *ps, const Drover__StorageLeaveRequest *m, struct wire_request *request)
{
    struct err err;
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__STORAGE_LEAVE, m->key, request);
    if (!action)
        return;
    crashpoint("hostd", "leave-received");
    const Drover__MigrateOutcomeRequest *kept = outcomes_find(ps->env.outcomes, m->migration_id);
    if (!kept || kept->outcome != DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN || m->n_paths > SPEC_DISKS_MAX) {
        err_set(
            &err, ERR_WRONG_STATE, "this host does not know that migration %.64s took the guest away", m->migration_id);
        action_fail(action, &err);
        return;
    }
    for (size_t i = 0; i < m->n_paths; i++)
        leave_one(ps, m->paths[i]);
    crashpoint("hostd", "leave-removed");
    action_done(action, "");
}
