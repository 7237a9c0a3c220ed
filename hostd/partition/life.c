/* Starting and ending partitions, and what their guests do by themselves. */
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
#include "hostd/partition/private.h"
#include "hostd/text.h"
#include "proto/api.pb-c.h"

#define STOP_GRACE_MS 30000 /* when the request does not say */

static void guest_ready(void *user, bool running)
{
    struct partition *p = user;
    struct err err;
    switch (p->record.state) {
    case STATE_STARTING:
        if (!running) {
            err_set(&err, ERR_INTERNAL, "QEMU came up without running the guest");
            partition_start_failed(p, &err);
            return;
        }
        if (partition_move(p, STATE_RUNNING, "", &err) < 0) {
            partition_start_failed(p, &err);
            return;
        }
        if (p->starting)
            action_done(p->starting, "");
        p->starting = NULL;
        return;
    case STATE_INCOMING:
        if (p->peer_key[0]) /* only where this hostd made it: an adopted one has had its engine */
            migration_guest_ready(p);
        return;
    default:
        storage_adopt(p);
        log_event(LOG_INFO, "guest.reached", "vm=%s state=%s running=%d", p->record.vm_id, state_name(p->record.state),
            running);
    }
}

static int guest_created(void *user, struct process_id id, struct err *err)
{
    struct partition *p = user;
    p->record.guest = id;
    p->record.uptime_from_ms = clock_now_ms();
    return partition_save(p, err);
}

static void guest_ended(void *user, bool by_guest, const char *why)
{
    struct partition *p = user;
    guest_free(p->guest);
    p->guest = NULL;
    standstill_drop(p);
    storage_guest_dead(p);
    migration_guest_ended(p, why);
    if (p->engine) {
        /* Its record file decides, and says so for good only once it is dead. */
        log_event(LOG_WARN, "guest.lost", "vm=%s state=%s reason=%s", p->record.vm_id, state_name(p->record.state),
            LOG_QUOTE(why));
        text_print(p->record.detail, sizeof p->record.detail, why);
        p->shut_down = by_guest;
        if (!decide_sends_on(p->record.migration.incoming, engine_record(p->directory, p->record.migration.id)))
            engine_kill(p->engine);
    } else if (p->aftermath == AFTERMATH_RELEASE) { /* whose end is near: then it is decided */
        text_print(p->record.detail, sizeof p->record.detail, why);
        p->shut_down = by_guest;
    } else if (p->record.state == STATE_INCOMING || p->record.state == STATE_OUTGOING) {
        p->shut_down = by_guest;
        migration_decide(p, why);
    } else {
        partition_guest_dead(p, by_guest, why);
    }
}

static void guest_halted(void *user, const char *why)
{
    standstill_told(user, why);
}

const struct guest_events partition_guest_events = {guest_created, guest_ready, guest_halted, guest_ended, NULL};

void partition_guest_dead(struct partition *p, bool by_guest, const char *why)
{
    enum record_phase phase = RECORD_NONE;
    if (p->record.migration.id[0])
        phase = engine_record(p->directory, p->record.migration.id);
    switch (decide_guest_death(p->record.state, phase)) {
    case DEATH_DOUBT:
        text_print(p->record.detail, sizeof p->record.detail, why);
        log_event(LOG_WARN, "guest.ended_in_doubt", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(why));
        return;
    case DEATH_REPORT:
        ledger_end(p->all->env.ledger, p->record.vm_id, p->record.generation);
        partition_release(p);
        partition_note(p, by_guest ? STATE_STOPPED : STATE_FAILED, why);
        if (p->stopping) {
            text_print(p->end_detail, sizeof p->end_detail, why);
            partition_remove(p);
        }
        return;
    case DEATH_REMOVE:
        break;
    }
    if (p->record.state == STATE_STARTING && p->start_failure.code == ERR_NONE)
        err_set(&p->start_failure, ERR_INTERNAL, "%s", why);
    if (p->record.state != STATE_STOPPING)
        partition_note(p, STATE_STOPPING, why);
    else if (by_guest && !p->forced)
        text_print(p->end_detail, sizeof p->end_detail, "the guest shut down");
    partition_remove(p);
}

static int spawn_file(const struct partition *p, const char *what, const char *path, int mode, struct err *err)
{
    struct stat found;
    if (path[0] && access(path, mode) < 0 && errno == ENOENT)
        return err_set(err, ERR_NOT_FOUND,
            "%s %.300s: host %s has no such file; a VM's files are the hosts', on storage that they share: put it "
            "there, "
            "or name another",
            what, path, p->all->host_name);
    if (path[0] && access(path, mode) < 0)
        return err_errno(err, ERR_INVALID, errno, "%s %.300s on host %s", what, path, p->all->host_name);
    if (path[0] && stat(path, &found) == 0 && S_ISDIR(found.st_mode))
        return err_set(
            err, ERR_INVALID, "%s %.300s is a directory on host %s; name a file", what, path, p->all->host_name);
    return 0;
}

/* What QEMU would find out too, but say less clearly. */
static int spawn_files(const struct partition *p, struct err *err)
{
    const Drover__VmSpec *spec = p->record.spec;
    for (size_t i = 0; i < spec->n_disks; i++)
        if (spawn_file(p, "disk", spec->disks[i]->path, spec->disks[i]->read_only ? R_OK : R_OK | W_OK, err) < 0)
            return -1;
    return spawn_file(p, "kernel", spec->kernel, R_OK, err) < 0 ? -1 : spawn_file(p, "initrd", spec->initrd, R_OK, err);
}

static int spawn_taps(struct partition *p, struct err *err)
{
    for (size_t i = 0; i < p->record.spec->n_nics; i++)
        if (net_tap_add(p->all->env.net, p->taps[i], p->record.spec->nics[i]->network, err) < 0)
            return err_wrap(err, "network card %zu on host %s", i + 1, p->all->host_name);
    partition_listen(p);
    return 0;
}

int partition_spawn(struct partition *p, bool incoming, struct err *err)
{
    struct partitions_env *env = &p->all->env;
    char ram[PATH_MAX];
    const char *taps[SPEC_NICS_MAX];
    int cgroups[CGROUP_TREES_MAX];
    if (spawn_files(p, err) < 0 || spawn_taps(p, err) < 0)
        return -1;
    for (size_t i = 0; i < p->record.spec->n_nics; i++)
        taps[i] = p->taps[i];
    struct guest_config config = {
        .vm_id = p->record.vm_id,
        .spec = p->record.spec,
        .directory = p->directory,
        .ram_path = paths_ram(env->options->memory_directory, p->record.vm_id, ram),
        .taps = taps,
        .incoming = incoming,
        .disks_come = incoming && p->record.migration.disks,
        .cgroup_fds = cgroups,
        .cgroup_count = cgroup_make(env->cgroups, p->record.vm_id, cgroups),
    };
    struct guest_events events = partition_guest_events;
    events.user = p;
    int rc = guest_start(env->hypervisor, &config, &events, err, &p->guest);
    for (size_t i = 0; i < config.cgroup_count; i++)
        close(cgroups[i]);
    if (rc == 0)
        cgroup_entrust(env->cgroups, p->record.vm_id, p->record.spec->name, p->record.guest.pid);
    return rc;
}

void partition_end(struct partition *p, const char *detail, bool hard)
{
    struct err err;
    resume_drop(p);
    text_print(p->end_detail, sizeof p->end_detail, detail);
    p->record.stop_by_ms = 0;
    p->forced = true;
    if (p->timer)
        loop_timer_stop(p->timer);
    if (p->record.state != STATE_STOPPING)
        partition_note(p, STATE_STOPPING, detail);
    else if (partition_save(p, &err) < 0)
        log_event(LOG_WARN, "partition.unsaved", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err.message));
    crashpoint("hostd", "end-recorded");
    ENSURE(!p->engine);
    if (!p->guest)
        partition_remove(p);
    else if (hard)
        guest_kill(p->guest);
    else
        guest_end(p->guest);
}

void partition_start_failed(struct partition *p, const struct err *err)
{
    p->start_failure = *err;
    log_event(LOG_WARN, "partition.start_failed", "vm=%s name=%s reason=%s", p->record.vm_id, p->record.spec->name,
        LOG_QUOTE(err->message));
    partition_end(p, err->message, true);
}

/* Checks a grant against what is here. 1: go on; 0: it is running already; 2: it waits with the start under way; -1:
 * refused. */
static int grant_check(
    struct partitions *ps, const char *vm_id, uint64_t generation, struct action *action, struct err *err)
{
    uint64_t ended = ledger_ended(ps->env.ledger, vm_id);
    if (generation <= ended)
        return err_set(err, ERR_WRONG_STATE,
            "generation %" PRIu64 " is over on this host (up to %" PRIu64 " ended here)", generation, ended);
    struct partition *p = partition_find(ps, vm_id);
    if (!p)
        return 1;
    enum partition_state state = p->record.state;
    if (state == STATE_STOPPED || state == STATE_FAILED) {
        partition_remove(p); /* the controllers have moved on: nobody waits for this report */
        return 1;
    }
    if (p->record.generation == generation && (state == STATE_RUNNING || state == STATE_OUTGOING))
        return 0;
    if (p->record.generation == generation && state == STATE_STARTING && !p->starting) {
        p->starting = action; /* hostd was restarted while it started: this asks for the same again */
        return 2;
    }
    return err_set(err, p->record.generation == generation ? ERR_BUSY : ERR_WRONG_STATE,
        "a partition of this VM is here already: generation %" PRIu64 ", %s", p->record.generation, state_name(state));
}

static int start_check(const Drover__PartitionStartRequest *m, struct err *err)
{
    if (!paths_vm_id_ok(m->vm_id) || m->generation == 0 || m->generation > INT64_MAX || !m->spec)
        return err_set(err, ERR_INVALID, "vm_id, generation or spec is missing or malformed");
    return spec_check(m->spec, err);
}

void partition_start(struct partitions *ps, const Drover__PartitionStartRequest *m, struct wire_request *request)
{
    struct err err;
    struct partition *p;
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__PARTITION_START, m->key, request);
    if (!action)
        return;
    int go = start_check(m, &err);
    if (go == 0)
        go = grant_check(ps, m->vm_id, m->generation, action, &err);
    if (go == 2)
        return;
    if (go > 0 && partition_room(ps, m->spec, &err) < 0)
        go = -1;
    if (go > 0)
        go = partition_make(ps, m->vm_id, m->generation, m->spec, STATE_STARTING, NULL, &err, &p) < 0 ? -1 : 1;
    if (go <= 0) {
        if (go == 0)
            action_done(action, "");
        else
            action_fail(action, &err);
        return;
    }
    p->starting = action;
    if (partition_spawn(p, false, &err) < 0)
        partition_start_failed(p, &err);
}

static void grace_over(void *user)
{
    struct partition *p = user;
    partition_end(p, "the guest did not shut down in time and was ended", false);
}

void partition_await_stop(struct partition *p)
{
    uint64_t now_ms = clock_now_ms(), by_ms = p->record.stop_by_ms;
    if (!p->timer)
        p->timer = loop_timer_new(p->all->env.loop, grace_over, p);
    loop_timer_start(p->timer, by_ms > now_ms ? by_ms - now_ms : 0, 0);
}

static void stop_gracefully(struct partition *p, uint64_t grace_ms)
{
    struct err err;
    p->record.stop_by_ms = clock_now_ms() + grace_ms;
    text_print(p->end_detail, sizeof p->end_detail, "stopped");
    if (partition_move(p, STATE_STOPPING, "asked to shut down", &err) < 0) {
        partition_end(p, "ended at once, because its record could not be written", false);
        return;
    }
    guest_power_down(p->guest);
    partition_await_stop(p);
}

void partition_stop(struct partitions *ps, const Drover__PartitionStopRequest *m, struct wire_request *request)
{
    struct action *action = action_begin(ps->env.actions, DROVER__METHOD__PARTITION_STOP, m->key, request);
    if (!action)
        return;
    struct err err;
    if (!paths_vm_id_ok(m->vm_id) || m->generation == 0 || m->generation > INT64_MAX) {
        err_set(&err, ERR_INVALID, "vm_id or generation is missing or malformed");
        action_fail(action, &err);
        return;
    }
    struct partition *p = partition_find(ps, m->vm_id);
    if (!p) /* a start under this generation that is still on its way comes too late */
        ledger_end(ps->env.ledger, m->vm_id, m->generation);
    if (!p || p->record.generation > m->generation) {
        action_done(action, p ? "a later generation is here; left alone" : "nothing of it is here");
        return;
    }
    enum partition_state state = p->record.state;
    action->also = p->stopping;
    p->stopping = action;
    if (state == STATE_STOPPED || state == STATE_FAILED) {
        text_print(p->end_detail, sizeof p->end_detail, "it had ended before");
        partition_remove(p);
    } else if (state == STATE_STOPPING) {
        if (m->force && !p->forced)
            partition_end(p, "ended at once", false);
    } else if (state == STATE_INCOMING || state == STATE_OUTGOING || state == STATE_IN_DOUBT) {
        migration_stop(p);
    } else if (m->force || state == STATE_STARTING || !p->guest) {
        partition_end(p, "ended at once", false);
    } else {
        stop_gracefully(p, m->grace_ms ? m->grace_ms : STOP_GRACE_MS);
    }
}
