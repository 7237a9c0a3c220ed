/* Private to jobs/: what the steps of a migration and their undoing share. */
#ifndef CONTROLLER_JOBS_MIGRATE_H
#define CONTROLLER_JOBS_MIGRATE_H

#include "controller/jobs/step.h"

#define MIGRATE_POLL_MS     2000u
#define MIGRATE_CALL_MS     10000u
#define MIGRATE_LOST_MS     120000u /* without a word from the source, the destination is made to decide */
#define MIGRATE_RECORD_MS   2000u   /* how long a source has to hear that all is over, and to tell what it has seen */
#define MIGRATE_HEARD_MS    150u    /* how long the end of a job waits for the guest's first frame, at most */
#define MIGRATE_FAREWELL_MS 10000u  /* how long the end of a job waits for a host whose part no longer matters */
#define MIGRATE_NOTE_MAX    512     /* bytes of what is added to a step's detail */
#define MIGRATE_NEXT_MAX    384     /* bytes of what is to be done next, in words */

/* The step `preflight`: nothing has been done yet, and nothing is to be undone. */
void migrate_preflight(struct job_ctx *ctx);
/* The step `queue`, likewise. */
void migrate_queue(struct job_ctx *ctx);

/* MIGRATE_QUERY to the job's source or destination host. */
void migrate_ask_source(struct job_ctx *ctx);
void migrate_ask_destination(struct job_ctx *ctx, bool fence);
/* MIGRATE_CANCEL, where the destination is gone for good: the source engine cannot tell that from a lost connection
 * behind which its pages are needed, so it would ask on. */
void migrate_tell_source(struct job_ctx *ctx);
/* Takes in the answer to a query or a cancel of `side`; false when there is none, or nonsense (`err` says). */
bool migrate_note_reply(struct job_ctx *ctx, struct job_side *side, struct err *err);
/* The source has said that its engine sends, or that it has handed over and asks on. */
bool migrate_source_at_work(const struct job *job);
/* The source has said it, and nothing later. */
bool migrate_source_is(const struct job *job, Drover__MigrationOutcome outcome);
/* The destination owns the VM, or the source knows it from the destination. */
bool migrate_taken(const struct job *job);
/* Commits that the destination owns the VM: `move` is done, `finish` begins. */
void migrate_commit_taken(struct job_ctx *ctx);
/* Puts the record, as far as it is known, into the update. */
void migrate_update_record(struct job_ctx *ctx, Drover__JobUpdate *update);

/* migrate_disks.c: taking the disks along. */
bool migrate_takes_disks(const struct job_ctx *ctx);
/* What is left of the spec where only the disks that stay are to be looked at. */
void migrate_disks_leave_out(Drover__VmSpec *spec);
/* From what the source saw: job->migrating.disks. Leaves those disks out of what it saw. */
MUST_CHECK int migrate_disks_plan(struct job *job, const Drover__VmSpec *spec, struct err *err);
/* Puts them into the request to prepare. */
void migrate_disks_prepare(const struct job_ctx *ctx, Drover__MigratePrepareRequest *request);
/* The definition names the new files from the command on in which the owner changes. */
void migrate_disks_taken(const struct job_ctx *ctx, Drover__JobUpdate *update);
/* Asks the source to remove the old files that no other VM names; false: they stay, or there are none. */
bool migrate_disks_leave(struct job_ctx *ctx);
/* Says which of them another VM names; empty: none. Returns `out`. */
const char *migrate_disks_kept(const struct job_ctx *ctx, char out[static MIGRATE_NOTE_MAX]);

/* What is to be done before the VM is started again where the destination may have run it, in words. */
void migrate_disks_next(const struct job_ctx *ctx, char out[static MIGRATE_NEXT_MAX]);

void migrate_undo(struct job_ctx *ctx);
/* The step of a dry run. */
void migrate_run_forecast(struct job_ctx *ctx);
/* Cancelled in `finish`: the VM has moved, so go on. */
void migrate_undo_finish(struct job_ctx *ctx);

#endif
