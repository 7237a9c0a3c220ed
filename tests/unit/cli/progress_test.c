/* What is told of a job as it goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/progress.h"
#include "cli/wait.h"

static Drover__JobStep prepare, move;
static Drover__JobStep *steps[] = {&prepare, &move};
static Drover__MigrationProgress migration;
static Drover__ErrorInfo error;
static Drover__Job job;

static int make(void **state)
{
    (void)state;
    drover__job_step__init(&prepare);
    drover__job_step__init(&move);
    drover__migration_progress__init(&migration);
    drover__error_info__init(&error);
    drover__job__init(&job);
    prepare.name = (char *)"prepare";
    move.name = (char *)"move";
    job.id = 12;
    job.kind = DROVER__JOB_KIND__JOB_VM_MIGRATE;
    job.target = (char *)"web-1";
    job.reason = (char *)"h1 is hot";
    job.state = DROVER__JOB_STATE__JOB_RUNNING;
    job.steps = steps;
    job.n_steps = 2;
    return 0;
}

static void news(struct progress *progress, bool running, const char *expected)
{
    cleanup_buf struct buf out = {0};
    progress_news(progress, &job, running, &out);
    assert_string_equal(buf_str(&out), expected);
}

static void current(const char *expected)
{
    cleanup_buf struct buf out = {0};
    progress_current(&job, &out);
    assert_string_equal(buf_str(&out), expected);
}

static void goes_to_move(void)
{
    prepare.state = DROVER__STEP_STATE__STEP_DONE;
    prepare.started_ms = 1000;
    prepare.finished_ms = 1120;
    prepare.detail = (char *)"h2 listens";
    move.state = DROVER__STEP_STATE__STEP_RUNNING;
    job.progress = &migration;
}

static void one_line_per_change_without_a_terminal(void **state)
{
    (void)state;
    struct progress p = {0};
    prepare.state = DROVER__STEP_STATE__STEP_RUNNING;
    news(&p, true, "job 12: vm-migrate web-1 (h1 is hot)\n  prepare       running\n");
    news(&p, true, "");
    goes_to_move();
    news(&p, true, "  prepare       done in 120 ms: h2 listens\n  move          running\n");
    migration.phase = (char *)"precopy";
    migration.round = 1;
    migration.remaining_bytes = 200 << 20;
    news(&p, true, "  move          round 1, 200 MiB left\n");
    migration.remaining_bytes = 100 << 20; /* the same round: nothing new to tell */
    news(&p, true, "");
    migration.round = 2;
    migration.bandwidth_bytes_per_s = 100 << 20;
    news(&p, true, "  move          round 2, 100 MiB left, 100 MiB/s, about 1.0 s more\n");
    migration.round = 0; /* the source has said all it had to say, and the destination has nothing to */
    news(&p, true, "");
    move.state = DROVER__STEP_STATE__STEP_FAILED;
    move.detail = (char *)"the guest writes too fast";
    news(&p, true, "  move          failed: the guest writes too fast\n");
    news(&p, true, "");
}

static void on_a_terminal_the_running_step_is_the_last_line(void **state)
{
    (void)state;
    struct progress p = {0};
    prepare.state = DROVER__STEP_STATE__STEP_RUNNING;
    news(&p, false, "job 12: vm-migrate web-1 (h1 is hot)\n");
    current("  prepare       running");
    goes_to_move();
    news(&p, false, "  prepare       done in 120 ms: h2 listens\n");
    current("  move          beginning");
    migration.phase = (char *)"precopy";
    migration.elapsed_ms = 2345;
    current("  move          precopy, 2.0 s so far");
    migration.elapsed_ms = 0;
    migration.phase = (char *)"switching";
    migration.round = 3;
    migration.remaining_bytes = 10 << 20;
    migration.bandwidth_bytes_per_s = 50 << 20;
    current("  move          round 3, switching, 10.0 MiB left, 50.0 MiB/s, about 200 ms more");
    migration.dirty_pages_per_s = 20000; /* 78 MiB/s */
    current("  move          round 3, switching, 10.0 MiB left, 50.0 MiB/s, the guest writes as fast");
    job.state = DROVER__JOB_STATE__JOB_CANCELLING;
    migration.round = 0;
    current("  move          switching (cancelling)");
    move.state = DROVER__STEP_STATE__STEP_UNDONE;
    current("");
}

static void absurd_figures_do_no_harm(void **state)
{
    (void)state;
    struct progress p = {0};
    goes_to_move();
    migration.round = UINT32_MAX;
    migration.remaining_bytes = migration.bandwidth_bytes_per_s = migration.dirty_pages_per_s = UINT64_MAX;
    prepare.started_ms = 5;
    prepare.finished_ms = -5;
    job.n_steps = 0;
    news(&p, true, "job 12: vm-migrate web-1 (h1 is hot)\n");
    current("");
    job.n_steps = 2;
    prepare.state = (Drover__StepState)77;
    cleanup_buf struct buf out = {0};
    progress_news(&p, &job, true, &out);
    assert_non_null(strstr(buf_str(&out), "prepare"));
    Drover__JobStep *many[PROGRESS_STEPS_MAX + 9];
    for (size_t i = 0; i < PROGRESS_STEPS_MAX + 9; i++)
        many[i] = &move;
    job.steps = many;
    job.n_steps = PROGRESS_STEPS_MAX + 9;
    progress_news(&p, &job, true, &out);
    job.steps = steps;
}

static void a_failed_job_names_cause_and_next_step(void **state)
{
    (void)state;
    struct err err = {0};
    job.state = DROVER__JOB_STATE__JOB_SUCCEEDED;
    assert_int_equal(wait_verdict(&job, &err), 0);
    job.state = DROVER__JOB_STATE__JOB_FAILED;
    move.state = DROVER__STEP_STATE__STEP_FAILED;
    assert_int_equal(wait_verdict(&job, &err), -1);
    assert_string_equal(err.message,
        "vm-migrate web-1: job 12 failed in step move (internal): no cause was recorded; 'drover job "
        "show 12' has the steps");
    job.error = &error;
    error.code = (char *)"no-convergence";
    error.message = (char *)"the guest dirties 90 MiB/s";
    assert_int_equal(wait_verdict(&job, &err), -1);
    assert_int_equal(err.code, ERR_JOB_FAILED);
    assert_string_equal(err.message,
        "vm-migrate web-1: job 12 failed in step move (no-convergence): the guest dirties 90 MiB/s; "
        "'drover help vm migrate' says what --max-downtime and --mode do");
    error.message = (char *)"no host is up; see `drover host list`"; /* which is a next step already */
    assert_int_equal(wait_verdict(&job, &err), -1);
    assert_string_equal(err.message,
        "vm-migrate web-1: job 12 failed in step move (no-convergence): no host is up; see `drover host list`");
    job.state = DROVER__JOB_STATE__JOB_CANCELLED;
    assert_int_equal(wait_verdict(&job, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_string_equal(err.message, "vm-migrate web-1: job 12 was cancelled");
}

/* Moves that a plan has made stay made: only the job can tell what was undone. */
static void a_cancelled_job_says_what_became_of_it(void **state)
{
    (void)state;
    struct err err = {0};
    job.state = DROVER__JOB_STATE__JOB_CANCELLED;
    job.kind = DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY;
    job.target = (char *)"";
    move.state = DROVER__STEP_STATE__STEP_UNDONE;
    move.detail = (char *)"no more moves; those done stay";
    assert_int_equal(wait_verdict(&job, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_string_equal(err.message, "optimizer-apply -: job 12 was cancelled; no more moves; those done stay");
}

/* What a failure undoes, is undone after it. */
static void what_is_undone_is_told_last(void **state)
{
    (void)state;
    struct progress p = {0};
    goes_to_move();
    prepare.state = DROVER__STEP_STATE__STEP_UNDONE;
    prepare.detail = (char *)"the VM is not kept";
    move.state = DROVER__STEP_STATE__STEP_FAILED;
    move.detail = (char *)"no such file";
    news(&p, true,
        "job 12: vm-migrate web-1 (h1 is hot)\n  move          failed: no such file\n"
        "  prepare       undone: the VM is not kept\n");
}

/* A VM whose first start fails is not kept, which nobody would guess from "record done". */
static void a_failed_job_says_what_was_undone(void **state)
{
    (void)state;
    struct err err = {0};
    job.state = DROVER__JOB_STATE__JOB_FAILED;
    job.error = &error;
    error.code = (char *)"not-found";
    error.message = (char *)"disk /x.raw: No such file";
    prepare.state = DROVER__STEP_STATE__STEP_UNDONE;
    prepare.detail = (char *)"the VM is not kept";
    move.state = DROVER__STEP_STATE__STEP_FAILED;
    assert_int_equal(wait_verdict(&job, &err), -1);
    assert_string_equal(err.message,
        "vm-migrate web-1: job 12 failed in step move (not-found): disk /x.raw: No such file; the VM is not kept; "
        "'drover job show 12' has the steps");
}

static void findings_are_told_with_the_preflight(void **state)
{
    (void)state;
    struct progress p = {0};
    Drover__Finding finding = DROVER__FINDING__INIT, *findings[] = {&finding};
    finding.code = (char *)"mtu";
    finding.thing = (char *)"network lan";
    finding.cause = (char *)"has an MTU of 1500 on h2";
    finding.next_step = (char *)"make them alike";
    goes_to_move();
    prepare.name = (char *)"preflight";
    job.findings = findings;
    job.n_findings = 1;
    news(&p, true,
        "job 12: vm-migrate web-1 (h1 is hot)\n"
        "  preflight     done in 120 ms: h2 listens\n"
        "    warning  mtu           network lan has an MTU of 1500 on h2\n"
        "                           next: make them alike\n"
        "  move          running\n");
    news(&p, true, "");
    job.n_findings = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_line_per_change_without_a_terminal, make),
        cmocka_unit_test_setup(on_a_terminal_the_running_step_is_the_last_line, make),
        cmocka_unit_test_setup(absurd_figures_do_no_harm, make),
        cmocka_unit_test_setup(a_failed_job_names_cause_and_next_step, make),
        cmocka_unit_test_setup(a_cancelled_job_says_what_became_of_it, make),
        cmocka_unit_test_setup(what_is_undone_is_told_last, make),
        cmocka_unit_test_setup(a_failed_job_says_what_was_undone, make),
        cmocka_unit_test_setup(findings_are_told_with_the_preflight, make),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
