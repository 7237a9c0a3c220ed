/* What cancels a job. Once it is undone, the log takes no second cancel of it; but a plan that has failed lets its
 * moves go on to their end, and whoever cancels it then means those. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "controller/jobs/step.h"

/* In its last step a move cannot be undone any more: a cancel would only have it begin that step anew. */
bool job_may_cancel(struct state *state, const struct state_child *child)
{
    return child->state == DROVER__JOB_STATE__JOB_RUNNING && !job_is_at(state, child->id, "finish");
}

/* NULL: nothing of that kind is under way. */
static Drover__Change *cancel_moves(struct state *state, uint64_t plan_id, const char *actor)
{
    struct state_child *children;
    Drover__Change *change = pb_new(&drover__change__descriptor);
    size_t count = state_jobs_children(state, plan_id, &children);
    for (size_t i = 0; i < count; i++)
        if (job_may_cancel(state, &children[i]))
            PB_ADD(change, effects, effect_job_cancel(children[i].id, actor));
    free(children);
    if (change->n_effects)
        return change;
    pb_free(change);
    return NULL;
}

static bool has_failed(struct state *state, uint64_t job_id)
{
    struct state_job job;
    if (!state_job(state, job_id, &job))
        return false;
    bool failed = job.job->state == DROVER__JOB_STATE__JOB_CANCELLING && !job_cancelled(job.job);
    state_job_clear(&job);
    return failed;
}

bool job_cancel_command(struct state *state, uint64_t job_id, const char *actor, Drover__Command *command)
{
    Drover__Change *change = has_failed(state, job_id) ? cancel_moves(state, job_id, actor) : NULL;
    if (change) {
        command->body_case = DROVER__COMMAND__BODY_CHANGE;
        command->change = change;
        return true;
    }
    command->body_case = DROVER__COMMAND__BODY_JOB_CANCEL;
    command->job_cancel = pb_new(&drover__job_cancel__descriptor);
    command->job_cancel->job_id = job_id;
    pb_string(&command->job_cancel->actor, actor);
    return false;
}

static int settle_check(const struct state_job *job, const char *disk, struct err *err)
{
    const Drover__StorageMove *move = job->data->storage;
    const Drover__Job *j = job->job;
    if (j->state != DROVER__JOB_STATE__JOB_RUNNING && j->state != DROVER__JOB_STATE__JOB_CANCELLING)
        return err_set(err, ERR_WRONG_STATE, "job %" PRIu64 " has ended already; nothing to cancel", j->id);
    if (j->kind != DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE || !move || job->step >= j->n_steps ||
        strcmp(j->steps[job->step]->name, "copy") != 0)
        return err_set(err, ERR_WRONG_STATE, "job %" PRIu64 " is not copying a disk; leave out --disk", j->id);
    if (strcmp(disk, move->disk) != 0 && strcmp(disk, move->target) != 0)
        return err_set(err, ERR_INVALID, "'%.200s' is neither %.200s nor %.200s", disk, move->disk, move->target);
    return 0;
}

int job_settle_command(struct state *state, uint64_t job_id, const char *actor, const char *disk, struct err *err,
    Drover__Command *command)
{
    struct state_job job;
    struct err cancelled;
    if (!state_job(state, job_id, &job))
        return err_set(
            err, ERR_NOT_FOUND, "job %" PRIu64 " does not exist; `drover job list` shows the latest", job_id);
    int rc = settle_check(&job, disk, err);
    if (rc == 0) {
        Drover__JobUpdate *update = pb_new(&drover__job_update__descriptor);
        update->job_id = job_id;
        update->revision = job.revision;
        update->state = DROVER__JOB_STATE__JOB_CANCELLING;
        update->step = job.step;
        update->data = pb_copy(job.data);
        pb_string(&update->data->storage->settled, disk);
        err_set(&cancelled, ERR_CANCELLED,
            "cancelled by %.63s, who says that %.300s is the disk, should nothing else tell", actor, disk);
        update->error = pb_error(&cancelled);
        command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
        command->job_update = update;
    }
    state_job_clear(&job);
    return rc;
}
