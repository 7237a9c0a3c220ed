/* Finding again what an earlier hostd left. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "hostd/partition/private.h"

#define END_MS 10000 /* for a killed process to go; it takes as long as its memory takes to be freed */

bool partition_of_other_boot(const struct partition *p)
{
    return strcmp(p->record.boot_id, p->all->env.boot_id) != 0;
}

/* Processes of another boot are gone, whatever their numbers say. */
static bool alive(const struct partition *p, struct process_id id)
{
    return !partition_of_other_boot(p) && process_alive(id);
}

/* Takes the guest up again; false: it died this very moment. */
static bool adopt_guest(struct partition *p)
{
    struct err err;
    struct guest_events events = partition_guest_events;
    events.user = p;
    if (guest_adopt(p->all->env.hypervisor, p->directory, p->record.guest, &events, &err, &p->guest) < 0) {
        if (err.code == ERR_NOT_FOUND)
            return false;
        /* It lives, and taking it for dead would take its memory away: better to begin anew. */
        log_event(LOG_ERROR, "guest.not_adopted", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err.message));
        exit(err_exit_status(err.code));
    }
    cgroup_entrust(p->all->env.cgroups, p->record.vm_id, p->record.spec->name, p->record.guest.pid);
    partition_listen(p);
    if (p->record.state == STATE_STOPPING)
        partition_await_stop(p);
    return true;
}

static bool adopt_engine(struct partition *p)
{
    struct err err;
    struct engine_events events = migration_engine_events;
    events.user = p;
    return engine_adopt(p->all->env.loop, p->directory, p->record.migration.engine, &events, &err, &p->engine) == 0;
}

/* A guest or engine that hostd will not take up, but that may live: it must be dead before what it uses is removed, or
 * decided about. One that the kernel does not let die may still write when its storage answers again, so nothing is
 * decided: hostd ends and is started again, until it is gone. The guests run on. */
static void end_process(const struct partition *p, struct process_id id)
{
    struct err err;
    if (process_end(id, END_MS, &err) == 0)
        return;
    log_event(LOG_ERROR, "process.not_ended", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err.message));
    exit(err_exit_status(err.code));
}

static void adopt_one(struct partition *p)
{
    struct record *r = &p->record;
    static const char unseen[] = "it ended while drover-hostd was not running";
    bool guest_alive = alive(p, r->guest), engine_alive = alive(p, r->migration.engine);
    enum adoption what = decide_adoption(r->state, guest_alive, engine_alive, r->stop_by_ms > clock_now_ms(),
        r->migration.id[0] ? engine_record(p->directory, r->migration.id) : RECORD_NONE);
    log_event(LOG_INFO, "partition.adopted", "vm=%s name=%s generation=%" PRIu64 " state=%s guest=%d engine=%d",
        r->vm_id, r->spec->name, r->generation, state_name(r->state), guest_alive ? (int)r->guest.pid : 0,
        engine_alive ? (int)r->migration.engine.pid : 0);
    switch (what) {
    case ADOPT_WATCH_ENGINE:
        if (adopt_guest(p) && adopt_engine(p))
            return;
        end_process(p, r->migration.engine);
        migration_engine_dead(p, false, unseen);
        return;
    case ADOPT_WATCH_SENDER:
        log_event(LOG_WARN, "guest.lost", "vm=%s", r->vm_id);
        if (adopt_engine(p))
            return;
        migration_decide(p, unseen);
        return;
    case ADOPT_ENGINE_DEATH:
        if (!adopt_guest(p))
            log_event(LOG_WARN, "guest.lost", "vm=%s", r->vm_id);
        migration_engine_dead(p, false, unseen);
        return;
    case ADOPT_ENGINE_STOP:
        end_process(p, r->migration.engine);
        migration_decide(p, unseen);
        return;
    case ADOPT_WATCH:
        if (adopt_guest(p)) {
            if (r->state == STATE_RUNNING || r->state == STATE_STOPPING)
                forecast_adopt(p);
            return;
        }
        partition_guest_dead(p, false, unseen);
        return;
    case ADOPT_GUEST_DEATH:
        if (r->state == STATE_INCOMING || r->state == STATE_OUTGOING)
            migration_decide(p, unseen);
        else
            partition_guest_dead(p, false, unseen);
        return;
    case ADOPT_END:
        if (guest_alive)
            end_process(p, r->guest);
        partition_remove(p);
        return;
    case ADOPT_KEEP:
        partition_release(p);
        return;
    }
}

/* A VM without a record: this is not the directory its hostd had, or that has lost it. Where its memory is in use the
 * guest may run, and what we said of it would have it started elsewhere, too; only certainty counts as dead. */
static int check_orphan(struct partitions *ps, const char *vm_id, struct err *err)
{
    char path[PATH_MAX];
    const char *directory = ps->env.options->directory;
    pid_t pid;
    switch (process_maps(paths_ram(ps->env.options->memory_directory, vm_id, path), err, &pid)) {
    case 0:
        return 0;
    case 1:
        return err_set(err, ERR_CORRUPT,
            "process %d runs the guest of VM %s, of which host.directory %.200s knows nothing: set host.directory to "
            "what it was, or end that process, then start again",
            (int)pid, vm_id, directory);
    default:
        return err_wrap(err,
            "VM %s has memory here, but host.directory %.150s has no record of it, and whether its guest runs cannot "
            "be told (set host.directory to what it was, or mend the following, then start again)",
            vm_id, directory);
    }
}

/* A partition whose record cannot be read may run, and nobody could be told of it: the controllers would take it for
 * gone and have the VM started elsewhere. So hostd does not begin to speak for this host before somebody has looked. */
static int load_one(struct partitions *ps, const char *vm_id, struct err *err)
{
    char directory[PATH_MAX], path[PATH_MAX];
    struct record record;
    paths_directory(ps->env.options->directory, vm_id, directory);
    if (record_load(paths_file(directory, PATH_RECORD, path), err, &record) == 0) {
        if (strcmp(record.vm_id, vm_id) == 0) {
            adopt_one(partition_adopt_record(ps, directory, &record));
            return 0;
        }
        err_set(err, ERR_CORRUPT, "%s is of VM %s", path, record.vm_id);
        record_clear(&record);
    }
    if (err->code == ERR_NOT_FOUND) {
        /* The record is written before anything runs and removed after everything ended, unless by somebody else. */
        if (check_orphan(ps, vm_id, err) < 0)
            return -1;
        partition_sweep(ps, vm_id);
        return file_remove_tree(directory, err);
    }
    return err_wrap(err, "end the QEMU of VM %s, if it runs, then remove %s and start again", vm_id, directory);
}

static void remove_ram(struct partitions *ps, const char *vm_id)
{
    char path[PATH_MAX];
    if (unlink(paths_ram(ps->env.options->memory_directory, vm_id, path)) < 0)
        log_event(LOG_WARN, "ram.left", "path=%s reason=%s", path, LOG_QUOTE(strerror(errno)));
    else
        log_event(LOG_WARN, "ram.removed", "path=%s", path);
}

/* Memory of VMs that are not here. */
static int check_orphans(struct partitions *ps, struct err *err)
{
    DIR *dir = opendir(ps->env.options->memory_directory);
    int rc = 0;
    if (!dir)
        return err_errno(err, ERR_INTERNAL, errno, "cannot read %s", ps->env.options->memory_directory);
    while (rc == 0) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno)
                rc = err_errno(err, ERR_INTERNAL, errno, "cannot read %s", ps->env.options->memory_directory);
            break;
        }
        char vm_id[PATHS_ID_MAX], path[PATH_MAX];
        snprintf(vm_id, sizeof vm_id, "%.36s", entry->d_name);
        if (!paths_vm_id_ok(vm_id) || partition_find(ps, vm_id))
            continue;
        const char *ram = strrchr(paths_ram("", vm_id, path), '/') + 1;
        if (strcmp(entry->d_name, ram) != 0)
            continue;
        rc = check_orphan(ps, vm_id, err);
        if (rc == 0)
            remove_ram(ps, vm_id);
    }
    closedir(dir);
    return rc;
}

int partitions_open(const struct partitions_env *env, struct err *err, struct partitions **out)
{
    char path[PATH_MAX];
    struct dirent **names;
    snprintf(path, sizeof path, "%s/partitions", env->options->directory);
    if (file_make_dirs(path, 0700, err) < 0 || file_make_private(env->options->memory_directory, err) < 0)
        return -1;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot read %s", path);
    struct partitions *ps = mem_zalloc(sizeof *ps);
    ps->env = *env;
    *out = ps; /* before adoption, whose events may come back to the owner */
    int rc = 0;
    for (int i = 0; i < count; i++) {
        if (rc == 0 && paths_vm_id_ok(names[i]->d_name))
            rc = load_one(ps, names[i]->d_name, err);
        free(names[i]);
    }
    free(names);
    if (rc == 0)
        rc = check_orphans(ps, err);
    quotas_divide(ps, NULL);
    return rc;
}

void partitions_close(struct partitions *ps)
{
    if (!ps)
        return;
    files_drop(ps);
    while (ps->list)
        partition_free(ps->list);
    free(ps);
}
