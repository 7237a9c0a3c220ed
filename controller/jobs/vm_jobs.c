/* Steps of vm create, start, stop and delete. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "controller/jobs/home.h"
#include "controller/jobs/step.h"
#include "controller/placement/baseline.h"
#include "proto/bounded.h"

#define NOT_KEPT "the VM is not kept"

static void fail_vm_gone(struct job_ctx *ctx)
{
    struct err err;
    err_set(&err, ERR_NOT_FOUND, "VM %s does not exist any more", ctx->job->log.job->target);
    job_fail(ctx, &err);
}

/* vm create: the VM came into the log with the job itself, so that a taken name is refused at once. */
static void run_create_record(struct job_ctx *ctx)
{
    struct state_vm vm;
    if (job_vm(ctx, &vm))
        job_done(ctx, "VM %s is recorded as %s", vm.name, vm.id);
    else
        fail_vm_gone(ctx);
}

static void undo_create_record(struct job_ctx *ctx)
{
    struct state_vm vm;
    Drover__JobUpdate *update = job_undone(ctx, NOT_KEPT);
    if (job_vm(ctx, &vm))
        PB_ADD(update, effects, effect_vm_delete(vm.id));
}

/* A VM that has never run gets the machine and the processor that every host of the cluster can provide, so that all of
 * its later hosts show it the same. Hosts that are down count too: they come back. NULL: nothing to decide. */
static Drover__Effect *pin(struct state *state, const struct state_vm *vm, const Drover__HostFacts *chosen)
{
    struct state_host *known;
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(state, vm->id);
    size_t count = state_hosts(state, "", SIZE_MAX >> 1, &known), told = 0;
    struct baseline_host *hosts = mem_zalloc((count + 1) * sizeof *hosts);
    char cpu[BASELINE_CPU_MAX] = "";
    for (size_t i = 0; i < count; i++) {
        hosts[told] = (struct baseline_host){known[i].name, state_host_facts(state, known[i].name)};
        told += hosts[told].facts != NULL;
    }
    const char *machine = baseline_machine(hosts, told);
    if (strcmp(chosen->accelerator, "kvm") != 0 || !baseline_cpu(hosts, told, "kvm", cpu))
        cpu[0] = '\0';
    bool open = (machine && !spec->machine_type[0]) || (cpu[0] && !spec->cpu_model[0]);
    Drover__Effect *effect = open ? effect_vm_pin(vm->id, machine ? machine : "", cpu) : NULL;
    for (size_t i = 0; i < told; i++)
        pb_free((void *)(uintptr_t)hosts[i].facts);
    free(hosts);
    free(known);
    return effect;
}

/* What keeps the VM from being started at home; NULL: nothing. */
static const char *away_from_home(
    struct job_ctx *ctx, const char *home, bool exists, const struct job_host *host, const struct state_vm *vm)
{
    struct err err;
    struct state_host known;
    if (!exists)
        return "is no host any more";
    if (!host->up || !host->facts)
        return "is not reachable";
    if (host->shutting_down)
        return "is being shut down";
    if (state_host(ctx->env->state, home, &known) && known.maintenance)
        return "is in maintenance";
    return job_host_fits(ctx, home, host, vm, &err) < 0 ? "has too little memory left" : NULL;
}

/* Any other host is the user's word to give: an older copy of the disks may lie there. */
static bool home_ready(struct job_ctx *ctx, const char *home, const struct state_vm *vm, struct job_host *out)
{
    struct err err;
    if (strcmp(home, HOME_UNKNOWN) == 0) {
        err_set(&err, ERR_WRONG_STATE,
            "which host has the newest disks of VM %s is not known since a move that was lost on its way; see which "
            "are "
            "newer, then name their host: `drover vm start %s --host HOST`",
            vm->name, vm->name);
        job_fail(ctx, &err);
        return false;
    }
    bool exists = ctx->env->host(ctx->env->user, home, out);
    const char *problem = away_from_home(ctx, home, exists, out, vm);
    if (problem && exists && !out->up && job_within(ctx, JOB_SETTLE_MS)) {
        job_wait(ctx, 300, "waiting for host %s, where its disks are", home);
    } else if (problem) {
        err_set(&err, exists && !out->up ? ERR_UNAVAILABLE : ERR_WRONG_STATE,
            "the disks of VM %s are on host %s, which %s; older copies of them may lie elsewhere. Where another host "
            "reaches the same files: `drover vm start %s --host HOST`",
            vm->name, home, problem, vm->name);
        job_fail(ctx, &err);
    }
    return !problem;
}

/* The host that the user names, now or with the definition; else where the VM's disks are; else what placement says.
 * False: the job waits, or has failed. */
static bool choose_host(struct job_ctx *ctx, const struct state_vm *vm, char name[static STATE_NAME_MAX],
    char reason[static JOB_REASON_MAX], struct job_host *host)
{
    struct err err;
    const char *asked = job_data(ctx)->host[0] ? job_data(ctx)->host : vm->generation == 0 ? vm->preferred_host : "";
    if (!asked[0] && home_of(ctx->env->state, vm->id, name)) {
        snprintf(reason, JOB_REASON_MAX, "its disks were moved there");
        return home_ready(ctx, name, vm, host);
    }
    if (!asked[0])
        return job_place(ctx, vm, NULL, name, reason) && job_host_ready(ctx, name, host);
    snprintf(name, STATE_NAME_MAX, "%s", asked);
    snprintf(reason, JOB_REASON_MAX, "as asked");
    if (!job_host_ready(ctx, name, host))
        return false;
    if (job_host_stays(name, host, &err) < 0 || job_host_fits(ctx, name, host, vm, &err) < 0) {
        job_fail(ctx, &err);
        return false;
    }
    return true;
}

/* Chooses the host; the grant goes into the log together with the choice. */
static void run_place(struct job_ctx *ctx)
{
    struct err err;
    struct state_vm vm;
    struct job_host host;
    char name[STATE_NAME_MAX], reason[JOB_REASON_MAX];
    if (!job_vm(ctx, &vm)) {
        fail_vm_gone(ctx);
        return;
    }
    if (vm.owner[0]) {
        err_set(&err, ERR_WRONG_STATE, "VM %s runs on host %s already", vm.name, vm.owner);
        job_fail(ctx, &err);
        return;
    }
    if (!choose_host(ctx, &vm, name, reason, &host))
        return;
    Drover__JobUpdate *update = job_done(ctx, "host %s: %s", name, reason);
    Drover__Effect *made = pin(ctx->env->state, &vm, host.facts);
    if (made)
        PB_ADD(update, effects, made);
    Drover__JobData *data = job_update_data(ctx, update);
    pb_string(&data->host, name);
    data->generation = vm.generation + 1;
    PB_ADD(update, effects, effect_vm_grant(vm.id, name, data->generation));
}

/* It has run there by now: what it writes is there and nowhere else. */
static void start_done(struct job_ctx *ctx)
{
    char home[STATE_NAME_MAX];
    const Drover__JobData *data = job_data(ctx);
    Drover__JobUpdate *update = job_done(ctx, "runs on host %s", data->host);
    if (home_of(ctx->env->state, data->vm_id, home) && strcmp(home, data->host) != 0)
        PB_ADD(update, effects, home_put(data->vm_id, data->host));
}

static void run_start(struct job_ctx *ctx)
{
    const struct job_event *event = ctx->event;
    const Drover__JobData *data = job_data(ctx);
    if (event->type == JOB_REPLY && !event->err) {
        start_done(ctx);
        return;
    }
    if (event->type == JOB_REPLY && (!err_retryable(event->err->code) || !job_within(ctx, JOB_UNREACHABLE_MS))) {
        job_fail(ctx, event->err);
        return;
    }
    if (event->type == JOB_REPLY) {
        job_back_off(ctx, "waiting for host %s: %.150s", data->host, event->err->message);
        return;
    }
    Drover__PartitionStartRequest *request = pb_new(&drover__partition_start_request__descriptor);
    request->key = job_key(ctx);
    pb_string(&request->vm_id, data->vm_id);
    request->generation = data->generation;
    request->spec = state_vm_spec(ctx->env->state, data->vm_id);
    if (!request->spec) {
        pb_free(request);
        fail_vm_gone(ctx);
        return;
    }
    job_call(ctx, data->host, DROVER__METHOD__PARTITION_START, request, JOB_CALL_MS);
}

/* The host may have begun: only its own word that nothing runs frees the VM, however long that takes. */
static void undo_start(struct job_ctx *ctx)
{
    struct state_vm vm;
    const Drover__JobData *data = job_data(ctx);
    bool create = ctx->job->log.job->kind == DROVER__JOB_KIND__JOB_VM_CREATE;
    bool exists = job_vm(ctx, &vm);
    bool granted = exists && data->host[0] && strcmp(vm.owner, data->host) == 0 && vm.generation == data->generation;
    if (granted && ctx->event->type != JOB_REPLY) {
        job_call_end_partition(ctx, data->host, data->generation);
        return;
    }
    if (granted && ctx->event->err) {
        job_back_off(
            ctx, "waiting until host %s has ended the partition: %.150s", data->host, ctx->event->err->message);
        return;
    }
    Drover__JobUpdate *update =
        job_undone(ctx, granted ? "ended on host %s" : "not started%s", granted ? data->host : "");
    if (granted)
        PB_ADD(update, effects, effect_vm_release(vm.id, vm.owner, vm.generation, ""));
    if (create)
        job_update_step(update, 0, DROVER__STEP_STATE__STEP_UNDONE, NOT_KEPT);
    if (create && exists)
        PB_ADD(update, effects, effect_vm_delete(vm.id));
}

static void run_stop(struct job_ctx *ctx)
{
    struct state_vm vm;
    const struct job_event *event = ctx->event;
    const Drover__JobData *data = job_data(ctx);
    if (!job_vm(ctx, &vm) || !vm.owner[0]) {
        job_done(ctx, "runs nowhere");
        return;
    }
    if (event->type == JOB_REPLY && !event->err) {
        Drover__PartitionStopReply *reply = BOUNDED_UNPACK(partition_stop_reply, event->body, event->len);
        Drover__JobUpdate *update = job_done(ctx, "ended on host %s%s%.200s", vm.owner,
            reply && reply->detail[0] ? ": " : "", reply ? reply->detail : "");
        PB_ADD(update, effects, effect_vm_release(vm.id, vm.owner, vm.generation, ""));
        pb_free(reply);
        return;
    }
    uint32_t grace_ms = data->grace_ms ? data->grace_ms : 30000;
    if (event->type == JOB_REPLY && err_retryable(event->err->code) && job_within(ctx, JOB_UNREACHABLE_MS + grace_ms)) {
        job_back_off(ctx, "waiting for host %s: %.150s", vm.owner, event->err->message);
        return;
    }
    if (event->type == JOB_REPLY) {
        job_fail(ctx, event->err);
        return;
    }
    Drover__PartitionStopRequest *request = pb_new(&drover__partition_stop_request__descriptor);
    request->key = job_key(ctx);
    pb_string(&request->vm_id, vm.id);
    request->generation = vm.generation;
    request->force = data->force;
    request->grace_ms = data->grace_ms;
    job_call(ctx, vm.owner, DROVER__METHOD__PARTITION_STOP, request, data->force ? JOB_CALL_MS : grace_ms + 15000);
}

/* A guest that may have been told to stop cannot be told otherwise. One that is ended at once is gone in moments: go
 * through with it, unless its host is away. One that shuts down may take long, or for ever, and somebody may want to
 * end it: its host goes on without this job, and the VM is released when it reports it gone. */
static void undo_stop(struct job_ctx *ctx)
{
    struct state_vm vm;
    struct job_host host;
    bool owned = job_vm(ctx, &vm) && vm.owner[0];
    bool failed = ctx->job->log.job->steps[ctx->job->log.step]->state == DROVER__STEP_STATE__STEP_FAILED;
    if (!owned || failed)
        job_undone(ctx, "not stopped");
    else if (!ctx->env->host(ctx->env->user, vm.owner, &host) || !host.up)
        job_undone(ctx, "host %s is away; if it was asked, it goes on stopping the guest", vm.owner);
    else if (job_data(ctx)->force)
        job_resume(ctx, ctx->job->log.step);
    else
        job_undone(
            ctx, "a guest that was asked goes on shutting down; `drover vm stop --force %s` ends it at once", vm.name);
}

static void run_delete(struct job_ctx *ctx)
{
    struct state_vm vm;
    if (!job_vm(ctx, &vm))
        job_done(ctx, "is gone already");
    else {
        Drover__JobUpdate *update = job_done(ctx, "VM %s is deleted", vm.name);
        char home[STATE_NAME_MAX];
        PB_ADD(update, effects, effect_vm_delete(vm.id));
        if (home_of(ctx->env->state, vm.id, home))
            PB_ADD(update, effects, home_put(vm.id, ""));
    }
}

const struct job_step_kind vm_steps[] = {
    {DROVER__JOB_KIND__JOB_VM_CREATE, "record", run_create_record, undo_create_record},
    {DROVER__JOB_KIND__JOB_VM_CREATE, "place", run_place, undo_start},
    {DROVER__JOB_KIND__JOB_VM_CREATE, "start", run_start, undo_start},
    {DROVER__JOB_KIND__JOB_VM_START, "place", run_place, NULL},
    {DROVER__JOB_KIND__JOB_VM_START, "start", run_start, undo_start},
    {DROVER__JOB_KIND__JOB_VM_STOP, "stop", run_stop, undo_stop},
    {DROVER__JOB_KIND__JOB_VM_DELETE, "delete", run_delete, NULL},
    {0},
};
