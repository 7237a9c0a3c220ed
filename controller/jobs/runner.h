/* The shell around job_step(): loads unfinished jobs when this member begins to lead, does what each step decides, and
 * brings back what happens. It holds no truth of its own: runner_sync() compares it with the applied state after every
 * entry, so a job that came, changed or ended by whatever way is noticed. Nothing a job waits for holds up another job.
 * One thread. */
#ifndef CONTROLLER_JOBS_RUNNER_H
#define CONTROLLER_JOBS_RUNNER_H

#include <uv.h>

#include "controller/jobs/admission.h"
#include "controller/jobs/job.h"
#include "controller/proposer.h"

struct runner_options {
    uv_loop_t *loop;
    struct job_env env;
    void *user;
    /* Each answers exactly once, never from inside the call. */
    void (*submit)(void *user, Drover__Command *command, proposer_fn fn, void *fn_user); /* takes the command */
    void (*call)(void *user, const char *host, uint32_t method, const ProtobufCMessage *request, uint32_t deadline_ms,
        wire_reply_fn fn, void *fn_user);
    void (*member_add)(void *user, const Drover__MemberPut *member, replica_done_fn fn, void *fn_user);
    void (*member_remove)(void *user, const char *name, replica_done_fn fn, void *fn_user);
    void (*member_withdraw)(void *user, const Drover__MemberPut *member, replica_done_fn fn, void *fn_user);
    /* A job has ended; lent. */
    void (*finished)(void *user, const struct state_job *job);
};

struct runner;
/* Copies the options. Take: runner_free(), after everything it called has answered or never will. */
struct runner *runner_new(const struct runner_options *options);
void runner_free(struct runner *runner);

/* Leadership began or ended. */
void runner_lead(struct runner *runner, bool leader);
/* An entry has been applied: jobs are looked at as soon as the loop comes round. */
void runner_sync(struct runner *runner);
/* A host told the outcome of a migration. False: no job waits for it. */
bool runner_outcome(struct runner *runner, const char *host, const Drover__MigrateOutcomeRequest *outcome);
/* A host has begun a session: jobs that asked it in vain ask again now. */
void runner_host_back(struct runner *runner, const char *host);
/* The migrations that are at work or wait to be, by job id. Take: free(); names are lent until the runner does
 * anything. */
size_t runner_moves(const struct runner *runner, struct admission_move **out);
/* Another one whenever what runner_moves() says may be another, but for who is let in. */
uint64_t runner_revision(const struct runner *runner);
/* What this leader knows of an unfinished job besides the log; NULL: nothing. Lent. */
const struct job *runner_job(const struct runner *runner, uint64_t id);

#endif
