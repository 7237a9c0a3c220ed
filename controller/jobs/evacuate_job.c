/* host evacuate: maintenance -> moves. Everything that runs on the host is moved off it, by jobs of their own.
 *
 * There is no list of moves in the log: what is left to do is what the log says the host still owns, so a new leader, a
 * VM that came in the last moment and a move that failed need no care of their own. The plan is made anew whenever a
 * move has ended or a VM has come or gone, with the fleet as it is then, and every few seconds besides: for a large
 * host it takes tens of milliseconds of the leader's loop. How many are at work at once is decided where every
 * migration is let in (admission.h), and only one more than the host may send is made ahead of that. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/format.h"
#include "controller/jobs/step.h"

#define TRIES_MAX   2u /* of one VM: what failed twice stays */
#define LOOK_MS     1000u
#define PLAN_MS     5000u
#define AHEAD       1u
#define MOVES_ASKED 64u

struct progress {
    struct state_child *children; /* owned */
    size_t count, active, moved;
    struct state_vm *left;     /* owned: VMs the host still has */
    size_t left_count, held;   /* by a job: of these */
    struct state_vm *arriving; /* owned: VMs that it may be handed, because that was allowed before its maintenance */
    size_t arriving_count;
};

static struct progress progress_read(const struct job_ctx *ctx)
{
    struct progress p = {0};
    p.count = state_jobs_children(ctx->env->state, ctx->job->log.job->id, &p.children);
    for (size_t i = 0; i < p.count; i++) {
        Drover__JobState state = p.children[i].state;
        p.moved += state == DROVER__JOB_STATE__JOB_SUCCEEDED;
        p.active += state == DROVER__JOB_STATE__JOB_RUNNING || state == DROVER__JOB_STATE__JOB_CANCELLING;
    }
    p.left_count = state_vms_owned(ctx->env->state, ctx->job->log.job->target, &p.left);
    for (size_t i = 0; i < p.left_count; i++)
        p.held += p.left[i].job_id != 0;
    p.arriving_count = state_vms_arriving(ctx->env->state, ctx->job->log.job->target, &p.arriving);
    return p;
}

static void progress_free(struct progress *p)
{
    free(p->children);
    free(p->left);
    free(p->arriving);
}

static unsigned tries_of(const struct progress *p, const char *vm)
{
    unsigned tries = 0;
    for (size_t i = 0; i < p->count; i++)
        tries += strcmp(p->children[i].target, vm) == 0 && p->children[i].state != DROVER__JOB_STATE__JOB_SUCCEEDED;
    return tries;
}

uint64_t job_evacuation(struct state *state, const char *host)
{
    struct state_job_ref *jobs;
    size_t count = state_jobs_active(state, &jobs);
    uint64_t id = 0;
    for (size_t i = 0; i < count && !id; i++) {
        struct state_job job;
        if (jobs[i].kind != DROVER__JOB_KIND__JOB_HOST_EVACUATE || !state_job(state, jobs[i].id, &job))
            continue;
        id = strcmp(job.job->target, host) == 0 ? jobs[i].id : 0;
        state_job_clear(&job);
    }
    free(jobs);
    return id;
}

/* --- maintenance --- */

static void run_maintenance(struct job_ctx *ctx)
{
    struct err err;
    struct state_host host;
    const char *name = ctx->job->log.job->target;
    uint64_t first = job_evacuation(ctx->env->state, name);
    if (first != ctx->job->log.job->id) { /* two were asked for in the same moment */
        err_set(&err, ERR_BUSY, "host %s is being emptied by job %" PRIu64 " already", name, first);
        job_fail(ctx, &err);
        return;
    }
    if (!state_host(ctx->env->state, name, &host)) {
        err_set(&err, ERR_NOT_FOUND, "host %s does not exist any more", name);
        job_fail(ctx, &err);
        return;
    }
    Drover__JobUpdate *update = job_done(ctx, "host %s gets no VMs any more", name);
    job_update_data(ctx, update)->maintenance_before = host.maintenance;
    PB_ADD(update, effects, effect_host_maintenance(name, true));
}

/* --- moves --- */

/* Neither ids of jobs nor revisions of one are ever used twice within a cluster, so neither is this, whatever has been
 * forgotten of the moves made before; nor by another cluster, of which hosts may remember moves: it has the job's time.
 */
static Drover__JobCreate *move_create(const struct job_ctx *ctx, const struct job_move *move, size_t number)
{
    char id[STATE_ID_MAX];
    const Drover__Job *job = ctx->job->log.job;
    snprintf(id, sizeof id, "evacuate-%" PRIu64 "-%" PRId64 "-%" PRIu64 "-%zu", job->id, job->created_ms,
        ctx->job->log.revision, number);
    return job_migration_new(
        &(struct job_migration_order){move->vm_id, move->vm, job->target, move->to_host, id, job->actor, move->reason});
}

/* Makes as many moves as there is room for. False: none. */
static bool moves_make(struct job_ctx *ctx, const struct progress *p, const struct job_plan *plan)
{
    Drover__JobUpdate *update = NULL;
    size_t made = 0;
    for (size_t i = 0; i < plan->count && p->active + made < plan->at_once + AHEAD; i++) {
        if (!update)
            update = job_resume(ctx, ctx->job->log.step); /* the step goes on; its jobs are made with this */
        PB_ADD(update, effects, effect_job_create(move_create(ctx, &plan->moves[i], made)));
        made++;
    }
    return made > 0;
}

static void tell(struct job_ctx *ctx, const struct progress *p, const struct job_plan *plan)
{
    char left[FORMAT_MAX], busy[64] = "";
    for (size_t i = 0; i < p->left_count && !busy[0]; i++)
        if (p->left[i].job_id && p->active == 0)
            snprintf(busy, sizeof busy, "; waiting for job %" PRIu64, p->left[i].job_id);
    if (p->arriving_count && !busy[0])
        snprintf(busy, sizeof busy, "; waiting for job %" PRIu64 ", which moves a VM here", p->arriving[0].job_id);
    ctx->job->queued = true;
    job_wait(ctx, LOOK_MS, "%zu of %zu VMs moved, %zu on their way, about %s more%s", p->moved,
        p->moved + p->left_count, p->active, format_duration_ms((uint64_t)(plan->takes_s * 1000), left), busy);
}

static void fail_left(struct job_ctx *ctx, const struct progress *p, const struct job_plan *plan)
{
    struct err err;
    const char *host = ctx->job->log.job->target;
    const struct state_child *last = NULL;
    for (size_t i = 0; i < p->count; i++)
        if (p->children[i].state != DROVER__JOB_STATE__JOB_SUCCEEDED)
            last = &p->children[i];
    const char *plural = p->left_count == 1 ? "" : "s";
    if (p->left_count == 0)
        err_set(&err, ERR_WRONG_STATE,
            "host %s is not empty yet and stays in maintenance: VM %s may still be handed over to it", host,
            p->arriving[0].name);
    else if (plan->stuck[0])
        err_set(&err, ERR_CAPACITY, "host %s still has %zu VM%s and stays in maintenance: %s", host, p->left_count,
            plural, plan->stuck);
    else if (last)
        err_set(&err, ERR_JOB_FAILED,
            "host %s still has %zu VM%s and stays in maintenance: VM %s could not be moved; `drover job show %" PRIu64
            "` says why",
            host, p->left_count, plural, last->target, last->id);
    else
        err_set(&err, ERR_WRONG_STATE,
            "host %s still has %zu VM%s and stays in maintenance: VM %s is not reported as running", host,
            p->left_count, plural, p->left[0].name);
    job_fail(ctx, &err);
}

/* Somebody else's job on a VM is waited for; a VM that nobody works on and that cannot be moved ends the evacuation
 * once nothing else is under way. */
static bool others_work(const struct progress *p)
{
    for (size_t i = 0; i < p->left_count; i++)
        if (p->left[i].job_id)
            return true;
    for (size_t i = 0; i < p->arriving_count; i++)
        if (p->arriving[i].job_id)
            return true;
    return false;
}

/* What the plan lacks may yet be heard of. */
static bool too_early(const struct job_ctx *ctx, const struct progress *p, const struct job_plan *plan)
{
    if (plan->stuck[0])
        return job_within(ctx, JOB_SETTLE_MS) && job_hosts_missing(ctx, ctx->job->log.job->target);
    bool all_tried = p->left_count && p->left_count == plan->given_up_count;
    return plan->count == 0 && !all_tried && job_within(ctx, JOB_UNREACHABLE_MS);
}

/* While moves are on their way and all is as it was when the last plan was made, that one had no more to offer. Its
 * moves are not kept: they would be of a fleet that is no more. */
static bool plan_lasts(const struct job_ctx *ctx, const struct progress *p)
{
    const struct job *job = ctx->job;
    return p->active && job->evacuating.planned_ms && ctx->event->now_ms - job->evacuating.planned_ms < PLAN_MS &&
           job->evacuating.children == p->count && job->evacuating.active == p->active &&
           job->evacuating.moved == p->moved && job->evacuating.left == p->left_count &&
           job->evacuating.held == p->held;
}

/* What has been tried often enough. It would fill every plan of a large host, and nothing else would have its turn. */
static void give_up(const struct progress *p, struct job_plan *plan)
{
    plan->given_up = mem_zalloc((p->left_count + 1) * sizeof *plan->given_up);
    for (size_t i = 0; i < p->left_count; i++)
        if (tries_of(p, p->left[i].name) >= TRIES_MAX)
            plan->given_up[plan->given_up_count++] = p->left[i].name;
}

static void plan_make(struct job_ctx *ctx, const struct progress *p, struct job_plan *plan)
{
    struct job *job = ctx->job;
    uint64_t now_ms = ctx->event->now_ms;
    if (plan_lasts(ctx, p)) {
        double since_s = (double)(now_ms - job->evacuating.planned_ms) / 1000;
        plan->takes_s = job->evacuating.takes_s > since_s ? job->evacuating.takes_s - since_s : 0;
        return;
    }
    give_up(p, plan);
    if (p->left_count)
        ctx->env->evacuate(ctx->env->user, job->log.job->target, MOVES_ASKED, plan);
    job->evacuating.planned_ms = now_ms;
    job->evacuating.children = p->count;
    job->evacuating.active = p->active;
    job->evacuating.moved = p->moved;
    job->evacuating.left = p->left_count;
    job->evacuating.held = p->held;
    job->evacuating.takes_s = plan->takes_s;
}

static void run_moves(struct job_ctx *ctx)
{
    struct progress p = progress_read(ctx);
    struct job_plan plan = {0};
    if (ctx->event->type == JOB_OUTCOME) {
        progress_free(&p);
        return;
    }
    plan.moves = mem_zalloc(MOVES_ASKED * sizeof *plan.moves);
    plan_make(ctx, &p, &plan);
    if (ctx->event->type == JOB_REFUSED) /* a VM was taken by another job at that moment: look again */
        tell(ctx, &p, &plan);
    else if (p.left_count == 0 && p.arriving_count == 0 && p.active == 0)
        job_done(ctx, "%zu VM%s moved; host %s is empty", p.moved, p.moved == 1 ? "" : "s", ctx->job->log.job->target);
    else if (moves_make(ctx, &p, &plan))
        ;
    else if (p.active || others_work(&p) || too_early(ctx, &p, &plan))
        tell(ctx, &p, &plan);
    else
        fail_left(ctx, &p, &plan);
    free(plan.given_up);
    free(plan.moves);
    progress_free(&p);
}

/* A move that has not begun to send can be called off for nothing; one that has is let go on to its end. */
static bool not_begun(const struct job_ctx *ctx, const struct state_child *child)
{
    return child->state == DROVER__JOB_STATE__JOB_RUNNING &&
           (job_is_at(ctx->env->state, child->id, "preflight") || job_is_at(ctx->env->state, child->id, "queue"));
}

static void undone(struct job_ctx *ctx, const struct progress *p)
{
    const Drover__Job *job = ctx->job->log.job;
    struct state_host host;
    bool back =
        job_cancelled(job) && !job_data(ctx)->maintenance_before && state_host(ctx->env->state, job->target, &host);
    Drover__JobUpdate *update = job_undone(ctx, "no more moves; %zu VM%s moved before, and stay%s where %s%s", p->moved,
        p->moved == 1 ? " was" : "s were", p->moved == 1 ? "s" : "", p->moved == 1 ? "it is" : "they are",
        back ? "; the host takes VMs again" : "");
    if (back)
        PB_ADD(update, effects, effect_host_maintenance(job->target, false));
}

static void undo_moves(struct job_ctx *ctx)
{
    struct progress p = progress_read(ctx);
    Drover__JobUpdate *update = NULL;
    for (size_t i = 0; i < p.count && ctx->event->type != JOB_REFUSED; i++) {
        if (!not_begun(ctx, &p.children[i]))
            continue;
        if (!update)
            update = job_go_on_undoing(ctx);
        PB_ADD(update, effects, effect_job_cancel(p.children[i].id, ctx->job->log.job->actor));
    }
    if (!update && p.active) {
        ctx->job->queued = true;
        job_wait(ctx, LOOK_MS, "%zu VMs are on their way and go on to their end", p.active);
    } else if (!update) {
        undone(ctx, &p);
    }
    progress_free(&p);
}

const struct job_step_kind evacuate_steps[] = {
    {DROVER__JOB_KIND__JOB_HOST_EVACUATE, "maintenance", run_maintenance, NULL, false},
    {DROVER__JOB_KIND__JOB_HOST_EVACUATE, "moves", run_moves, undo_moves, true},
    {0},
};
