/* The controllers' requests about disks on the move.
 *
 * A request is checked, its files are looked at (files.h), and then everything is checked again that may have changed
 * meanwhile. Of what hangs, nothing is begun twice: an action waits with the first (hostd/action.h), a question is told
 * to come again. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "base/buf.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "hostd/partition/files.h"
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
    if (strlen(move->settled) > PLACE_PATH_MAX)
        return err_set(err, ERR_INVALID, "what is said to be the disk is malformed");
    if (move->format[0] && strcmp(move->format, "raw") != 0 && strcmp(move->format, "qcow2") != 0)
        return err_set(err, ERR_INVALID, "format '%.32s' is neither raw nor qcow2", move->format);
    return 0;
}

static int check_id(const char *id, struct err *err)
{
    /* Its first letters become part of names within QEMU. */
    return paths_vm_id_ok(id) ? 0 : err_set(err, ERR_INVALID, "'%.64s' is not the id of a move", id);
}

/* A message's move, checked. */
static void take_move(const char *id, const Drover__StorageMove *move, struct record_storage *out)
{
    snprintf(out->id, sizeof out->id, "%s", id);
    snprintf(out->source, sizeof out->source, "%s", move->disk);
    snprintf(out->target, sizeof out->target, "%s", move->target);
    snprintf(out->format, sizeof out->format, "%s", move->format);
    out->where = (struct place_where){move->file_system, move->inode};
    out->shallow = move->shallow;
    out->bandwidth_bytes_per_s = move->bandwidth_bytes_per_s;
}

/* The running partition and the number of the disk; NULL: `err` says why not. */
static struct partition *find_disk(
    struct partitions *ps, const char *vm_id, uint64_t generation, const char *path, struct err *err, uint32_t *disk)
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
        if (strcmp(d->path, path) != 0)
            continue;
        *disk = i;
        if (!d->read_only)
            return p;
        err_set(err, ERR_UNSUPPORTED, "disk %.400s is read-only", d->path);
        return NULL;
    }
    err_set(err, ERR_NOT_FOUND, "the VM has no disk %.400s here", path);
    return NULL;
}

/* Where the disk would go, and whether there is room. */
static void look_at_target(struct files *files)
{
    const struct record_storage *move = &files->move;
    files->said = place_target(files->directories, move->source, move->target, &files->err, files->target);
    if (files->said == 0)
        files->said = place_room(move->source, files->target, &files->err);
    if (files->said == 0)
        files->said = place_where(files->target, &files->err, &files->move.where);
}

/* The running partition whose disk may go; its format is put where none was asked for. NULL: `err` says why not. */
static struct partition *find_movable(struct files *files, struct err *err)
{
    struct record_storage *move = &files->move;
    struct partition *p = find_disk(files->ps, files->vm_id, files->generation, move->source, err, &move->disk);
    if (!p)
        return NULL;
    const char *format = p->record.spec->disks[move->disk]->format;
    if (!move->format[0])
        snprintf(move->format, sizeof move->format, "%s", format[0] ? format : "raw");
    if (!move->shallow || strcmp(move->format, "qcow2") == 0)
        return p;
    err_set(err, ERR_INVALID, "a raw file cannot read from a backing file");
    return NULL;
}

static void checked(struct files *files)
{
    if (files->said < 0) {
        wire_reply_error(files->request, &files->err);
        return;
    }
    Drover__StorageCheckReply reply = DROVER__STORAGE_CHECK_REPLY__INIT;
    reply.target = files->target;
    reply.format = files->move.format;
    reply.file_system = files->move.where.file_system;
    reply.inode = files->move.where.inode;
    wire_reply(files->request, &reply.base);
}

void storage_check(struct partitions *ps, const Drover__StorageCheckRequest *m, struct wire_request *request)
{
    struct err err;
    if (!paths_vm_id_ok(m->vm_id) || check_move(m->move, &err) < 0) {
        if (!paths_vm_id_ok(m->vm_id))
            err_set(&err, ERR_INVALID, "vm_id is missing or malformed");
        wire_reply_error(request, &err);
        return;
    }
    if (files_asked(ps, "", m->vm_id, request))
        return;
    struct files *files = files_new(ps, request, NULL);
    strcpy(files->vm_id, m->vm_id);
    files->generation = m->generation;
    take_move("", m->move, &files->move);
    if (find_movable(files, &err)) {
        files_start(files, look_at_target, checked);
        return;
    }
    wire_reply_error(request, &err);
    files_free(files);
}

/* 1: begin; 0: begun before, or decided that it never will; -1: refused. */
static int move_check(struct files *files, struct err *err, struct partition **out)
{
    struct partitions *ps = files->ps;
    if (outcomes_find(ps->env.outcomes, files->move.id) || find_move(ps, files->move.id))
        return 0;
    *out = find_movable(files, err);
    return *out ? 1 : -1;
}

/* 1: what was checked is what is there; -1: it is not. */
static int target_check(struct files *files, struct place_where checked_at, struct err *err)
{
    struct record_storage *move = &files->move;
    if (files->said < 0) {
        *err = files->err;
        return -1;
    }
    if (strcmp(files->target, move->target) != 0) /* the log holds this name */
        return err_set(err, ERR_WRONG_STATE, "%.300s is %.300s by now", move->target, files->target);
    if (checked_at.inode && memcmp(&checked_at, &move->where, sizeof checked_at) != 0)
        return err_set(err, ERR_WRONG_STATE,
            "the directory of %.300s is not the one that was checked: mount its file system, then move the disk again",
            move->target);
    return 1;
}

static void move_seen(struct files *files)
{
    struct err err;
    struct partition *p;
    int go = move_check(files, &err, &p);
    if (go > 0)
        go = target_check(files, files->checked_at, &err);
    if (go > 0)
        go = storage_begin(p, &files->move, &err);
    if (go < 0)
        action_fail(files->action, &err);
    else
        action_done(files->action, "");
}

void storage_move(struct partitions *ps, const Drover__StorageMoveRequest *m, struct wire_request *request)
{
    struct err err;
    struct partition *p;
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__STORAGE_MOVE, m->key, request);
    if (!action)
        return;
    crashpoint("hostd", "storage-received");
    struct files *files = files_new(ps, NULL, action);
    int go = check_id(m->migration_id, &err);
    if (go == 0 && check_move(m->move, &err) < 0)
        go = -1;
    if (go == 0 && !paths_vm_id_ok(m->vm_id))
        go = err_set(&err, ERR_INVALID, "vm_id is missing or malformed");
    if (go == 0) {
        strcpy(files->vm_id, m->vm_id);
        files->generation = m->generation;
        take_move(m->migration_id, m->move, &files->move);
        files->checked_at = files->move.where;
        go = move_check(files, &err, &p);
    }
    if (go > 0) {
        files_start(files, look_at_target, move_seen);
        return;
    }
    files_free(files);
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

/* Whether it changed over. */
static void look_at_move(struct files *files)
{
    const struct record_storage *move = &files->move;
    files->said = place_resolve(files->directories, move->target, &files->err, files->target);
    if (files->said == 0)
        files->said = place_committed(files->target, move->id, move->where, &files->err);
}

/* One of `kept` and `p` is there. */
static void query_answer(
    const Drover__MigrateOutcomeRequest *kept, struct partition *p, bool fence, struct wire_request *request)
{
    if (kept) {
        answer(request, kept->outcome, kept->error);
        return;
    }
    if (fence)
        storage_cancel(p);
    if (p->looking)
        files_not_answering(&p->record.storage, request);
    else
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY, NULL);
}

static void look_at_question(struct files *files)
{
    struct stat st;
    look_at_move(files);
    files->settled_there =
        strcmp(files->settled, files->target) == 0 && lstat(files->target, &st) == 0 && S_ISREG(st.st_mode);
}

/* By the record of the VM's partition, of which no move is under way: it is written before a guest runs with a file. */
static int record_says(const struct partition *p, const struct files *files)
{
    if (!p || p->record.generation != files->generation)
        return -1;
    for (size_t i = 0; i < p->record.spec->n_disks; i++) {
        const char *path = p->record.spec->disks[i]->path;
        if (strcmp(path, files->move.target) == 0)
            return 1;
        if (strcmp(path, files->move.source) == 0)
            return 0;
    }
    return -1;
}

static int somebody_says(const struct files *files, struct err *err)
{
    if (strcmp(files->settled, files->move.source) == 0)
        return 0;
    if (strcmp(files->settled, files->move.target) != 0)
        return -1;
    return files->settled_there ? 1 : err_set(err, ERR_UNAVAILABLE, "%.300s is not seen here", files->settled);
}

/* Nothing was known of it here (any more). 1: it changed over, 0: it did not, or never will, -1: nothing tells. */
static int decide(const struct files *files, struct err *err, const char **by)
{
    const struct partition *p = files->vm_id[0] ? partition_find(files->ps, files->vm_id) : NULL;
    int said = files->said;
    *by = "files";
    *err = files->err;
    if (said < 0) {
        *by = "record";
        said = record_says(p, files);
    }
    if (said < 0 && !p) { /* so the guest does not run here */
        *by = "somebody";
        said = somebody_says(files, err);
    }
    return said;
}

static void answer_doubt(struct wire_request *request, const struct err *err)
{
    Drover__ErrorInfo why = DROVER__ERROR_INFO__INIT;
    why.code = (char *)(uintptr_t)err_name(err->code);
    why.message = (char *)(uintptr_t)err->message;
    answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT, &why);
}

/* A request to begin that is still on its way must find the door shut. What somebody says may be wrong: then everything
 * is left as it is. */
static void decide_unknown(struct files *files)
{
    struct err err;
    const char *by;
    struct partitions *ps = files->ps;
    int said = decide(files, &err, &by);
    bool taken = said > 0;
    const Drover__MigrateOutcomeRequest *kept = outcomes_find(ps->env.outcomes, files->move.id);
    struct partition *p = find_move(ps, files->move.id);
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    outcome.migration_id = files->move.id;
    outcome.outcome = taken ? DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN : DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    if (kept || p) { /* meanwhile */
        query_answer(kept, p, true, files->request);
    } else if (said < 0) {
        answer_doubt(files->request, &err);
    } else if (outcomes_add(ps->env.outcomes, &outcome, true, &err) < 0) {
        wire_reply_error(files->request, &err);
    } else {
        log_event(LOG_INFO, "storage.settled", "move=%s target=%s moved=%d by=%s", files->move.id,
            LOG_QUOTE(files->move.target), taken, by);
        if (!taken && strcmp(by, "somebody") != 0)
            place_forget(files->move.target, files->move.id);
        answer(files->request, outcome.outcome, NULL);
    }
}

static void ask_files(struct partitions *ps, const Drover__StorageQueryRequest *m, struct wire_request *request)
{
    struct err err;
    if (check_move(m->move, &err) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    if (files_asked(ps, m->migration_id, "", request))
        return;
    struct files *files = files_new(ps, request, NULL);
    take_move(m->migration_id, m->move, &files->move);
    strcpy(files->settled, m->move->settled);
    if (paths_vm_id_ok(m->vm_id))
        strcpy(files->vm_id, m->vm_id);
    files->generation = m->generation;
    files_start(files, look_at_question, decide_unknown);
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
    if (kept || p)
        query_answer(kept, p, m->fence, request);
    else if (m->fence)
        ask_files(ps, m, request);
    else
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL);
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

/* The old file goes only where the files prove that the guest has left it. On the loop, so that no guest is started
 * with it meanwhile; the storage has just answered. */
static void finish(struct files *files)
{
    char detail[LEDGER_TEXT_MAX];
    struct err err;
    const char *old = files->move.source;
    if (files->said < 0) {
        action_fail(files->action, &files->err);
        return;
    }
    if (files->said == 0)
        snprintf(detail, sizeof detail, "nothing was left to do");
    else if (files->keep)
        snprintf(detail, sizeof detail, "%.200s is kept", old);
    else if (disk_in_use(files->ps, old))
        snprintf(detail, sizeof detail, "%.200s is used here, and kept", old);
    else if (place_remove(files->directories, old, files->target, &err) < 0)
        snprintf(detail, sizeof detail, "%.100s is left: %.140s", old, err.message);
    else
        snprintf(detail, sizeof detail, "%.200s is removed", old);
    crashpoint("hostd", "storage-finish-removed");
    place_forget(files->target, files->move.id);
    action_done(files->action, detail);
}

void storage_finish(struct partitions *ps, const Drover__StorageFinishRequest *m, struct wire_request *request)
{
    struct err err;
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__STORAGE_FINISH, m->key, request);
    if (!action)
        return;
    crashpoint("hostd", "storage-finish-received");
    if (check_id(m->migration_id, &err) < 0 || check_move(m->move, &err) < 0) {
        action_fail(action, &err);
    } else if (find_move(ps, m->migration_id)) {
        action_fail(action, (err_set(&err, ERR_BUSY, "QEMU still has the old file open"), &err));
    } else {
        struct files *files = files_new(ps, NULL, action);
        take_move(m->migration_id, m->move, &files->move);
        files->keep = m->move->keep;
        files_start(files, look_at_move, finish);
    }
}

/* Only has the storage answer: a file that cannot be resolved is told of by place_remove(). */
static void look_at_left(struct files *files)
{
    for (size_t i = 0; i < files->path_count; i++)
        (void)!place_resolve(files->directories, files->paths[i], &files->err, files->target);
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

static void leave(struct files *files)
{
    for (size_t i = 0; i < files->path_count; i++)
        leave_one(files->ps, files->paths[i]);
    crashpoint("hostd", "leave-removed");
    action_done(files->action, "");
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
    struct files *files = files_new(ps, NULL, action);
    while (files->path_count < m->n_paths) {
        files->paths[files->path_count] = mem_strdup(m->paths[files->path_count]);
        files->path_count++;
    }
    files_start(files, look_at_left, leave);
}
