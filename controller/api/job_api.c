/* Jobs and the optimizer. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "controller/api/call.h"
#include "controller/random.h"

#define LIST_DEFAULT 50u
#define LIST_MAX     1000u

/* Rounds are told only where one job is asked for. The id is of a job that exists. */
static Drover__Job *job_without_rounds(struct controller *c, uint64_t id)
{
    Drover__Job *job = api_job_message(c, id);
    ENSURE(job != NULL);
    for (size_t r = 0; job->migration && r < job->migration->n_rounds; r++)
        pb_free(job->migration->rounds[r]);
    if (job->migration)
        job->migration->n_rounds = 0;
    return job;
}

static void job_list(struct api_call *call)
{
    const Drover__JobListRequest *request = (const void *)call->message;
    struct err err;
    struct state_job_ref *refs = NULL;
    cleanup_pb Drover__JobListReply *reply = pb_new(&drover__job_list_reply__descriptor);
    if (request->id) {
        Drover__Job *job = api_job_message(call->c, request->id);
        if (!job) {
            err_set(
                &err, ERR_NOT_FOUND, "job %" PRIu64 " does not exist; `drover job list` shows the latest", request->id);
            api_fail(call, &err);
            return;
        }
        PB_ADD(reply, jobs, job);
        api_reply(call, reply);
        return;
    }
    uint32_t limit = request->limit ? api_limit(request->limit, LIST_MAX) : LIST_DEFAULT;
    size_t count = state_jobs(call->c->state, request->before_id, request->active_only, limit + 1, &refs);
    size_t used = 0;
    bool room = true;
    for (size_t i = 0; i < count && i < limit && room; i++) {
        PB_ADD(reply, jobs, job_without_rounds(call->c, refs[i].id));
        room = api_room(&used, reply->jobs[i]);
    }
    reply->more = reply->n_jobs < count;
    free(refs);
    api_reply(call, reply);
}

static void cancel_submitted(void *user, const struct err *err, const Drover__CommandResult *result);

/* The job may change while the cancel is on its way: a plan fails, and lets its moves go on; a move ends by itself, and
 * has the cancel of all refused. So this looks again until no move is left to be cancelled; there are fewer each time.
 */
static bool cancel_moves(struct api_call *call)
{
    const Drover__JobCancelRequest *request = (const void *)call->message;
    Drover__Command *command = proposer_command();
    if (job_cancel_command(call->c->state, request->id, call->actor.name, command)) {
        proposer_submit(call->c->replica, command, cancel_submitted, call);
        return true;
    }
    pb_free(command);
    return false;
}

static void cancel_submitted(void *user, const struct err *err, const Drover__CommandResult *result)
{
    struct api_call *call = user;
    struct err why;
    if (!err && cancel_moves(call))
        return;
    if (!err && !result->error) {
        api_reply_job(call, ((const Drover__JobCancelRequest *)(const void *)call->message)->id);
        return;
    }
    if (err)
        why = *err;
    else
        pb_error_get(result->error, &why);
    api_fail(call, &why);
}

static void job_cancel(struct api_call *call)
{
    const Drover__JobCancelRequest *request = (const void *)call->message;
    Drover__Command *command = proposer_command();
    struct err err;
    if (!request->disk[0]) {
        job_cancel_command(call->c->state, request->id, call->actor.name, command);
    } else if (job_settle_command(call->c->state, request->id, call->actor.name, request->disk, &err, command) < 0) {
        pb_free(command);
        api_fail(call, &err);
        return;
    }
    proposer_submit(call->c->replica, command, cancel_submitted, call);
}

static void optimizer_status(struct api_call *call)
{
    cleanup_pb Drover__OptimizerStatusReply *reply = pb_new(&drover__optimizer_status_reply__descriptor);
    placement_status(call->c->placement, clock_now_ms(), clock_wall_ms(), reply);
    api_reply(call, reply);
}

static void optimizer_plan_moves(struct api_call *call)
{
    cleanup_pb Drover__OptimizerPlanReply *reply = pb_new(&drover__optimizer_plan_reply__descriptor);
    struct placement_move *all = mem_zalloc(OPTIMIZER_MOVES_MAX * sizeof *all);
    placement_plan(call->c->placement, clock_now_ms(), clock_wall_ms(), reply, all, OPTIMIZER_MOVES_MAX);
    free(all);
    api_reply(call, reply);
}

static void optimizer_apply(struct api_call *call)
{
    cleanup_pb Drover__OptimizerPlanReply *plan = pb_new(&drover__optimizer_plan_reply__descriptor);
    cleanup_free struct placement_move *moves = mem_zalloc(OPTIMIZER_MOVES_MAX * sizeof *moves);
    size_t count =
        placement_plan(call->c->placement, clock_now_ms(), clock_wall_ms(), plan, moves, OPTIMIZER_MOVES_MAX);
    Drover__JobCreate *create = api_job_new(DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY, "cluster");
    pb_string(&create->reason, plan->verdict);
    for (size_t i = 0; i < count; i++) {
        char id[RANDOM_UUID];
        random_uuid(id);
        Drover__PlannedMove *move = pb_new(&drover__planned_move__descriptor);
        pb_string(&move->vm_id, moves[i].vm_id);
        pb_string(&move->vm, moves[i].vm);
        pb_string(&move->to_host, moves[i].to_host);
        pb_string(&move->reason, moves[i].reason);
        pb_string(&move->migration_id, id);
        PB_ADD(create->data, moves, move);
        PB_ADD(create, steps, mem_printf("move %s to %s", moves[i].vm, moves[i].to_host));
    }
    if (count == 0)
        PB_ADD(create, steps, mem_strdup("nothing to do"));
    api_job(call, create);
}

static void optimizer_set(struct api_call *call)
{
    const Drover__OptimizerSetRequest *request = (const void *)call->message;
    Drover__JobCreate *create =
        api_job_new(DROVER__JOB_KIND__JOB_OPTIMIZER_SET, request->automatic ? "automatic" : "manual");
    PB_ADD(create->data, effects, effect_setting_put("optimizer.automatic", request->automatic ? "true" : "false"));
    job_add_steps(create, false);
    api_job(call, create);
}

const struct api_method api_job_methods[] = {
    {DROVER__METHOD__JOB_LIST, API_READ, &drover__job_list_request__descriptor, job_list},
    {DROVER__METHOD__JOB_CANCEL, API_CHANGE, &drover__job_cancel_request__descriptor, job_cancel},
    {DROVER__METHOD__OPTIMIZER_STATUS, API_READ, &drover__optimizer_status_request__descriptor, optimizer_status},
    {DROVER__METHOD__OPTIMIZER_PLAN, API_READ, &drover__optimizer_plan_request__descriptor, optimizer_plan_moves},
    {DROVER__METHOD__OPTIMIZER_APPLY, API_CHANGE, &drover__optimizer_apply_request__descriptor, optimizer_apply},
    {DROVER__METHOD__OPTIMIZER_SET, API_CHANGE, &drover__optimizer_set_request__descriptor, optimizer_set},
    {0},
};
