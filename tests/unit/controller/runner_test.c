/* The shell around jobs, on a real loop with a log that commits at once and hosts that answer at once: jobs are taken
 * up, carried through, dropped with the leadership and taken up again; lost commits are made again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/loop.h"
#include "controller/jobs/runner.h"
#include "proto/api.pb-c.h"
#include "sim.h"
#include "tests/lib/until.h"

struct bench {
    uv_loop_t loop;
    struct sim sim;
    struct runner *runner;
    unsigned calls, commits, lost_commits, long_commits, finished;
    bool hold_calls; /* answers are kept back */
    wire_reply_fn held_fn;
    void *held_user;
};

/* Something that happens when the loop comes round. */
struct later {
    struct bench *bench;
    struct loop_timer *timer;
    proposer_fn committed;
    wire_reply_fn replied;
    void *user;
    char why[600];
};

static void later_fired(void *user)
{
    struct later *later = user;
    struct err err;
    Drover__CommandResult result = DROVER__COMMAND_RESULT__INIT;
    Drover__ErrorInfo info = DROVER__ERROR_INFO__INIT;
    loop_timer_free(later->timer);
    if (strcmp(later->why, "too long") == 0) {
        err_set(&err, ERR_INVALID, "an entry of 300000 bytes is longer than 262144");
        later->committed(later->user, &err, NULL);
    } else if (later->replied) {
        Drover__PartitionStopReply none = DROVER__PARTITION_STOP_REPLY__INIT;
        uint8_t body[16];
        later->replied(later->user, NULL, body, drover__partition_stop_reply__pack(&none, body));
    } else if (strcmp(later->why, "lost") == 0) {
        err_set(&err, ERR_UNAVAILABLE, "leadership was lost");
        later->committed(later->user, &err, NULL);
    } else {
        info.code = (char *)"wrong-state";
        info.message = later->why;
        result.error = later->why[0] ? &info : NULL;
        later->committed(later->user, NULL, &result);
    }
    free(later);
}

static struct later *later_new(struct bench *b)
{
    struct later *later = mem_zalloc(sizeof *later);
    later->bench = b;
    later->timer = loop_timer_new(&b->loop, later_fired, later);
    loop_timer_start(later->timer, 0, 0);
    return later;
}

static void bench_submit(void *user, Drover__Command *command, proposer_fn fn, void *fn_user)
{
    struct bench *b = user;
    struct later *later = later_new(b);
    later->committed = fn;
    later->user = fn_user;
    if (b->lost_commits || b->long_commits) {
        pb_free(command);
        snprintf(later->why, sizeof later->why, "%s", b->lost_commits ? "lost" : "too long");
        if (b->lost_commits)
            b->lost_commits--;
        else
            b->long_commits--;
        return;
    }
    b->commits++;
    const char *why = sim_apply(&b->sim, command, NULL);
    snprintf(later->why, sizeof later->why, "%s", why ? why : "");
    runner_sync(b->runner);
}

static void bench_call(void *user, const char *host, uint32_t method, const ProtobufCMessage *request,
    uint32_t deadline_ms, wire_reply_fn fn, void *fn_user)
{
    struct bench *b = user;
    (void)host, (void)method, (void)request, (void)deadline_ms;
    b->calls++;
    if (b->hold_calls) {
        b->held_fn = fn;
        b->held_user = fn_user;
        return;
    }
    struct later *later = later_new(b);
    later->replied = fn;
    later->user = fn_user;
}

static void bench_member(void *user, const Drover__MemberPut *member, replica_done_fn fn, void *fn_user)
{
    (void)user, (void)member, (void)fn, (void)fn_user;
}

static void bench_member_name(void *user, const char *name, replica_done_fn fn, void *fn_user)
{
    (void)user, (void)name, (void)fn, (void)fn_user;
}

static void bench_finished(void *user, const struct state_job *job)
{
    struct bench *b = user;
    assert_true(job->job->finished_ms != 0);
    b->finished++;
    uv_stop(&b->loop);
}

static void overdue(void *user)
{
    uv_stop(&((struct bench *)user)->loop);
}

static void bench_run(struct bench *b, uint64_t limit_ms)
{
    struct loop_timer *timer = loop_timer_new(&b->loop, overdue, b);
    loop_timer_start(timer, limit_ms, 0);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    loop_timer_free(timer);
}

static bool is_held(void *user)
{
    return ((struct bench *)user)->held_fn != NULL;
}

/* Until a host has been asked so often, and the last answer is kept back. */
static void await_call(struct bench *b, unsigned calls)
{
    assert_true(loop_until(&b->loop, is_held, b));
    assert_int_equal(b->calls, calls);
}

static bool no_host(void *user, const char *name, struct job_host *out)
{
    (void)user, (void)name, (void)out;
    return false;
}

static uint64_t stop_job(struct bench *b)
{
    return sim_job(&b->sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "vm-1", "", false));
}

static void bench_open(struct bench *b)
{
    *b = (struct bench){0};
    assert_int_equal(uv_loop_init(&b->loop), 0);
    sim_open(&b->sim);
    sim_running_vm(&b->sim, "vm-1", "web-1");
    struct runner_options options = {.loop = &b->loop,
        .env = {.state = b->sim.state, .user = b, .host = no_host},
        .user = b,
        .submit = bench_submit,
        .call = bench_call,
        .member_add = bench_member,
        .member_remove = bench_member_name,
        .member_withdraw = bench_member,
        .finished = bench_finished};
    b->runner = runner_new(&options);
}

static void bench_close(struct bench *b)
{
    if (b->held_fn) {
        struct err err;
        err_set(&err, ERR_CANCELLED, "closed");
        wire_reply_fn reply = b->held_fn;
        b->held_fn = NULL;
        reply(b->held_user, &err, NULL, 0);
        bench_run(b, 5000); /* the commit of that */
    }
    runner_free(b->runner);
    loop_close(&b->loop);
    sim_close(&b->sim);
}

static Drover__JobState state_of(struct bench *b, uint64_t id)
{
    struct state_job job;
    assert_true(state_job(b->sim.state, id, &job));
    Drover__JobState state = job.job->state;
    state_job_clear(&job);
    return state;
}

/* A job that waits for its host's answer, which is kept back. */
static uint64_t held_job(struct bench *b)
{
    b->hold_calls = true;
    runner_lead(b->runner, true);
    uint64_t id = stop_job(b);
    await_call(b, 1);
    return id;
}

static void job_is_carried_through(void **unused)
{
    (void)unused;
    struct bench b;
    bench_open(&b);
    runner_lead(b.runner, true);
    uint64_t id = stop_job(&b);
    runner_sync(b.runner);
    bench_run(&b, 5000);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_SUCCEEDED);
    assert_int_equal(b.calls, 1);
    assert_int_equal(b.finished, 1);
    assert_null(runner_job(b.runner, id));
    bench_close(&b);
}

static void only_the_leader_runs_jobs(void **unused)
{
    (void)unused;
    struct bench b;
    bench_open(&b);
    uint64_t id = stop_job(&b);
    runner_sync(b.runner);
    bench_run(&b, 50);
    assert_int_equal(b.calls, 0);
    runner_lead(b.runner, true);
    bench_run(&b, 5000);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_SUCCEEDED);
    bench_close(&b);
}

static void lost_commit_is_made_again(void **unused)
{
    (void)unused;
    struct bench b;
    bench_open(&b);
    b.lost_commits = 2;
    runner_lead(b.runner, true);
    uint64_t id = stop_job(&b);
    bench_run(&b, 5000);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_SUCCEEDED);
    assert_int_equal(b.commits, 1);
    bench_close(&b);
}

/* What the log does not take is not tried again for ever. */
static void a_commit_that_is_too_long_fails_the_job(void **unused)
{
    (void)unused;
    struct bench b;
    bench_open(&b);
    b.long_commits = 1;
    runner_lead(b.runner, true);
    uint64_t id = stop_job(&b);
    bench_run(&b, 5000);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_FAILED);
    assert_int_equal(b.commits, 2); /* that it fails, and that nothing is left to undo */
    bench_close(&b);
}

/* An answer that comes after the leadership was lost, even after it was won again, is nobody's. */
static void late_answer_is_ignored(void **unused)
{
    (void)unused;
    struct bench b;
    bench_open(&b);
    uint64_t id = held_job(&b);
    wire_reply_fn late = b.held_fn;
    void *late_user = b.held_user;
    b.held_fn = NULL;
    runner_lead(b.runner, false);
    assert_null(runner_job(b.runner, id));
    runner_lead(b.runner, true);
    await_call(&b, 2);
    late(late_user, NULL, (const uint8_t *)"", 0);
    bench_run(&b, 50);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_RUNNING);
    b.held_fn(b.held_user, NULL, (const uint8_t *)"", 0);
    b.held_fn = NULL;
    bench_run(&b, 5000);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_SUCCEEDED);
    bench_close(&b);
}

/* A cancel that comes into the log while a step waits is noticed at once. */
static void cancel_interrupts_a_wait(void **unused)
{
    (void)unused;
    struct bench b;
    bench_open(&b);
    uint64_t id = held_job(&b);
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_CANCEL;
    command->job_cancel = pb_new(&drover__job_cancel__descriptor);
    command->job_cancel->job_id = id;
    assert_null(sim_apply(&b.sim, command, NULL));
    runner_sync(b.runner);
    bench_run(&b, 5000);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_CANCELLED);
    bench_close(&b);
}

/* A host that has called an order off for reasons of its own has not cancelled the job. */
static void what_a_host_calls_off_has_failed(void **unused)
{
    (void)unused;
    struct bench b;
    struct err off;
    bench_open(&b);
    uint64_t id = held_job(&b);
    err_set(&off, ERR_CANCELLED, "the daemon was started anew");
    wire_reply_fn reply = b.held_fn;
    b.held_fn = NULL;
    reply(b.held_user, &off, NULL, 0);
    bench_run(&b, 5000);
    assert_int_equal(state_of(&b, id), DROVER__JOB_STATE__JOB_FAILED);
    bench_close(&b);
}

/* One that is asked in vain is asked less and less often, but at once when it is back. */
static void a_host_that_is_back_is_asked_at_once(void **unused)
{
    (void)unused;
    struct bench b;
    struct err away;
    const unsigned times = 12; /* which would take most of a minute */
    bench_open(&b);
    b.hold_calls = true;
    runner_lead(b.runner, true);
    sim_job(&b.sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "vm-1", "h1", false));
    err_set(&away, ERR_UNAVAILABLE, "host h1 is not connected");
    for (unsigned i = 1; i < times; i++) {
        while (!b.held_fn)
            uv_run(&b.loop, UV_RUN_ONCE);
        assert_int_equal(b.calls, i);
        wire_reply_fn reply = b.held_fn;
        b.held_fn = NULL;
        reply(b.held_user, &away, NULL, 0);
        runner_host_back(b.runner, "h2"); /* not its concern */
        runner_host_back(b.runner, "h1");
        uv_run(&b.loop, UV_RUN_NOWAIT);
        assert_non_null(b.held_fn);
    }
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_is_carried_through),
        cmocka_unit_test(only_the_leader_runs_jobs),
        cmocka_unit_test(lost_commit_is_made_again),
        cmocka_unit_test(a_commit_that_is_too_long_fails_the_job),
        cmocka_unit_test(late_answer_is_ignored),
        cmocka_unit_test(cancel_interrupts_a_wait),
        cmocka_unit_test(what_a_host_calls_off_has_failed),
        cmocka_unit_test(a_host_that_is_back_is_asked_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
