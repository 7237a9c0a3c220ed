/* Disks that come with a migration: their files are made here before the incoming guest is started.
 *
 * Each has its partial name, which holds the migration's id, beside its own from the beginning (storage/place.h): that
 * tells our files from anybody else's. They are removed with a partition that never ran, and lose the second name once
 * the guest is ours. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crashpoint.h"
#include "base/log.h"
#include "hostd/partition/private.h"
#include "proto/bounded.h"
#include "storage/image.h"
#include "storage/place.h"

static void make_next(struct partition *p);

static void make_failed(struct partition *p, const struct err *err)
{
    migration_prepare_failed(p, err);
}

static void made(void *user, const struct err *err)
{
    struct partition *p = user;
    struct err why;
    const Drover__Disk *disk = p->record.spec->disks[p->arrivals->disks[p->arriving]->number];
    image_free(p->image);
    p->image = NULL;
    crashpoint("hostd", "arrival-made");
    if (err)
        make_failed(p, err);
    else if (place_commit(disk->path, p->record.migration.id, &why) < 0)
        make_failed(p, &why);
    else {
        crashpoint("hostd", "arrival-committed");
        p->arriving++;
        make_next(p);
    }
}

static void make_next(struct partition *p)
{
    struct err err;
    char partial[PATH_MAX], real[PATH_MAX];
    const char *id = p->record.migration.id;
    if (p->arriving == p->arrivals->n_disks) {
        arrivals_forget(p);
        if (partition_spawn(p, true, &err) < 0)
            migration_prepare_failed(p, &err);
        return;
    }
    const Drover__DiskMove *move = p->arrivals->disks[p->arriving];
    const Drover__Disk *disk = p->record.spec->disks[move->number];
    struct image_config config = {
        .qemu_img = p->all->env.options->qemu_img,
        .path = place_partial(disk->path, id, partial),
        .format = disk->format[0] ? disk->format : "raw",
        .bytes = move->bytes,
    };
    int rc = place_resolve(p->all->env.options->storage_directories, disk->path, &err, real);
    if (rc == 0 && strcmp(real, disk->path) != 0)
        rc = err_set(&err, ERR_INVALID, "disk %.300s is %.300s here; name that", disk->path, real);
    if (rc < 0 || place_make(disk->path, id, NULL, &err) < 0 ||
        image_make(p->all->env.loop, &config, made, p, &err, &p->image) < 0)
        make_failed(p, &err);
    else
        crashpoint("hostd", "arrival-placed");
}

int arrivals_check(const Drover__DiskMoves *moves, const Drover__VmSpec *spec, struct err *err)
{
    uint32_t seen = 0;
    for (size_t i = 0; moves && i < moves->n_disks; i++) {
        const Drover__DiskMove *move = moves->disks[i];
        if (move->number >= spec->n_disks || spec->disks[move->number]->read_only || seen & 1u << move->number ||
            strlen(spec->disks[move->number]->path) > PLACE_PATH_MAX || move->bytes == 0 || move->bytes > INT64_MAX)
            return err_set(err, ERR_INVALID, "a disk that is to come makes no sense");
        seen |= 1u << move->number;
    }
    return 0;
}

void arrivals_make(struct partition *p, const Drover__DiskMoves *moves)
{
    p->arrivals = bounded_copy(moves);
    p->arriving = 0;
    make_next(p);
}

void arrivals_forget(struct partition *p)
{
    image_free(p->image);
    p->image = NULL;
    if (p->arrivals)
        drover__disk_moves__free_unpacked(p->arrivals, NULL);
    p->arrivals = NULL;
}

void arrivals_settle(struct partition *p, bool ours)
{
    const struct record_migration *m = &p->record.migration;
    struct err err;
    arrivals_forget(p);
    if (!m->incoming || !m->disks)
        return;
    for (size_t i = 0; i < p->record.spec->n_disks; i++) {
        const Drover__Disk *disk = p->record.spec->disks[i];
        if (disk->read_only)
            continue;
        int committed = ours ? 0 : place_committed(disk->path, m->id, (struct place_where){0}, &err);
        if (committed < 0) /* its partial file, if it was made, keeps telling whose it is */
            log_event(LOG_INFO, "disk.not_seen", "path=%s reason=%s", LOG_QUOTE(disk->path), LOG_QUOTE(err.message));
        else if (committed > 0 && unlink(disk->path) < 0)
            log_event(LOG_WARN, "disk.left", "path=%s reason=%s", LOG_QUOTE(disk->path), LOG_QUOTE(strerror(errno)));
        else
            place_forget(disk->path, m->id);
    }
    crashpoint("hostd", "arrival-settled");
}
