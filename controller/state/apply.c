/* One log entry: decoded, recognized when it is a repetition, applied in one transaction, answered. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/ensure.h"
#include "controller/pb.h"
#include "controller/state/sql.h"
#include "proto/pbjson.h"

#define REQUESTS_KEPT 4096

static bool job_state_ended(Drover__JobState state)
{
    return state == DROVER__JOB_STATE__JOB_SUCCEEDED || state == DROVER__JOB_STATE__JOB_FAILED ||
           state == DROVER__JOB_STATE__JOB_CANCELLED;
}

/* Running and cancelling (undoing) may follow each other: what cannot be undone any more is gone through with. */
static bool job_state_may_become(Drover__JobState from, Drover__JobState to)
{
    bool active = from == DROVER__JOB_STATE__JOB_RUNNING || from == DROVER__JOB_STATE__JOB_CANCELLING;
    return active &&
           (to == DROVER__JOB_STATE__JOB_RUNNING || to == DROVER__JOB_STATE__JOB_CANCELLING || job_state_ended(to));
}

static void step_put(struct state *state, uint64_t job_id, uint32_t number, Drover__StepState step_state,
    const char *detail, int64_t now_ms)
{
    bool ended = step_state >= DROVER__STEP_STATE__STEP_DONE;
    sql_run(state,
        "UPDATE job_steps SET state = ?1, detail = ?2, started_ms = CASE WHEN started_ms = 0 THEN ?3 ELSE started_ms "
        "END,"
        " finished_ms = CASE WHEN ?4 THEN ?3 ELSE 0 END WHERE job_id = ?5 AND number = ?6",
        "itiiii", (int64_t)step_state, detail, now_ms, (int64_t)ended, (int64_t)job_id, (int64_t)number);
}

/* One active job per VM: the VM's row names the job that holds it. */
static int job_hold_vm(struct state *state, uint64_t job_id, const char *vm_id, struct err *err)
{
    struct state_vm vm;
    if (!state_vm(state, vm_id, &vm))
        return err_set(err, ERR_NOT_FOUND, "VM with id %.63s does not exist (any more)", vm_id);
    if (vm.job_id && vm.job_id != job_id) {
        char kind[64] = "";
        int64_t number = sql_number(state, "SELECT kind FROM jobs WHERE id = ?", "i", (int64_t)vm.job_id);
        snprintf(kind, sizeof kind, "%s", pbjson_enum(&drover__job_kind__descriptor, (int)number, (char[64]){0}));
        for (char *dash = kind; (dash = strchr(dash, '-')) != NULL;)
            *dash = ' ';
        return err_set(err, ERR_BUSY, "VM %s is busy with job %" PRIu64 " (%s); `drover job watch %" PRIu64 "`",
            vm.name, vm.job_id, kind, vm.job_id);
    }
    sql_run(state, "UPDATE vms SET job_id = ? WHERE id = ?", "it", (int64_t)job_id, vm_id);
    return 0;
}

int job_create(
    struct state *state, const Drover__JobCreate *c, uint64_t parent_id, int64_t now_ms, struct err *err, uint64_t *id)
{
    if (c->n_steps == 0 || !c->data)
        return err_set(err, ERR_INVALID, "a job needs steps and data");
    sql_run(state, "UPDATE meta SET value = value + 1 WHERE name = 'jobs'", "");
    uint64_t job_id = (uint64_t)sql_number(state, "SELECT value FROM meta WHERE name = 'jobs'", "");
    cleanup_buf struct buf data = {0};
    pb_pack(c->data, &data);
    int rc = sql_run(state,
        "INSERT INTO jobs (id, kind, target, actor, reason, parent_id, state, step, revision, created_ms, "
        "migration_id, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 1, ?, ?, ?)",
        "iitttiiinb", (int64_t)job_id, (int64_t)c->kind, c->target, c->actor, c->reason, (int64_t)parent_id,
        (int64_t)DROVER__JOB_STATE__JOB_RUNNING, now_ms, c->data->migration_id, data.data, data.len);
    ENSURE(rc == 1);
    for (size_t i = 0; i < c->n_steps; i++)
        sql_run(state, "INSERT INTO job_steps (job_id, number, name, state) VALUES (?, ?, ?, 0)", "iit",
            (int64_t)job_id, (int64_t)i, c->steps[i]);
    step_put(state, job_id, 0, DROVER__STEP_STATE__STEP_RUNNING, "", now_ms);
    if (effects_apply(state, c->effects, c->n_effects, job_id, now_ms, err) < 0)
        return -1;
    if (c->vm_id[0] && job_hold_vm(state, job_id, c->vm_id, err) < 0)
        return -1;
    *id = job_id;
    return 0;
}

/* The audit trail is bounded: the oldest jobs that have ended go first. */
static void jobs_prune(struct state *state)
{
    sql_run(state,
        "DELETE FROM jobs WHERE finished_ms IS NOT NULL AND id <= (SELECT value FROM meta WHERE name = 'jobs') - ?",
        "i", (int64_t)STATE_JOBS_KEPT);
}

static void job_put_blob(struct state *state, const char *sql, uint64_t id, const void *message)
{
    cleanup_buf struct buf packed = {0};
    pb_pack(message, &packed);
    sql_run(state, sql, "bi", packed.data, packed.len, (int64_t)id);
}

static void job_put_error(struct state *state, uint64_t id, const Drover__ErrorInfo *error)
{
    if (strcmp(error->code, err_name(ERR_NONE)) == 0)
        sql_run(state, "UPDATE jobs SET error = NULL WHERE id = ?", "i", (int64_t)id);
    else
        job_put_blob(state, "UPDATE jobs SET error = ? WHERE id = ?", id, error);
}

/* What the revision protects from: an update of a deposed leader, and one that did not see a cancel. */
static int job_for_update(struct state *state, uint64_t id, uint64_t revision, struct err *err, Drover__JobState *out)
{
    sqlite3_stmt *row = sql_query(state, "SELECT state, revision FROM jobs WHERE id = ?", "i", (int64_t)id);
    if (!sql_row(row))
        return err_set(err, ERR_NOT_FOUND, "job %" PRIu64 " does not exist; `drover job list` shows the latest", id);
    Drover__JobState job_state = (Drover__JobState)sqlite3_column_int(row, 0);
    uint64_t present = sql_u64(row, 1);
    sql_end(row);
    if (revision && revision != present)
        return err_set(err, ERR_WRONG_STATE, "job %" PRIu64 " has changed meanwhile", id);
    *out = job_state;
    return 0;
}

static int job_update(struct state *state, const Drover__JobUpdate *c, int64_t now_ms, struct err *err)
{
    Drover__JobState present;
    if (job_for_update(state, c->job_id, c->revision, err, &present) < 0)
        return -1;
    if (!job_state_may_become(present, c->state))
        return err_set(err, ERR_WRONG_STATE, "job %" PRIu64 " has ended", c->job_id);
    if (effects_apply(state, c->effects, c->n_effects, c->job_id, now_ms, err) < 0)
        return -1;
    for (size_t i = 0; i < c->n_steps; i++)
        step_put(state, c->job_id, c->steps[i]->number, c->steps[i]->state, c->steps[i]->detail, now_ms);
    if (c->error)
        job_put_error(state, c->job_id, c->error);
    if (c->migration)
        job_put_blob(state, "UPDATE jobs SET migration = ? WHERE id = ?", c->job_id, c->migration);
    if (c->data)
        job_put_blob(state, "UPDATE jobs SET data = ? WHERE id = ?", c->job_id, c->data);
    sql_run(state, "UPDATE jobs SET state = ?, step = ?, revision = revision + 1 WHERE id = ?", "iii",
        (int64_t)c->state, (int64_t)c->step, (int64_t)c->job_id);
    if (job_state_ended(c->state)) {
        sql_run(state, "UPDATE jobs SET finished_ms = ? WHERE id = ?", "ii", now_ms, (int64_t)c->job_id);
        sql_run(state, "UPDATE vms SET job_id = 0 WHERE job_id = ?", "i", (int64_t)c->job_id);
        jobs_prune(state);
    }
    return 0;
}

int job_cancel(struct state *state, const Drover__JobCancel *c, struct err *err)
{
    Drover__JobState present;
    if (job_for_update(state, c->job_id, 0, err, &present) < 0)
        return -1;
    if (job_state_ended(present))
        return err_set(err, ERR_WRONG_STATE, "job %" PRIu64 " has ended already (%s); nothing to cancel", c->job_id,
            pbjson_enum(&drover__job_state__descriptor, (int)present, (char[64]){0}));
    if (present == DROVER__JOB_STATE__JOB_CANCELLING)
        return 0;
    struct err why;
    err_set(&why, ERR_CANCELLED, "cancelled by %.63s", c->actor);
    cleanup_pb Drover__ErrorInfo *info = pb_error(&why);
    job_put_error(state, c->job_id, info);
    sql_run(state, "UPDATE jobs SET state = ?, revision = revision + 1 WHERE id = ?", "ii",
        (int64_t)DROVER__JOB_STATE__JOB_CANCELLING, (int64_t)c->job_id);
    return 0;
}

static int command_dispatch(
    struct state *state, const Drover__Command *c, struct err *err, Drover__CommandResult *result)
{
    uint64_t id = 0;
    switch (c->body_case) {
    case DROVER__COMMAND__BODY_JOB_CREATE:
        if (job_create(state, c->job_create, c->job_create->parent_id, c->now_ms, err, &id) < 0)
            return -1;
        result->job_id = id;
        return 0;
    case DROVER__COMMAND__BODY_JOB_UPDATE:
        result->job_id = c->job_update->job_id;
        return job_update(state, c->job_update, c->now_ms, err);
    case DROVER__COMMAND__BODY_JOB_CANCEL:
        result->job_id = c->job_cancel->job_id;
        return job_cancel(state, c->job_cancel, err);
    case DROVER__COMMAND__BODY_CHANGE:
        return effects_apply(state, c->change->effects, c->change->n_effects, 0, c->now_ms, err);
    default:
        return err_set(err, ERR_UNSUPPORTED, "a command this version does not know");
    }
}

/* Only successes are remembered: what was refused changed nothing and may be asked for again. */
static void request_remember(struct state *state, const char *id, const Drover__CommandResult *result)
{
    cleanup_buf struct buf packed = {0};
    pb_pack(result, &packed);
    sql_run(state, "UPDATE meta SET value = value + 1 WHERE name = 'requests'", "");
    sql_run(state,
        "INSERT INTO requests (number, id, result) VALUES ((SELECT value FROM meta WHERE name = 'requests'), ?, ?)",
        "tb", id, packed.data, packed.len);
    sql_run(state, "DELETE FROM requests WHERE number <= (SELECT value FROM meta WHERE name = 'requests') - ?", "i",
        (int64_t)REQUESTS_KEPT);
}

static Drover__CommandResult *request_find(struct state *state, const char *id)
{
    Drover__CommandResult *result = NULL;
    sqlite3_stmt *row = sql_query(state, "SELECT result FROM requests WHERE id = ?", "t", id);
    if (sql_row(row)) {
        result = sql_message(row, 0, &drover__command_result__descriptor);
        result->repeated = true;
        sql_end(row);
    }
    return result;
}

bool state_request(struct state *state, const char *request_id, uint64_t *job_id)
{
    cleanup_pb Drover__CommandResult *result = request_find(state, request_id);
    if (!result || !result->job_id)
        return false;
    *job_id = result->job_id;
    return true;
}

static Drover__CommandResult *command_apply(struct state *state, const Drover__Command *command)
{
    struct err err = {0};
    Drover__CommandResult *result = command->request_id[0] ? request_find(state, command->request_id) : NULL;
    if (result)
        return result;
    result = pb_new(&drover__command_result__descriptor);
    sql_run(state, "SAVEPOINT command", "");
    if (command_dispatch(state, command, &err, result) < 0) {
        sql_run(state, "ROLLBACK TO command", "");
        result->job_id = 0;
        result->error = pb_error(&err);
    } else if (command->request_id[0]) {
        request_remember(state, command->request_id, result);
    }
    sql_run(state, "RELEASE command", "");
    return result;
}

/* Too old for the cluster: leaving the command out would make this member's state another one than the others'. */
static void version_check(const Drover__Command *command)
{
    if (command->version <= STATE_SCHEMA)
        return;
    log_event(LOG_ERROR, "state.program-too-old",
        "needs_schema=%u has_schema=%u next_step=\"install the version that the other members run\"", command->version,
        STATE_SCHEMA);
    _exit(err_exit_status(ERR_UNSUPPORTED));
}

void state_apply(struct state *state, const uint8_t *entry, size_t len, struct buf *out)
{
    cleanup_pb Drover__Command *command = pb_unpack(&drover__command__descriptor, entry, len);
    cleanup_pb Drover__CommandResult *result = NULL;
    if (command) {
        version_check(command);
        result = command_apply(state, command);
    } else {
        struct err err;
        err_set(&err, ERR_PROTOCOL, "not a command");
        result = pb_new(&drover__command_result__descriptor);
        result->error = pb_error(&err);
    }
    pb_pack(result, out);
}
