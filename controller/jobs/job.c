#include "controller/jobs/job.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "controller/foretold.h"
#include "controller/jobs/step.h"

#define VMS_AT_ONCE     256u
#define HEARD_MAX_US    1000000u /* hosts wait for less */
#define NEWER_LEADER_MS 5000u

/* The kinds and the names of their steps. Steps of an optimizer.apply are named by its moves. */
static const struct {
    Drover__JobKind kind;
    const char *name;
    const char *steps[8]; /* ended by NULL */
} kinds[] = {
    {DROVER__JOB_KIND__JOB_VM_CREATE, "vm create", {"record"}},
    {DROVER__JOB_KIND__JOB_VM_START, "vm start", {"place", "start"}},
    {DROVER__JOB_KIND__JOB_VM_STOP, "vm stop", {"stop"}},
    {DROVER__JOB_KIND__JOB_VM_DELETE, "vm delete", {"delete"}},
    {DROVER__JOB_KIND__JOB_VM_SET, "vm set", {"record"}},
    {DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm migrate", {"preflight", "queue", "prepare", "allow", "move", "finish"}},
    {DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE, "vm move-storage", {"check", "copy", "finish"}},
    {DROVER__JOB_KIND__JOB_VM_FORECAST, "vm forecast", {"preflight", "forecast"}},
    {DROVER__JOB_KIND__JOB_HOST_ADD, "host add", {"record"}},
    {DROVER__JOB_KIND__JOB_HOST_REMOVE, "host remove", {"record"}},
    {DROVER__JOB_KIND__JOB_HOST_SET, "host set", {"record"}},
    {DROVER__JOB_KIND__JOB_HOST_EVACUATE, "host evacuate", {"maintenance", "moves"}},
    {DROVER__JOB_KIND__JOB_CLUSTER_SET, "cluster set", {"record"}},
    {DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY, "optimizer apply", {NULL}},
    {DROVER__JOB_KIND__JOB_OPTIMIZER_SET, "optimizer set", {"record"}},
    {DROVER__JOB_KIND__JOB_MEMBER_ADD, "member add", {"record", "join"}},
    {DROVER__JOB_KIND__JOB_MEMBER_REMOVE, "member remove", {"leave", "forget"}},
};

const char *job_kind_name(Drover__JobKind kind)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].kind == kind)
            return kinds[i].name;
    return "job";
}

void job_add_steps(Drover__JobCreate *create, bool start)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (size_t n = 0; kinds[i].kind == create->kind && kinds[i].steps[n]; n++)
            PB_ADD(create, steps, mem_strdup(kinds[i].steps[n]));
    if (!start)
        return;
    PB_ADD(create, steps, mem_strdup("place"));
    PB_ADD(create, steps, mem_strdup("start"));
}

Drover__JobCreate *job_migration_new(const struct job_migration_order *m)
{
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = DROVER__JOB_KIND__JOB_VM_MIGRATE;
    pb_string(&create->target, m->vm);
    pb_string(&create->actor, m->actor);
    pb_string(&create->reason, m->reason);
    pb_string(&create->vm_id, m->vm_id);
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->data->vm_id, m->vm_id);
    pb_string(&create->data->host, m->to_host);
    pb_string(&create->data->from_host, m->from_host);
    pb_string(&create->data->migration_id, m->migration_id);
    job_add_steps(create, false);
    return create;
}

/* NULL: a later program's. */
static const struct job_step_kind *step_kind(const struct job *job)
{
    static const struct job_step_kind *const tables[] = {
        vm_steps, migrate_steps, storage_steps, cluster_steps, evacuate_steps, apply_steps};
    ENSURE(job->log.step < job->log.job->n_steps);
    const char *name = job->log.job->steps[job->log.step]->name;
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct job_step_kind *k = tables[t]; k->run; k++)
            if (k->kind == job->log.job->kind && (!k->name || strcmp(k->name, name) == 0))
                return k;
    return NULL;
}

static void note_outcome(struct job *job, const struct job_event *event)
{
    bool source = strcmp(event->host, job->log.data->from_host) == 0;
    if (!source && strcmp(event->host, job->log.data->host) != 0)
        return;
    struct job_side *side = source ? &job->migrating.source : &job->migrating.destination;
    side->heard = true;
    side->outcome = event->outcome->outcome;
    side->unresumed = event->outcome->unresumed;
    if (event->outcome->error)
        pb_error_get(event->outcome->error, &side->error);
    if (!source) {
        job->migrating.listens = event->outcome->listens;
        job->migrating.heard_us = event->outcome->heard_us <= HEARD_MAX_US ? event->outcome->heard_us : 0;
    }
    if (event->outcome->record && (source || !job->record)) {
        pb_free(job->record);
        job->record = pb_copy(event->outcome->record);
        job_record_bound(job->record);
    }
}

#define RECORD_ROUNDS_MAX  200
#define RECORD_CLASSES_MAX 16
#define RECORD_TEXT_MAX    128

void job_record_bound(Drover__MigrationRecord *record)
{
    char **texts[] = {&record->migration_id, &record->from_host, &record->to_host, &record->mode, &record->tracker,
        &record->source_hash, &record->destination_hash, &record->receipt, &record->clock_left};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strlen(*texts[i]) > RECORD_TEXT_MAX)
            (*texts[i])[RECORD_TEXT_MAX] = '\0';
    foretold_bound(record->forecast);
    while (record->n_rounds > RECORD_ROUNDS_MAX)
        pb_free(record->rounds[--record->n_rounds]);
    while (record->n_classes > RECORD_CLASSES_MAX)
        pb_free(record->classes[--record->n_classes]);
    for (size_t i = 0; i < record->n_classes; i++)
        if (strlen(record->classes[i]->name) > RECORD_TEXT_MAX)
            record->classes[i]->name[RECORD_TEXT_MAX] = '\0';
}

void job_step(struct job *job, const struct job_env *env, const struct job_event *event, struct job_action *out)
{
    struct job_ctx ctx = {job, env, event, out};
    *out = (struct job_action){.act = ACT_KEEP};
    if (event->type != JOB_OUTCOME)
        job->queued = false;
    Drover__JobState state = job->log.job->state;
    if (event->type == JOB_OUTCOME)
        note_outcome(job, event);
    if (event->type == JOB_OUTCOME && (job->committing || state != DROVER__JOB_STATE__JOB_RUNNING))
        return;
    if (state != DROVER__JOB_STATE__JOB_RUNNING && state != DROVER__JOB_STATE__JOB_CANCELLING)
        return;
    if (event->type == JOB_ENTER) {
        job->phase = 0;
        job->attempts = 0;
        job->since_ms = event->now_ms;
        job->waiting[0] = '\0';
    }
    const struct job_step_kind *kind = step_kind(job);
    if (!kind) { /* only a program that knows it can undo it */
        job_wait(&ctx, NEWER_LEADER_MS, "step %s needs a newer controller to lead: upgrade this one",
            job->log.job->steps[job->log.step]->name);
    } else if (event->type == JOB_REFUSED && state == DROVER__JOB_STATE__JOB_RUNNING && !kind->refused_too) {
        job_fail(&ctx, event->err);
    } else if (event->type == JOB_REFUSED && state != DROVER__JOB_STATE__JOB_RUNNING) {
        job_wait(&ctx, 1000, "%.200s", event->err->message);
    } else if (state == DROVER__JOB_STATE__JOB_RUNNING) {
        kind->run(&ctx);
    } else if (kind->undo) {
        kind->undo(&ctx);
    } else {
        job_undone(&ctx, "nothing had been done");
    }
    ENSURE(out->act != ACT_KEEP || event->type == JOB_OUTCOME);
}

void job_action_clear(struct job_action *action)
{
    pb_free(action->update);
    pb_free(action->request);
    *action = (struct job_action){0};
}

void job_clear(struct job *job)
{
    state_job_clear(&job->log);
    pb_free(job->migrating.disks);
    pb_free(job->record);
    pb_free(job->migrating.check_source);
    pb_free(job->migrating.check_destination);
    *job = (struct job){0};
}

/* --- what steps say --- */

static Drover__JobUpdate *update_new(struct job_ctx *ctx, Drover__JobState state, uint32_t step)
{
    Drover__JobUpdate *update = pb_new(&drover__job_update__descriptor);
    update->job_id = ctx->job->log.job->id;
    update->revision = ctx->job->log.revision;
    update->state = state;
    update->step = step;
    ctx->out->act = ACT_COMMIT;
    ctx->out->update = update;
    ctx->job->waiting[0] = '\0';
    return update;
}

void job_update_step(Drover__JobUpdate *update, uint32_t number, Drover__StepState state, const char *detail)
{
    Drover__StepUpdate *step = pb_new(&drover__step_update__descriptor);
    step->number = number;
    step->state = state;
    pb_string(&step->detail, detail);
    PB_ADD(update, steps, step);
}

Drover__JobUpdate *job_done(struct job_ctx *ctx, const char *fmt, ...)
{
    char detail[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(detail, sizeof detail, fmt, args);
    va_end(args);
    uint32_t step = ctx->job->log.step;
    bool last = step + 1 == ctx->job->log.job->n_steps;
    Drover__JobUpdate *update = last ? update_new(ctx, DROVER__JOB_STATE__JOB_SUCCEEDED, step)
                                     : update_new(ctx, DROVER__JOB_STATE__JOB_RUNNING, step + 1);
    job_update_step(update, step, DROVER__STEP_STATE__STEP_DONE, detail);
    if (!last)
        job_update_step(update, step + 1, DROVER__STEP_STATE__STEP_RUNNING, "");
    return update;
}

static void skip_rest(struct job_ctx *ctx, Drover__JobUpdate *update)
{
    for (uint32_t i = ctx->job->log.step + 1; i < ctx->job->log.job->n_steps; i++)
        job_update_step(update, i, DROVER__STEP_STATE__STEP_SKIPPED, "");
}

void job_fail(struct job_ctx *ctx, const struct err *err)
{
    bool undo = step_kind(ctx->job)->undo != NULL;
    uint32_t step = ctx->job->log.step;
    struct err why = *err;
    if (why.code == ERR_CANCELLED) /* by a host, for reasons of its own; nobody has cancelled the job */
        why.code = ERR_JOB_FAILED;
    Drover__JobUpdate *update =
        update_new(ctx, undo ? DROVER__JOB_STATE__JOB_CANCELLING : DROVER__JOB_STATE__JOB_FAILED, step);
    job_update_step(update, step, DROVER__STEP_STATE__STEP_FAILED, err->message);
    if (!undo)
        skip_rest(ctx, update);
    update->error = pb_error(&why);
}

Drover__JobUpdate *job_undone(struct job_ctx *ctx, const char *fmt, ...)
{
    char detail[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(detail, sizeof detail, fmt, args);
    va_end(args);
    const Drover__Job *job = ctx->job->log.job;
    uint32_t step = ctx->job->log.step;
    bool cancelled = job_cancelled(job);
    Drover__JobUpdate *update =
        update_new(ctx, cancelled ? DROVER__JOB_STATE__JOB_CANCELLED : DROVER__JOB_STATE__JOB_FAILED, step);
    if (job->steps[step]->state == DROVER__STEP_STATE__STEP_RUNNING)
        job_update_step(update, step, DROVER__STEP_STATE__STEP_UNDONE, detail);
    skip_rest(ctx, update);
    return update;
}

Drover__JobUpdate *job_resume(struct job_ctx *ctx, uint32_t step)
{
    Drover__JobUpdate *update = update_new(ctx, DROVER__JOB_STATE__JOB_RUNNING, step);
    struct err none = {.code = ERR_NONE};
    update->error = pb_error(&none);
    job_update_step(update, step, DROVER__STEP_STATE__STEP_RUNNING, "");
    return update;
}

Drover__JobUpdate *job_go_on_undoing(struct job_ctx *ctx)
{
    Drover__JobUpdate *update = job_resume(ctx, ctx->job->log.step);
    update->state = DROVER__JOB_STATE__JOB_CANCELLING;
    pb_free(update->error);
    update->error = NULL;
    return update;
}

Drover__JobData *job_update_data(struct job_ctx *ctx, Drover__JobUpdate *update)
{
    if (!update->data)
        update->data = pb_copy(ctx->job->log.data);
    return update->data;
}

void job_call(struct job_ctx *ctx, const char *host, uint32_t method, void *request, uint32_t deadline_ms)
{
    ctx->out->act = ACT_CALL;
    snprintf(ctx->out->host, sizeof ctx->out->host, "%s", host);
    ctx->out->method = method;
    ctx->out->request = request;
    ctx->out->deadline_ms = deadline_ms;
}

static void wait_for(struct job_ctx *ctx, uint32_t ms, const char *fmt, va_list args)
{
    ctx->out->act = ACT_WAIT;
    ctx->out->timer_ms = ms;
    vsnprintf(ctx->job->waiting, sizeof ctx->job->waiting, fmt, args);
}

void job_wait(struct job_ctx *ctx, uint32_t ms, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    wait_for(ctx, ms, fmt, args);
    va_end(args);
}

void job_back_off(struct job_ctx *ctx, const char *fmt, ...)
{
    uint32_t shift = ctx->job->attempts < 5 ? ctx->job->attempts : 5;
    ctx->job->attempts++;
    va_list args;
    va_start(args, fmt);
    wait_for(ctx, 150u << shift, fmt, args);
    va_end(args);
}

bool job_within(const struct job_ctx *ctx, uint32_t ms)
{
    return ctx->event->now_ms - ctx->job->since_ms < ms;
}

/* --- what several steps need --- */

bool job_cancelled(const Drover__Job *job)
{
    return job->error && err_from_name(job->error->code) == ERR_CANCELLED;
}

bool job_is_at(struct state *state, uint64_t job_id, const char *step)
{
    struct state_job job;
    if (!state_job(state, job_id, &job))
        return false;
    bool at = job.step < job.job->n_steps && strcmp(job.job->steps[job.step]->name, step) == 0;
    state_job_clear(&job);
    return at;
}

Drover__ActionKey *job_key(const struct job_ctx *ctx)
{
    Drover__ActionKey *key = pb_new(&drover__action_key__descriptor);
    key->job_id = ctx->job->log.job->id;
    key->step = ctx->job->log.step;
    key->created_ms = ctx->job->log.job->created_ms;
    return key;
}

bool job_vm(const struct job_ctx *ctx, struct state_vm *out)
{
    return state_vm(ctx->env->state, job_data(ctx)->vm_id, out);
}

static bool names_disk(struct state *state, const char *vm_id, const char *path)
{
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(state, vm_id);
    for (size_t i = 0; spec && i < spec->n_disks; i++)
        if (strcmp(spec->disks[i]->path, path) == 0)
            return true;
    return false;
}

bool job_disk_named(const struct job_ctx *ctx, const char *path, const char *except, char name[static STATE_NAME_MAX])
{
    bool found = false, more = true;
    char after[STATE_NAME_MAX] = "";
    while (more && !found) {
        struct state_vm *vms;
        size_t count = state_vms(ctx->env->state, after, VMS_AT_ONCE, &vms);
        for (size_t i = 0; i < count && !found; i++) {
            found = strcmp(vms[i].id, except) != 0 && names_disk(ctx->env->state, vms[i].id, path);
            if (found)
                snprintf(name, STATE_NAME_MAX, "%s", vms[i].name);
        }
        more = count == VMS_AT_ONCE;
        if (more)
            snprintf(after, sizeof after, "%s", vms[count - 1].name);
        free(vms);
    }
    return found;
}

bool job_host_ready(struct job_ctx *ctx, const char *name, struct job_host *out)
{
    struct err err;
    struct job_host host;
    if (!ctx->env->host(ctx->env->user, name, &host)) {
        err_set(&err, ERR_NOT_FOUND, "host %s does not exist; `drover host list` shows all", name);
        job_fail(ctx, &err);
        return false;
    }
    if (host.up && host.facts) {
        *out = host;
        return true;
    }
    if (job_within(ctx, JOB_SETTLE_MS)) {
        job_wait(ctx, 300, "waiting for host %s", name);
        return false;
    }
    err_set(&err, ERR_UNAVAILABLE, "host %s is not reachable; see `drover host list`", name);
    job_fail(ctx, &err);
    return false;
}

int job_host_stays(const char *name, const struct job_host *host, struct err *err)
{
    if (host->shutting_down)
        return err_set(err, ERR_WRONG_STATE,
            "host %s is being shut down and takes no guests until it is up again; choose another host", name);
    return 0;
}

bool job_hosts_missing(const struct job_ctx *ctx, const char *but)
{
    struct state_host *hosts;
    struct job_host known;
    bool missing = false;
    size_t count = state_hosts(ctx->env->state, "", SIZE_MAX >> 1, &hosts);
    for (size_t i = 0; i < count && !missing; i++)
        missing = strcmp(hosts[i].name, but) != 0 && !hosts[i].maintenance &&
                  (!ctx->env->host(ctx->env->user, hosts[i].name, &known) || (!known.up && !known.missed));
    free(hosts);
    return missing;
}

bool job_place(struct job_ctx *ctx, const struct state_vm *vm, const Drover__MigrationOptions *options,
    char host[static STATE_NAME_MAX], char reason[static JOB_REASON_MAX])
{
    struct err err;
    if (ctx->env->place(ctx->env->user, vm->id, vm->owner, options, &err, host, reason) == 0)
        return true;
    bool later = err.code == ERR_UNAVAILABLE || (err.code == ERR_CAPACITY && job_hosts_missing(ctx, vm->owner));
    if (later && job_within(ctx, JOB_SETTLE_MS))
        job_wait(ctx, 300, "%s", err.message);
    else
        job_fail(ctx, &err);
    return false;
}

int job_host_fits(const struct job_ctx *ctx, const char *name, const struct job_host *host, const struct state_vm *vm,
    struct err *err)
{
    uint64_t capacity = host->facts->capacity ? host->facts->capacity->memory_bytes : 0;
    uint64_t promised = state_memory_promised(ctx->env->state, name);
    if (capacity && (promised > capacity || vm->memory_bytes > capacity - promised))
        return err_set(err, ERR_CAPACITY,
            "host %s has %" PRIu64 " MiB of memory left, VM %s needs %" PRIu64 "; choose another host", name,
            (promised > capacity ? 0 : capacity - promised) >> 20, vm->name, vm->memory_bytes >> 20);
    return 0;
}

void job_call_end_partition(struct job_ctx *ctx, const char *host, uint64_t generation)
{
    Drover__PartitionStopRequest *request = pb_new(&drover__partition_stop_request__descriptor);
    request->key = job_key(ctx);
    pb_string(&request->vm_id, job_data(ctx)->vm_id);
    request->generation = generation;
    request->force = true;
    job_call(ctx, host, DROVER__METHOD__PARTITION_STOP, request, JOB_CALL_MS);
}
