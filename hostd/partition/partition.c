#include "hostd/partition/partition.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/file.h"
#include "hostd/partition/private.h"
#include "hostd/text.h"

static struct partition *partition_new(struct partitions *ps, const char *directory)
{
    struct partition *p = mem_zalloc(sizeof *p);
    p->all = ps;
    drover__load__init(&p->load);
    ENSURE(strlen(directory) < sizeof p->directory);
    strcpy(p->directory, directory);
    DL_APPEND(ps->list, p);
    return p;
}

static void name_taps(struct partition *p)
{
    for (unsigned i = 0; i < p->record.spec->n_nics; i++)
        net_tap_name(p->all->env.options->directory, p->record.vm_id, i, p->taps[i]);
}

int partition_save(struct partition *p, struct err *err)
{
    char path[PATH_MAX];
    return record_save(paths_file(p->directory, PATH_RECORD, path), &p->record, err);
}

int partition_make(struct partitions *ps, const char *vm_id, uint64_t generation, const Drover__VmSpec *spec,
    enum partition_state state, const struct record_migration *migration, struct err *err, struct partition **out)
{
    char directory[PATH_MAX];
    ENSURE(state_may_follow(STATE_NONE, state) && paths_vm_id_ok(vm_id));
    paths_directory(ps->env.options->directory, vm_id, directory);
    if (mkdir(directory, 0700) < 0)
        return err_errno(err, ERR_WRONG_STATE, errno, "cannot make the partition's directory %s", directory);
    struct partition *p = partition_new(ps, directory);
    struct record *r = &p->record;
    strcpy(r->vm_id, vm_id);
    snprintf(r->boot_id, sizeof r->boot_id, "%s", ps->env.boot_id);
    r->generation = generation;
    r->state = state;
    r->spec = spec_copy(spec);
    r->uptime_from_ms = clock_now_ms();
    if (migration)
        r->migration = *migration;
    name_taps(p);
    if (partition_save(p, err) < 0) {
        rmdir(directory);
        partition_free(p);
        return -1;
    }
    log_event(LOG_INFO, "partition.made", "vm=%s name=%s generation=%" PRIu64 " state=%s", r->vm_id, r->spec->name,
        generation, state_name(state));
    *out = p;
    return 0;
}

struct partition *partition_adopt_record(struct partitions *ps, const char *directory, struct record *record)
{
    struct partition *p = partition_new(ps, directory);
    p->record = *record;
    *record = (struct record){0};
    p->migrating_from_ms = clock_now_ms();
    name_taps(p);
    return p;
}

int partition_move(struct partition *p, enum partition_state to, const char *detail, struct err *err)
{
    struct record *r = &p->record;
    enum partition_state from = r->state;
    char old_detail[RECORD_TEXT_MAX];
    ENSURE(state_may_follow(from, to));
    memcpy(old_detail, r->detail, sizeof old_detail);
    r->state = to;
    text_print(r->detail, sizeof r->detail, detail);
    if (partition_save(p, err) < 0) {
        r->state = from;
        memcpy(r->detail, old_detail, sizeof old_detail);
        return -1;
    }
    log_event(LOG_INFO, "partition.moved", "vm=%s name=%s generation=%" PRIu64 " from=%s to=%s detail=%s", r->vm_id,
        r->spec->name, r->generation, state_name(from), state_name(to), LOG_QUOTE(detail));
    p->all->env.on_change(p->all->env.user);
    return 0;
}

void partition_note(struct partition *p, enum partition_state to, const char *detail)
{
    struct err err;
    enum partition_state from = p->record.state;
    if (partition_move(p, to, detail, &err) == 0)
        return;
    p->record.state = to;
    text_print(p->record.detail, sizeof p->record.detail, detail);
    log_event(LOG_ERROR, "partition.moved_unsaved", "vm=%s from=%s to=%s reason=%s", p->record.vm_id, state_name(from),
        state_name(to), LOG_QUOTE(err.message));
    p->all->env.on_change(p->all->env.user);
}

void partition_sweep(struct partitions *ps, const char *vm_id)
{
    char path[PATH_MAX], tap[IF_NAMESIZE];
    for (unsigned i = 0; i < SPEC_NICS_MAX; i++) {
        net_tap_name(ps->env.options->directory, vm_id, i, tap);
        net_tap_remove(ps->env.net, tap);
    }
    cgroup_remove(ps->env.cgroups, vm_id);
    if (unlink(paths_ram(ps->env.options->memory_directory, vm_id, path)) < 0 && errno != ENOENT)
        log_event(LOG_WARN, "ram.left", "path=%s reason=%s", path, LOG_QUOTE(strerror(errno)));
}

void partition_listen(struct partition *p)
{
    char path[PATH_MAX];
    p->heard = heard_open(p->all->env.loop, paths_file(p->directory, PATH_ADDRESSES, path));
    for (size_t i = 0; i < p->record.spec->n_nics; i++)
        heard_listen(p->heard, p->taps[i], p->record.spec->nics[i]->mac);
}

void partition_release(struct partition *p)
{
    char path[PATH_MAX];
    struct partitions *ps = p->all;
    ENSURE(!p->engine);
    forecast_drop(p);
    let_go_drop(p);
    standstill_drop(p);
    engine_abandon(p->lingering);
    p->lingering = NULL;
    if (p->moving) {
        struct err err;
        err_set(&err, ERR_WRONG_STATE, "the partition has ended");
        action_fail(p->moving, &err);
        p->moving = NULL;
    }
    guest_free(p->guest);
    p->guest = NULL;
    heard_close(p->heard);
    p->heard = NULL;
    storage_guest_dead(p);
    if (p->record.migration.incoming) {
        enum record_phase phase = engine_record(p->directory, p->record.migration.id);
        arrivals_settle(p, !decide_never_ran(phase, partition_of_other_boot(p)));
    }
    p->record.guest = (struct process_id){0};
    for (size_t i = 0; i < p->record.spec->n_nics; i++)
        net_tap_remove(ps->env.net, p->taps[i]);
    cgroup_remove(ps->env.cgroups, p->record.vm_id);
    paths_ram(ps->env.options->memory_directory, p->record.vm_id, path);
    if (p->left)
        visits_keep(ps->env.visits, p->record.vm_id, path);
    else if (unlink(path) < 0 && errno != ENOENT)
        log_event(LOG_WARN, "ram.left", "path=%s reason=%s", path, LOG_QUOTE(strerror(errno)));
    p->left = false;
    partition_set_load(p, &(Drover__Load)DROVER__LOAD__INIT, &(Drover__Load)DROVER__LOAD__INIT);
}

static void answer_stop(struct partition *p)
{
    while (p->stopping) {
        struct action *action = p->stopping;
        p->stopping = action->also;
        action_done(action, p->end_detail);
    }
}

/* A generation that ran is over for good; one that never did may still be tried again. */
static void end_generation(const struct partition *p)
{
    const struct record *r = &p->record;
    bool never_ran = r->state == STATE_STARTING || r->migration.incoming || p->start_failure.code != ERR_NONE;
    if (!never_ran)
        ledger_end(p->all->env.ledger, r->vm_id, r->generation);
}

void partition_remove(struct partition *p)
{
    struct err err;
    struct record *r = &p->record;
    end_generation(p);
    partition_release(p);
    crashpoint("hostd", "end-released");
    if (file_remove_tree(p->directory, &err) < 0)
        log_event(LOG_WARN, "partition.left", "vm=%s reason=%s", r->vm_id, LOG_QUOTE(err.message));
    crashpoint("hostd", "end-removed");
    log_event(LOG_INFO, "partition.removed", "vm=%s name=%s generation=%" PRIu64 " detail=%s", r->vm_id, r->spec->name,
        r->generation, LOG_QUOTE(p->end_detail[0] ? p->end_detail : r->detail));
    answer_stop(p);
    if (p->starting) {
        if (p->start_failure.code == ERR_NONE)
            err_set(&p->start_failure, ERR_CANCELLED, "the partition was ended while it started");
        action_fail(p->starting, &p->start_failure);
        p->starting = NULL;
    }
    struct partitions_env *env = &p->all->env;
    partition_free(p);
    env->on_change(env->user);
}

void partition_free(struct partition *p)
{
    if (!p)
        return;
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "drover-hostd has nothing more to say of this partition; ask again");
    DL_DELETE(p->all->list, p);
    queries_refuse(p, &err);
    if (p->resolving)
        wire_reply_error(p->resolving, &err);
    forecast_drop(p);
    engine_free(p->engine);
    engine_free(p->lingering);
    child_free(p->releaser);
    if (p->move)
        drover__migrate_start_request__free_unpacked(p->move, NULL);
    guest_free(p->guest);
    heard_close(p->heard);
    storage_drop(p);
    arrivals_forget(p);
    loop_timer_free(p->timer);
    loop_timer_free(p->farewell);
    loop_timer_free(p->again);
    loop_timer_free(p->resuming.again);
    loop_timer_free(p->fence);
    standstill_drop(p);
    report_clear(&p->last);
    record_clear(&p->record);
    free(p->usage);
    free(p);
}

struct partition *partition_find(struct partitions *ps, const char *vm_id)
{
    struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        if (strcmp(p->record.vm_id, vm_id) == 0)
            return p;
    }
    return NULL;
}

struct partition *partitions_next(struct partitions *ps, struct partition *after)
{
    return after ? after->next : ps->list;
}

const struct record *partition_record(const struct partition *p)
{
    return &p->record;
}

const char *partition_directory(const struct partition *p)
{
    return p->directory;
}

struct guest *partition_guest(const struct partition *p)
{
    return p->guest;
}

bool partition_engine(const struct partition *p, struct process_id *out)
{
    if (p->engine)
        *out = engine_process(p->engine);
    return p->engine != NULL;
}

const char *partition_tap(const struct partition *p, size_t nic)
{
    return p->taps[nic];
}

uint64_t partition_uptime_ms(const struct partition *p, uint64_t now_ms)
{
    switch (p->record.state) {
    case STATE_RUNNING:
    case STATE_OUTGOING:
    case STATE_STOPPING:
        return p->record.uptime_base_ms + (now_ms > p->record.uptime_from_ms ? now_ms - p->record.uptime_from_ms : 0);
    default:
        return 0;
    }
}

struct usage **partition_usage(struct partition *p)
{
    return &p->usage;
}

const Drover__Load *partition_load(const struct partition *p)
{
    return &p->load;
}

void partition_set_load(struct partition *p, const Drover__Load *load, const Drover__Load *demand)
{
    p->load = *load;
    p->demand = *demand;
}
