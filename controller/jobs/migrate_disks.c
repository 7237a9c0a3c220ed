/* Migrations that take the disks along (--with-storage). Every disk the guest writes to moves: into `storage_directory`
 * on the destination under its own name, or under the path it has. The plan is made in the preflight and kept in the
 * log, because the definition changes in the same command that changes the owner. */
#include <stdlib.h>
#include <string.h>

#include "controller/jobs/migrate.h"

bool migrate_takes_disks(const struct job_ctx *ctx)
{
    const Drover__MigrationOptions *o = job_data(ctx)->options;
    return o && o->with_storage;
}

void migrate_disks_leave_out(Drover__VmSpec *spec)
{
    size_t kept = 0;
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (spec->disks[i]->read_only)
            spec->disks[kept++] = spec->disks[i];
        else
            pb_free(spec->disks[i]);
    }
    spec->n_disks = kept;
}

/* Those that stay where they are, as the others. */
static void leave_out_checked(Drover__MigrateCheckReply *check, const Drover__VmSpec *spec)
{
    size_t kept = 0;
    for (size_t i = 0; i < check->n_disks; i++) {
        if (i < spec->n_disks && spec->disks[i]->read_only)
            check->disks[kept++] = check->disks[i];
        else
            pb_free(check->disks[i]);
    }
    check->n_disks = kept;
}

static char *target_of(const char *path, const char *directory)
{
    const char *name = strrchr(path, '/') + 1;
    size_t len = strlen(directory);
    return directory[0] ? mem_printf("%s%s%s", directory, directory[len - 1] == '/' ? "" : "/", name)
                        : mem_strdup(path);
}

/* Disks from several directories may have one name. */
static int check_apart(const Drover__DiskMoves *moves, const Drover__DiskMove *move, struct err *err)
{
    for (size_t i = 0; i < moves->n_disks; i++)
        if (strcmp(moves->disks[i]->target, move->target) == 0)
            return err_set(err, ERR_INVALID,
                "disks %.200s and %.200s would both become %.200s; move one of them to another name first "
                "(`drover vm move-storage`)",
                moves->disks[i]->path, move->path, move->target);
    return 0;
}

int migrate_disks_plan(struct job *job, const Drover__VmSpec *spec, struct err *err)
{
    Drover__MigrateCheckReply *check = job->migrating.check_source;
    pb_free(job->migrating.disks);
    job->migrating.disks = pb_new(&drover__disk_moves__descriptor);
    for (size_t i = 0; i < spec->n_disks; i++) {
        const Drover__Disk *disk = spec->disks[i];
        if (disk->read_only)
            continue;
        if (!check || i >= check->n_disks || check->disks[i]->bytes == 0)
            return err_set(err, ERR_UNSUPPORTED, "how large disk %.400s is cannot be told: %s", disk->path,
                check && i < check->n_disks && check->disks[i]->problem[0] ? check->disks[i]->problem
                                                                           : "the source host does not say");
        Drover__DiskMove *move = pb_new(&drover__disk_move__descriptor);
        move->number = (uint32_t)i;
        move->bytes = check->disks[i]->bytes;
        pb_string(&move->path, disk->path);
        char *target = target_of(disk->path, job->log.data->options->storage_directory);
        pb_string(&move->target, target);
        free(target);
        int rc = check_apart(job->migrating.disks, move, err);
        PB_ADD(job->migrating.disks, disks, move);
        if (rc < 0)
            return -1;
    }
    if (job->migrating.disks->n_disks == 0)
        return err_set(err, ERR_INVALID, "VM %s has no disk it writes to; leave out --with-storage", spec->name);
    leave_out_checked(check, spec);
    return 0;
}

void migrate_disks_prepare(const struct job_ctx *ctx, Drover__MigratePrepareRequest *request)
{
    const Drover__DiskMoves *disks = job_data(ctx)->disks;
    if (!disks)
        return;
    request->disks = pb_copy(disks);
    for (size_t i = 0; i < disks->n_disks; i++)
        if (disks->disks[i]->number < request->spec->n_disks)
            pb_string(&request->spec->disks[disks->disks[i]->number]->path, disks->disks[i]->target);
}

void migrate_disks_taken(const struct job_ctx *ctx, Drover__JobUpdate *update)
{
    const Drover__DiskMoves *disks = job_data(ctx)->disks;
    cleanup_pb Drover__VmSpec *spec = disks ? state_vm_spec(ctx->env->state, job_data(ctx)->vm_id) : NULL;
    for (size_t i = 0; spec && i < disks->n_disks; i++) {
        const Drover__DiskMove *move = disks->disks[i];
        if (move->number < spec->n_disks && strcmp(move->path, move->target) != 0)
            PB_ADD(update, effects,
                effect_vm_disk_put(job_data(ctx)->vm_id, move->path, move->target, spec->disks[move->number]->format));
    }
}

void migrate_disks_next(const struct job_ctx *ctx, char out[static MIGRATE_NEXT_MAX])
{
    const Drover__JobData *data = job_data(ctx);
    size_t count = data->disks ? data->disks->n_disks : 0;
    char more[32] = "";
    if (count == 0) {
        snprintf(out, MIGRATE_NEXT_MAX, "start it again");
        return;
    }
    if (count > 1)
        snprintf(more, sizeof more, ", and %zu more", count - 1);
    const Drover__DiskMove *first = data->disks->disks[0];
    snprintf(out, MIGRATE_NEXT_MAX,
        "before you start it again, see which is newer: %.100s, or its copy %.100s on host %.63s%s", first->path,
        first->target, data->host, more);
}

/* The next old file that is to go, or, with `kept`, that is not because another VM names it, whose name is written.
 * NULL: there is none. */
static const char *old_file(const struct job_ctx *ctx, bool kept, size_t *at, char name[static STATE_NAME_MAX])
{
    const Drover__JobData *data = job_data(ctx);
    if (!data->disks || data->options->keep_source)
        return NULL;
    while (*at < data->disks->n_disks) {
        const char *path = data->disks->disks[(*at)++]->path;
        if (job_disk_named(ctx, path, data->vm_id, name) == kept)
            return path;
    }
    return NULL;
}

bool migrate_disks_leave(struct job_ctx *ctx)
{
    const Drover__JobData *data = job_data(ctx);
    Drover__StorageLeaveRequest *request = pb_new(&drover__storage_leave_request__descriptor);
    char name[STATE_NAME_MAX];
    const char *path;
    for (size_t at = 0; (path = old_file(ctx, false, &at, name));)
        PB_ADD(request, paths, mem_strdup(path));
    if (request->n_paths == 0) {
        pb_free(request);
        return false;
    }
    request->key = job_key(ctx);
    pb_string(&request->migration_id, data->migration_id);
    job_call(ctx, data->from_host, DROVER__METHOD__STORAGE_LEAVE, request, JOB_CALL_MS);
    return true;
}

const char *migrate_disks_kept(const struct job_ctx *ctx, char out[static MIGRATE_NOTE_MAX])
{
    char name[STATE_NAME_MAX];
    const char *path;
    size_t at = 0;
    out[0] = '\0';
    if ((path = old_file(ctx, true, &at, name)))
        snprintf(out, MIGRATE_NOTE_MAX, "; %.300s stays on host %s, because VM %s names it, too", path,
            job_data(ctx)->from_host, name);
    return out;
}
