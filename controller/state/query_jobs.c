/* Reads of jobs and their steps. */
#include <stdlib.h>

#include "controller/pb.h"
#include "controller/state/sql.h"

static void job_read_steps(struct state *state, uint64_t id, Drover__Job *job)
{
    sqlite3_stmt *row = sql_query(state,
        "SELECT name, state, started_ms, finished_ms, detail FROM job_steps WHERE job_id = ? ORDER BY number", "i",
        (int64_t)id);
    while (sql_row(row)) {
        Drover__JobStep *step = pb_new(&drover__job_step__descriptor);
        pb_string(&step->name, (const char *)sqlite3_column_text(row, 0));
        step->state = (Drover__StepState)sqlite3_column_int(row, 1);
        step->started_ms = sqlite3_column_int64(row, 2);
        step->finished_ms = sqlite3_column_int64(row, 3);
        pb_string(&step->detail, (const char *)sqlite3_column_text(row, 4));
        PB_ADD(job, steps, step);
    }
}

bool state_job(struct state *state, uint64_t id, struct state_job *out)
{
    sqlite3_stmt *row = sql_query(state,
        "SELECT kind, target, actor, reason, parent_id, state, created_ms, finished_ms, error, migration, data, step, "
        "revision"
        " FROM jobs WHERE id = ?",
        "i", (int64_t)id);
    if (!sql_row(row))
        return false;
    Drover__Job *job = pb_new(&drover__job__descriptor);
    job->id = id;
    job->kind = (Drover__JobKind)sqlite3_column_int(row, 0);
    pb_string(&job->target, (const char *)sqlite3_column_text(row, 1));
    pb_string(&job->actor, (const char *)sqlite3_column_text(row, 2));
    pb_string(&job->reason, (const char *)sqlite3_column_text(row, 3));
    job->parent_id = sql_u64(row, 4);
    job->state = (Drover__JobState)sqlite3_column_int(row, 5);
    job->created_ms = sqlite3_column_int64(row, 6);
    job->finished_ms = sqlite3_column_int64(row, 7);
    if (sqlite3_column_type(row, 8) != SQLITE_NULL)
        job->error = sql_message(row, 8, &drover__error_info__descriptor);
    if (sqlite3_column_type(row, 9) != SQLITE_NULL)
        job->migration = sql_message(row, 9, &drover__migration_record__descriptor);
    out->data = sql_message(row, 10, &drover__job_data__descriptor);
    out->step = (uint32_t)sqlite3_column_int64(row, 11);
    out->revision = sql_u64(row, 12);
    sql_end(row);
    job_read_steps(state, id, job);
    out->job = job;
    return true;
}

void state_job_clear(struct state_job *job)
{
    pb_free(job->job);
    pb_free(job->data);
    *job = (struct state_job){0};
}

static size_t job_refs(sqlite3_stmt *row, struct state_job_ref **out)
{
    struct state_job_ref *list = NULL;
    size_t count = 0;
    while (sql_row(row)) {
        if ((count & (count - 1)) == 0)
            list = mem_realloc(list, (count ? count * 2 : 1) * sizeof *list);
        list[count++] = (struct state_job_ref){.id = sql_u64(row, 0),
            .revision = sql_u64(row, 1),
            .kind = (Drover__JobKind)sqlite3_column_int(row, 2),
            .state = (Drover__JobState)sqlite3_column_int(row, 3)};
    }
    *out = list;
    return count;
}

size_t state_jobs_active(struct state *state, struct state_job_ref **out)
{
    return job_refs(
        sql_query(state, "SELECT id, revision, kind, state FROM jobs WHERE finished_ms IS NULL ORDER BY id", ""), out);
}

size_t state_jobs(struct state *state, uint64_t before_id, bool active_only, size_t limit, struct state_job_ref **out)
{
    int64_t below = before_id && before_id < INT64_MAX ? (int64_t)before_id : INT64_MAX;
    if (active_only)
        return job_refs(sql_query(state,
                            "SELECT id, revision, kind, state FROM jobs WHERE finished_ms IS NULL AND id < ? ORDER BY "
                            "id DESC LIMIT ?",
                            "ii", below, (int64_t)limit),
            out);
    return job_refs(sql_query(state, "SELECT id, revision, kind, state FROM jobs WHERE id < ? ORDER BY id DESC LIMIT ?",
                        "ii", below, (int64_t)limit),
        out);
}

bool state_job_child(struct state *state, uint64_t parent_id, const char *migration_id, struct state_job_ref *out)
{
    struct state_job_ref *list;
    size_t count =
        job_refs(sql_query(state, "SELECT id, revision, kind, state FROM jobs WHERE migration_id = ? AND parent_id = ?",
                     "ti", migration_id, (int64_t)parent_id),
            &list);
    if (count)
        *out = list[0];
    free(list);
    return count > 0;
}

size_t state_jobs_children(struct state *state, uint64_t parent_id, struct state_child **out)
{
    struct state_child *list = NULL;
    size_t count = 0;
    sqlite3_stmt *row =
        sql_query(state, "SELECT id, state, target FROM jobs WHERE parent_id = ? ORDER BY id", "i", (int64_t)parent_id);
    while (sql_row(row)) {
        if ((count & (count - 1)) == 0)
            list = mem_realloc(list, (count ? count * 2 : 1) * sizeof *list);
        list[count].id = sql_u64(row, 0);
        list[count].state = (Drover__JobState)sqlite3_column_int(row, 1);
        sql_text(row, 2, list[count++].target, sizeof list->target);
    }
    *out = list;
    return count;
}

uint64_t state_job_of_migration(struct state *state, const char *migration_id)
{
    return (uint64_t)sql_number(
        state, "SELECT id FROM jobs WHERE migration_id = ? AND finished_ms IS NULL", "t", migration_id);
}
