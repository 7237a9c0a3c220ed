/* Private to jobs/: the words in which steps say what comes next. Each fills the one action of this event. */
#ifndef CONTROLLER_JOBS_STEP_H
#define CONTROLLER_JOBS_STEP_H

#include "base/ensure.h"
#include "controller/jobs/job.h"
#include "controller/pb.h"
#include "controller/state/effect.h"
#include "proto/api.pb-c.h"

#define JOB_CALL_MS        30000u
#define JOB_SETTLE_MS      15000u /* how long a new leader gives hosts to come back */
#define JOB_UNREACHABLE_MS 60000u /* how long a step that can still fail waits for a host */

struct job_ctx {
    struct job *job;
    const struct job_env *env;
    const struct job_event *event;
    struct job_action *out;
};

typedef void (*job_handler)(struct job_ctx *ctx);

/* A step by its name, and what undoes a job that failed or was cancelled at it. No undo: there is nothing to undo yet.
 */
struct job_step_kind {
    Drover__JobKind kind;
    const char *name; /* NULL: any name */
    job_handler run, undo;
    bool refused_too; /* `run` is told when a commit of its own is refused, instead of the step's failing */
};
/* Each ended by run = NULL. */
extern const struct job_step_kind vm_steps[], migrate_steps[], storage_steps[], cluster_steps[], evacuate_steps[],
    apply_steps[];

static inline const Drover__JobData *job_data(const struct job_ctx *ctx)
{
    return ctx->job->log.data;
}

/* The step is done; the next begins, or the job has succeeded. The update may be given effects and data. */
Drover__JobUpdate *job_done(struct job_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The step has failed: undo, or end when there is nothing to undo. */
void job_fail(struct job_ctx *ctx, const struct err *err);
/* What was done is undone: the job ends as failed or cancelled. The update may be given effects. */
Drover__JobUpdate *job_undone(struct job_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The job goes on at step `step`, whatever failed or was asked before: it was too late to cancel. */
Drover__JobUpdate *job_resume(struct job_ctx *ctx, uint32_t step);
/* Undoing goes on at the present step, with what is added to the update; why it is being undone stays. */
Drover__JobUpdate *job_go_on_undoing(struct job_ctx *ctx);
/* The durable part's copy in the update, to be changed. */
Drover__JobData *job_update_data(struct job_ctx *ctx, Drover__JobUpdate *update);
/* Appends what becomes of step `number` to the update. */
void job_update_step(Drover__JobUpdate *update, uint32_t number, Drover__StepState state, const char *detail);

/* Asks a host; takes the request. */
void job_call(struct job_ctx *ctx, const char *host, uint32_t method, void *request, uint32_t deadline_ms);
/* Waits and says for what; JOB_TIMER comes after. */
void job_wait(struct job_ctx *ctx, uint32_t ms, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Waits a little longer each time it is called in vain. */
void job_back_off(struct job_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* True while the step has been waiting for less than `ms`. */
bool job_within(const struct job_ctx *ctx, uint32_t ms);

/* Somebody has cancelled the job; it did not fail. */
bool job_cancelled(const Drover__Job *job);
/* The job's present step has that name; no job that is not kept any more is at one. */
bool job_is_at(struct state *state, uint64_t job_id, const char *step);
/* The child runs, and can still be undone. */
bool job_may_cancel(struct state *state, const struct state_child *child);

/* The key of this job's present step. Take. */
Drover__ActionKey *job_key(const struct job_ctx *ctx);
/* The job's VM; false when it is gone. */
bool job_vm(const struct job_ctx *ctx, struct state_vm *out);
/* A VM whose definition names that file, e.g. an installation medium that several read; the VM `except` (empty: none)
 * does not count. Writes its name; false: there is none. */
bool job_disk_named(const struct job_ctx *ctx, const char *path, const char *except, char name[static STATE_NAME_MAX]);
/* A host may have been heard of before another one since this leader began: of those that take VMs, but for `but`, one
 * is not up. */
bool job_hosts_missing(const struct job_ctx *ctx, const char *but);
/* Where placement has the VM run, other than where it runs, and why. False: nowhere; the job waits while hosts may yet
 * be heard of, at most for JOB_SETTLE_MS, or has failed. */
bool job_place(struct job_ctx *ctx, const struct state_vm *vm, const Drover__MigrationOptions *options,
    char host[static STATE_NAME_MAX], char reason[static JOB_REASON_MAX]);
/* The host is up and told its facts: 1. Not yet: 0, and the job waits, or failed after JOB_SETTLE_MS. */
bool job_host_ready(struct job_ctx *ctx, const char *name, struct job_host *out);
/* ERR_WRONG_STATE: the host is being shut down. */
MUST_CHECK int job_host_stays(const char *name, const struct job_host *host, struct err *err);
/* Memory for the VM on the host: 0, or ERR_CAPACITY. */
MUST_CHECK int job_host_fits(const struct job_ctx *ctx, const char *name, const struct job_host *host,
    const struct state_vm *vm, struct err *err);
/* PARTITION_STOP of `generation` on `host`, at once. */
void job_call_end_partition(struct job_ctx *ctx, const char *host, uint64_t generation);

#endif
