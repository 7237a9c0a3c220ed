#include "controller/jobs/runner.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "controller/pb.h"
#include "proto/pbjson.h"

#define COMMIT_RETRY_MS     200
#define IMPOSSIBLE_RETRY_MS 10000

struct run {
    struct runner *runner;
    struct job job;
    uint64_t token; /* names the action under way; answers to earlier ones are ignored */
    struct loop_timer *timer;
    bool impossible;  /* the log would not take a commit of this revision, and the job was told */
    bool enter_again; /* the timer brings JOB_ENTER: a commit did not get through */
    bool waiting;     /* nothing is under way but the timer */
    struct run *next;
};

struct runner {
    struct runner_options options;
    struct run *runs;
    bool leader;
    uint64_t revision;
    uint64_t last_token;
    struct loop_timer *sync;
};

/* An answer on its way back to a run that may be gone by then. */
struct pending {
    struct runner *runner;
    uint64_t job_id, token;
};

static void run_event(struct run *run, struct job_event *event);

/* controller.STEP.WHAT; of the jobs that could leave two owners, or two files of one disk. */
static void run_crashpoint(const struct run *run, const char *what)
{
    static const char *const kinds[] = {
        [DROVER__JOB_KIND__JOB_VM_MIGRATE] = "",
        [DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE] = "storage-",
        [DROVER__JOB_KIND__JOB_HOST_EVACUATE] = "evacuate-",
    };
    const Drover__Job *job = run->job.log.job;
    char where[64];
    if (!crashpoint_watched || (size_t)job->kind >= sizeof kinds / sizeof *kinds || !kinds[job->kind] ||
        run->job.log.step >= job->n_steps)
        return;
    bool undo = job->state == DROVER__JOB_STATE__JOB_CANCELLING;
    snprintf(
        where, sizeof where, "controller.%s%s", kinds[job->kind], undo ? "undo" : job->steps[run->job.log.step]->name);
    crashpoint(where, what);
}

/* What the step has put into the log is applied here, and nothing follows from it yet. */
static void run_applied(const struct run *run)
{
    if (run->job.committing)
        run_crashpoint(run, "applied");
}

static struct run *run_find(const struct runner *runner, uint64_t id)
{
    struct run *run = runner->runs;
    while (run && run->job.log.job->id != id)
        run = run->next;
    return run;
}

static struct pending *pending_new(struct run *run)
{
    struct pending *pending = mem_zalloc(sizeof *pending);
    *pending = (struct pending){run->runner, run->job.log.job->id, run->token};
    return pending;
}

/* Frees it; the run if it still waits for this answer. */
static struct run *pending_end(struct pending *pending)
{
    struct run *run = run_find(pending->runner, pending->job_id);
    if (run && run->token != pending->token)
        run = NULL;
    free(pending);
    return run;
}

static void run_timer_fired(void *user)
{
    struct run *run = user;
    struct job_event event = {.type = run->enter_again ? JOB_ENTER : JOB_TIMER};
    run->enter_again = false;
    run->waiting = false;
    run_event(run, &event);
}

static void call_replied(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct run *run = pending_end(user);
    struct job_event event = {.type = JOB_REPLY, .err = err, .body = body, .len = len};
    if (run) {
        run_crashpoint(run, "answered");
        run_event(run, &event);
    }
}

/* The log will never take this entry, so the job gets JOB_REFUSED. False: the job had that before, and the entry that
 * it made in answer is refused as well. */
static bool commit_impossible(struct run *run, const struct err *err)
{
    log_event(
        LOG_WARN, "job.commit-refused", "job=%" PRIu64 " cause=%s", run->job.log.job->id, LOG_QUOTE(err->message));
    if (run->impossible)
        return false;
    run->impossible = true;
    struct job_event event = {.type = JOB_REFUSED, .err = err};
    run_event(run, &event);
    return true;
}

/* What was applied is noticed by runner_sync(); here only failures count. */
static void commit_done(void *user, const struct err *err, const Drover__CommandResult *result)
{
    struct run *run = pending_end(user);
    struct state_job now;
    if (!run || (!err && !result->error))
        return;
    run->job.committing = false;
    if (err && err->code == ERR_INVALID && commit_impossible(run, err))
        return;
    if (err) {
        run->enter_again = true;
        loop_timer_start(run->timer, run->impossible ? IMPOSSIBLE_RETRY_MS : COMMIT_RETRY_MS, 0);
        return;
    }
    if (!state_job(run->runner->options.env.state, run->job.log.job->id, &now))
        return;
    bool moved_on = now.revision != run->job.log.revision;
    state_job_clear(&now);
    if (moved_on) /* somebody else's change came first, e.g. a cancel; runner_sync() brings it */
        return;
    struct err refused;
    pb_error_get(result->error, &refused);
    struct job_event event = {.type = JOB_REFUSED, .err = &refused};
    run_event(run, &event);
}

static void run_act(struct run *run, struct job_action *action)
{
    const struct runner_options *o = &run->runner->options;
    if (action->act == ACT_KEEP)
        return;
    run->token = ++run->runner->last_token;
    run->enter_again = false;
    run->waiting = action->act == ACT_WAIT;
    loop_timer_stop(run->timer);
    switch (action->act) {
    case ACT_KEEP:
        break;
    case ACT_WAIT:
        loop_timer_start(run->timer, action->timer_ms, 0);
        break;
    case ACT_COMMIT: {
        Drover__Command *command = proposer_command();
        command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
        command->job_update = action->update;
        action->update = NULL;
        run->job.committing = true;
        o->submit(o->user, command, commit_done, pending_new(run));
        run_crashpoint(run, "proposed");
        break;
    }
    case ACT_CALL:
        o->call(o->user, action->host, action->method, action->request, action->deadline_ms, call_replied,
            pending_new(run));
        run_crashpoint(run, "called");
        break;
    case ACT_MEMBER_ADD:
        o->member_add(o->user, action->member, call_replied, pending_new(run));
        break;
    case ACT_MEMBER_REMOVE:
        o->member_remove(o->user, action->member->name, call_replied, pending_new(run));
        break;
    case ACT_MEMBER_WITHDRAW:
        o->member_withdraw(o->user, action->member, call_replied, pending_new(run));
        break;
    }
}

static void run_event(struct run *run, struct job_event *event)
{
    struct job_action action;
    event->now_ms = clock_now_ms();
    if (event->type == JOB_ENTER) {
        run->job.committing = false;
        run_crashpoint(run, "entered");
    }
    job_step(&run->job, &run->runner->options.env, event, &action);
    run_act(run, &action);
    job_action_clear(&action);
}

static void run_free(struct run *run)
{
    loop_timer_free(run->timer);
    job_clear(&run->job);
    free(run);
}

static void job_log(const struct state_job *job)
{
    const Drover__Job *j = job->job;
    log_event(j->error ? LOG_WARN : LOG_INFO, "job.ended",
        "job=%" PRIu64 " kind=%s target=%s state=%s ms=%" PRId64 " error=%s", j->id, LOG_QUOTE(job_kind_name(j->kind)),
        j->target, pbjson_enum(&drover__job_state__descriptor, (int)j->state, (char[64]){0}),
        j->finished_ms - j->created_ms, j->error ? LOG_QUOTE(j->error->message) : "none");
}

/* A job has ended: what waits for others looks again. Only a timer is ever under way for it. */
static void wake_queued(struct runner *runner)
{
    for (struct run *run = runner->runs; run; run = run->next)
        if (run->job.queued)
            loop_timer_start(run->timer, 0, 0);
}

/* Runs whose job has ended, or is gone, leave the list. */
static void drop_ended(struct runner *runner, const struct state_job_ref *active, size_t count)
{
    bool dropped = false;
    for (struct run **at = &runner->runs; *at;) {
        struct run *run = *at;
        bool found = false;
        for (size_t i = 0; i < count && !found; i++)
            found = active[i].id == run->job.log.job->id;
        if (found) {
            at = &run->next;
            continue;
        }
        run_applied(run);
        runner->revision++;
        *at = run->next;
        struct state_job ended;
        if (state_job(runner->options.env.state, run->job.log.job->id, &ended)) {
            job_log(&ended);
            runner->options.finished(runner->options.user, &ended);
            state_job_clear(&ended);
        }
        run_free(run);
        dropped = true;
    }
    if (dropped)
        wake_queued(runner);
}

static struct run *run_new(struct runner *runner)
{
    struct run *run = mem_zalloc(sizeof *run);
    run->runner = runner;
    run->timer = loop_timer_new(runner->options.loop, run_timer_fired, run);
    return run;
}

/* The present durable part; what is known besides stays. */
static void run_load(struct run *run, uint64_t id)
{
    run->runner->revision++;
    state_job_clear(&run->job.log);
    run->impossible = false;
    ENSURE(state_job(run->runner->options.env.state, id, &run->job.log));
}

/* The run of a job whose durable part is another than this leader knows; NULL: it is not. */
static struct run *take_up(struct runner *runner, const struct state_job_ref *active)
{
    struct run *run = run_find(runner, active->id);
    if (run && run->job.log.revision == active->revision)
        return NULL;
    if (run) {
        run_applied(run);
        run_load(run, active->id);
        return run;
    }
    run = run_new(runner);
    run_load(run, active->id);
    run->next = runner->runs;
    runner->runs = run;
    log_event(LOG_INFO, "job.taken-up", "job=%" PRIu64 " kind=%s target=%s step=%u", active->id,
        LOG_QUOTE(job_kind_name(active->kind)), run->job.log.job->target, run->job.log.step);
    return run;
}

/* All are taken up before the first goes on: who may begin is then decided once for all that ask. */
static void sync_now(void *user)
{
    struct runner *runner = user;
    struct state_job_ref *active;
    if (!runner->leader)
        return;
    size_t count = state_jobs_active(runner->options.env.state, &active), changed = 0;
    struct run **runs = mem_zalloc((count + 1) * sizeof(struct run *));
    drop_ended(runner, active, count);
    for (size_t i = 0; i < count; i++) {
        struct run *run = take_up(runner, &active[i]);
        if (run)
            runs[changed++] = run;
    }
    for (size_t i = 0; i < changed; i++) {
        struct job_event event = {.type = JOB_ENTER};
        run_event(runs[i], &event);
    }
    free(runs);
    free(active);
}

void runner_sync(struct runner *runner)
{
    if (runner->leader)
        loop_timer_start(runner->sync, 0, 0);
}

void runner_lead(struct runner *runner, bool leader)
{
    runner->leader = leader;
    runner->revision++;
    while (runner->runs) {
        struct run *run = runner->runs;
        runner->runs = run->next;
        run_free(run);
    }
    runner_sync(runner);
}

bool runner_outcome(struct runner *runner, const char *host, const Drover__MigrateOutcomeRequest *outcome)
{
    uint64_t id = state_job_of_migration(runner->options.env.state, outcome->migration_id);
    struct run *run = id ? run_find(runner, id) : NULL;
    struct job_event event = {.type = JOB_OUTCOME, .host = host, .outcome = outcome};
    crashpoint("controller", "outcome-told");
    if (run)
        run_event(run, &event);
    return id != 0;
}

void runner_host_back(struct runner *runner, const char *host)
{
    for (struct run *run = runner->runs; run; run = run->next) {
        const Drover__JobData *data = run->job.log.data;
        bool concerned = strcmp(data->from_host, host) == 0 || strcmp(data->host, host) == 0;
        if (!concerned || !run->waiting || run->job.attempts == 0)
            continue;
        run->job.attempts = 0;
        loop_timer_start(run->timer, 0, 0);
    }
}

static bool past_queue(const struct state_job *log)
{
    for (uint32_t i = 0; i < log->step && i < log->job->n_steps; i++)
        if (strcmp(log->job->steps[i]->name, "queue") == 0)
            return true;
    return false;
}

static int move_compare(const void *a, const void *b)
{
    const struct admission_move *x = a, *y = b;
    return x->job_id < y->job_id ? -1 : x->job_id > y->job_id;
}

size_t runner_moves(const struct runner *runner, struct admission_move **out)
{
    size_t count = 0, room = 0;
    for (const struct run *run = runner->runs; run; run = run->next)
        room++;
    struct admission_move *list = mem_zalloc((room + 1) * sizeof *list);
    for (const struct run *run = runner->runs; run; run = run->next) {
        const struct state_job *log = &run->job.log;
        if (log->job->kind != DROVER__JOB_KIND__JOB_VM_MIGRATE || log->step >= log->job->n_steps)
            continue;
        bool admitted = run->job.migrating.admitted || past_queue(log);
        bool waits =
            log->job->state == DROVER__JOB_STATE__JOB_RUNNING && strcmp(log->job->steps[log->step]->name, "queue") == 0;
        if (admitted || waits)
            list[count++] = (struct admission_move){log->job->id, log->data->from_host, log->data->host, admitted};
    }
    qsort(list, count, sizeof *list, move_compare);
    *out = list;
    return count;
}

uint64_t runner_revision(const struct runner *runner)
{
    return runner->revision;
}

const struct job *runner_job(const struct runner *runner, uint64_t id)
{
    const struct run *run = run_find(runner, id);
    return run ? &run->job : NULL;
}

struct runner *runner_new(const struct runner_options *options)
{
    struct runner *runner = mem_zalloc(sizeof *runner);
    runner->options = *options;
    runner->sync = loop_timer_new(options->loop, sync_now, runner);
    return runner;
}

void runner_free(struct runner *runner)
{
    if (!runner)
        return;
    runner_lead(runner, false);
    loop_timer_free(runner->sync);
    free(runner);
}
