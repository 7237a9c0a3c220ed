/* The step `preflight` of a migration: where to, and whether that is possible. Both hosts look at what only they can
 * see (files, switches, memory), then all checks are made at once; what they find goes into the job, whatever comes of
 * it.
 *
 *   choose the target -> the source looks -> the destination looks -> placement/preflight.h decides */
#include <inttypes.h>
#include <string.h>

#include "base/format.h"
#include "controller/jobs/migrate.h"
#include "controller/placement/preflight.h"
#include "proto/bounded.h"
#include "proto/limits.h"

#define SETTLE_WAIT_MS 300u
#define QUEUE_LOOK_MS  5000u  /* the runner wakes it when a job ends; this is for what else may change, as the limits */
#define CHECK_CALL_MS  15000u /* storage may be slow to answer */

enum preflight_phase {
    PREFLIGHT_CHOOSE,
    PREFLIGHT_SOURCE,      /* the source has been asked to look */
    PREFLIGHT_DESTINATION, /* the destination has been asked */
};

/* What is asked about: present as long as the job's VM runs where it is to leave. */
struct preflight_facts {
    struct state_vm vm;
    struct job_host from, to;
};

/* Where to: what was asked for, or what placement says. False: the job waits or has failed. */
static bool choose_target(struct job_ctx *ctx, const struct state_vm *vm)
{
    struct job *job = ctx->job;
    if (job->phase != PREFLIGHT_CHOOSE)
        return true;
    snprintf(job->migrating.target, sizeof job->migrating.target, "%s", job_data(ctx)->host);
    snprintf(job->migrating.target_reason, sizeof job->migrating.target_reason, "as asked");
    if (job->migrating.target[0])
        return true;
    return job_place(ctx, vm, job_data(ctx)->options, job->migrating.target, job->migrating.target_reason);
}

/* The VM runs on one host, and the other is there. False: the job waits or has failed. */
static bool facts_gather(struct job_ctx *ctx, struct preflight_facts *out)
{
    struct err err;
    struct job_partition partition;
    const char *name = ctx->job->log.job->target;
    if (!job_vm(ctx, &out->vm) || !out->vm.owner[0]) {
        err_set(&err, ERR_WRONG_STATE, "VM %s does not run; start it first: `drover vm start %s`", name, name);
        job_fail(ctx, &err);
        return false;
    }
    if (!job_host_ready(ctx, out->vm.owner, &out->from) || !choose_target(ctx, &out->vm) ||
        !job_host_ready(ctx, ctx->job->migrating.target, &out->to))
        return false;
    bool runs = ctx->env->partition(ctx->env->user, out->vm.owner, out->vm.id, &partition) &&
                partition.state == DROVER__PARTITION_STATE__PARTITION_RUNNING &&
                partition.generation == out->vm.generation;
    if (!runs && job_within(ctx, JOB_SETTLE_MS)) {
        job_wait(ctx, SETTLE_WAIT_MS, "waiting until host %s reports VM %s as running", out->vm.owner, name);
        return false;
    }
    err.code = ERR_NONE;
    if (!runs)
        err_set(&err, ERR_WRONG_STATE, "VM %s is not reported as running by host %s; see `drover vm show %s`", name,
            out->vm.owner, name);
    else if (strcmp(out->vm.owner, ctx->job->migrating.target) == 0)
        err_set(
            &err, ERR_INVALID, "VM %s is on host %s already; choose another host", name, ctx->job->migrating.target);
    if (err.code == ERR_NONE)
        return true;
    job_fail(ctx, &err);
    return false;
}

static void call_check(struct job_ctx *ctx, const char *host, enum preflight_phase phase)
{
    Drover__MigrateCheckRequest *request = pb_new(&drover__migrate_check_request__descriptor);
    request->spec = state_vm_spec(ctx->env->state, job_data(ctx)->vm_id);
    if (phase == PREFLIGHT_DESTINATION && migrate_takes_disks(ctx) && request->spec)
        migrate_disks_leave_out(request->spec);
    ctx->job->phase = phase;
    job_call(ctx, host, DROVER__METHOD__MIGRATE_CHECK, request, CHECK_CALL_MS);
}

/* Takes what a host saw. False: it has not answered, and the job asks again or has failed. A host of a version that
 * cannot look is believed. */
static bool check_take(struct job_ctx *ctx, const char *host, Drover__MigrateCheckReply **out)
{
    const struct job_event *event = ctx->event;
    pb_free(*out);
    *out = NULL;
    if (!event->err)
        *out = BOUNDED_UNPACK(migrate_check_reply, event->body, event->len);
    if (*out || (event->err && event->err->code == ERR_UNSUPPORTED))
        return true;
    if (event->err && err_retryable(event->err->code) && job_within(ctx, JOB_UNREACHABLE_MS)) {
        job_back_off(ctx, "waiting for host %s: %.150s", host, event->err->message);
        return false;
    }
    struct err err;
    if (event->err)
        err = *event->err;
    else
        err_set(&err, ERR_PROTOCOL, "host %s did not say what it sees of the VM", host);
    job_fail(ctx, &err);
    return false;
}

/* What a move leaves open, the VM's definition says, and the cluster what that leaves open. Whoever made the move:
 * a user, an evacuation or the optimizer. */
static void options_complete(Drover__MigrationOptions *options, const Drover__VmSpec *spec)
{
    if (options->max_downtime_ms == 0)
        options->max_downtime_ms = spec->max_downtime_ms ? spec->max_downtime_ms : LIMITS_DOWNTIME_DEFAULT_MS;
    if (options->mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_DEFAULT)
        options->mode = spec->migration_mode;
    if (options->on_no_convergence == DROVER__MIGRATION_STUCK__MIGRATION_STUCK_DEFAULT)
        options->on_no_convergence = spec->on_no_convergence;
}

static void findings_put(struct job_ctx *ctx, const struct preflight *found)
{
    Drover__JobData *data = job_update_data(ctx, ctx->out->update);
    while (data->n_findings)
        pb_free(data->findings[--data->n_findings]);
    for (size_t i = 0; i < found->count; i++)
        PB_ADD(data, findings, pb_copy(found->findings[i]));
}

static void done(struct job_ctx *ctx, const struct preflight_facts *facts, const Drover__VmSpec *spec, size_t warnings)
{
    struct state_host host;
    struct err err;
    const struct job *job = ctx->job;
    char more[64] = "", key[KEY_TEXT];
    if (!state_host(ctx->env->state, job->migrating.target, &host)) {
        err_set(&err, ERR_NOT_FOUND, "host %s does not exist; `drover host list` shows all", job->migrating.target);
        job_fail(ctx, &err);
        return;
    }
    if (warnings)
        snprintf(more, sizeof more, "; %zu warning%s", warnings, warnings == 1 ? "" : "s");
    const Drover__MigrationOptions *asked = job_data(ctx)->options;
    const char *tracker = preflight_tracker(facts->from.facts, asked ? asked->tracker : NULL);
    Drover__JobUpdate *update = job_done(ctx, "from host %s to host %s: %s; pages tracked by %.32s%s", facts->vm.owner,
        job->migrating.target, job->migrating.target_reason, tracker, more);
    Drover__JobData *data = job_update_data(ctx, update);
    pb_string(&data->from_host, facts->vm.owner);
    pb_string(&data->host, job->migrating.target);
    data->generation = facts->vm.generation;
    key_format(host.public_key, key);
    pb_string(&data->destination_key, key);
    if (!data->options)
        data->options = pb_new(&drover__migration_options__descriptor);
    if (job->migrating.disks)
        data->disks = pb_copy(job->migrating.disks);
    pb_string(&data->options->tracker, tracker); /* both hosts must know, and go by the same */
    options_complete(data->options, spec);
}

static void decide(struct job_ctx *ctx, const struct preflight_facts *facts)
{
    struct err err;
    struct preflight found;
    struct state_host target = {0};
    const struct job *job = ctx->job;
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(ctx->env->state, facts->vm.id);
    if (migrate_takes_disks(ctx) && migrate_disks_plan(ctx->job, spec, &err) < 0) {
        job_fail(ctx, &err);
        return;
    }
    if (migrate_takes_disks(ctx))
        migrate_disks_leave_out(spec);
    const Drover__Capacity *capacity = facts->to.facts->capacity;
    uint64_t promised = state_memory_promised(ctx->env->state, job->migrating.target);
    uint64_t room = capacity ? capacity->memory_bytes : 0;
    bool known = state_host(ctx->env->state, job->migrating.target, &target);
    struct preflight_input input = {
        .vm = facts->vm.name,
        .spec = spec,
        .from = {facts->vm.owner, facts->from.facts, job->migrating.check_source, false, false},
        .to = {job->migrating.target, facts->to.facts, job->migrating.check_destination, known && target.maintenance,
            facts->to.shutting_down},
        .room_known = room != 0,
        .room_bytes = room > promised ? room - promised : 0,
    };
    preflight_options(&input, job_data(ctx)->options);
    preflight_run(&input, &found);
    if (found.refusals) {
        preflight_error(&found, &err);
        job_fail(ctx, &err);
    } else {
        done(ctx, facts, spec, found.count);
    }
    findings_put(ctx, &found);
    preflight_clear(&found);
}

void migrate_preflight(struct job_ctx *ctx)
{
    struct job *job = ctx->job;
    struct preflight_facts facts;
    if (ctx->event->type == JOB_OUTCOME || !facts_gather(ctx, &facts))
        return;
    if (ctx->event->type != JOB_REPLY) {
        bool destination = job->phase == PREFLIGHT_DESTINATION;
        call_check(ctx, destination ? job->migrating.target : facts.vm.owner,
            destination ? PREFLIGHT_DESTINATION : PREFLIGHT_SOURCE);
    } else if (job->phase == PREFLIGHT_SOURCE) {
        if (check_take(ctx, facts.vm.owner, &job->migrating.check_source))
            call_check(ctx, job->migrating.target, PREFLIGHT_DESTINATION);
    } else if (check_take(ctx, job->migrating.target, &job->migrating.check_destination)) {
        decide(ctx, &facts);
    }
}

/* The step `queue`: there is a limit to how many migrations a host bears. It is the last one before anything is done.
 */
void migrate_queue(struct job_ctx *ctx)
{
    char reason[256], waited[FORMAT_MAX];
    struct job *job = ctx->job;
    if (ctx->event->type == JOB_OUTCOME)
        return;
    job->migrating.admitted = job->migrating.admitted || ctx->env->admit(ctx->env->user, job->log.job->id, reason);
    if (job->migrating.admitted) {
        uint64_t waited_ms = ctx->event->now_ms - job->since_ms;
        job_done(ctx, waited_ms ? "waited for %s" : "at once%.0s", format_duration_ms(waited_ms, waited));
        return;
    }
    job->queued = true;
    job_wait(ctx, QUEUE_LOOK_MS, "%s", reason);
}
