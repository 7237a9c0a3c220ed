/* Finding the leader, outliving it, and never asking for a change twice. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/unit/cli/fake_controller.h"

#define FAKES 3

static struct fake_log jobs;
static struct fake *fakes[FAKES];
static struct context context;
static struct connection *connection;
static struct err err;

/* For those that wait until it is over; on a busy machine connections take a while, too. */
#define SHORT_MS 4000u

static void client_open(uint32_t timeout_ms)
{
    assert_int_equal(connect_open(&context, timeout_ms, &err, &connection), 0);
}

static int set_up(void **state)
{
    (void)state;
    memset(&context, 0, sizeof context);
    jobs = (struct fake_log){.jobs = 5};
    if (key_generate(&err, &context.key) < 0)
        return -1;
    for (size_t i = 0; i < FAKES; i++) {
        fakes[i] = fake_start(&jobs, context.key.public_key);
        fake_describe(fakes[i], &context.controllers[context.controller_count++]);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    connect_close(connection);
    connection = NULL;
    for (size_t i = 0; i < FAKES; i++)
        if (fakes[i])
            fake_stop(fakes[i]);
    return 0;
}

static void roles(enum fake_mode a, enum fake_mode b, enum fake_mode c, size_t leader)
{
    const enum fake_mode modes[] = {a, b, c};
    for (size_t i = 0; i < FAKES; i++)
        fake_set(fakes[i], modes[i], leader < FAKES ? fakes[leader] : NULL);
}

static void all(enum fake_mode mode)
{
    roles(mode, mode, mode, FAKES);
}

static int list(uint64_t *newest)
{
    Drover__JobListRequest request = DROVER__JOB_LIST_REQUEST__INIT;
    Drover__JobListReply *reply;
    if (connect_call(
            connection, DROVER__METHOD__JOB_LIST, &request.base, &drover__job_list_reply__descriptor, &err, &reply) < 0)
        return -1;
    *newest = reply->n_jobs ? reply->jobs[0]->id : 0;
    drover__job_list_reply__free_unpacked(reply, NULL);
    return 0;
}

static int start_vm(uint64_t *job)
{
    Drover__VmStartRequest request = DROVER__VM_START_REQUEST__INIT;
    Drover__JobReply *reply;
    request.name = (char *)"web-1";
    if (connect_submit(connection, DROVER__METHOD__VM_START, &request.base, &err, &reply) < 0)
        return -1;
    *job = reply->job->id;
    drover__job_reply__free_unpacked(reply, NULL);
    return 0;
}

#define UNKNOWN "it is not known whether the request was taken"

static void start_fails(enum err_code code, const char *why)
{
    uint64_t job = 0;
    assert_int_equal(start_vm(&job), -1);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.message, why));
}

static void list_fails(enum err_code code, const char *why)
{
    uint64_t job = 0;
    assert_int_equal(list(&job), -1);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.message, why));
}

static void follows_to_the_leader(void **state)
{
    (void)state;
    uint64_t job = 0;
    roles(FAKE_FOLLOWS, FAKE_FOLLOWS, FAKE_LEADS, 2);
    client_open(60000);
    assert_int_equal(list(&job), 0);
    assert_int_equal(job, 5);
    assert_int_equal(start_vm(&job), 0);
    assert_int_equal(job, 6);
    assert_int_equal(jobs.jobs, 6);
    unsigned others = fake_requests(fakes[0]) + fake_requests(fakes[1]);
    assert_int_equal(list(&job), 0); /* it remembers who leads */
    assert_int_equal(fake_requests(fakes[0]) + fake_requests(fakes[1]), others);

    unsigned asked = fake_requests(fakes[0]);
    roles(FAKE_FOLLOWS, FAKE_LEADS, FAKE_FOLLOWS, 1);
    assert_int_equal(list(&job), 0); /* and goes straight to the one that is named */
    assert_int_equal(fake_requests(fakes[0]), asked);
}

static void outlives_the_leader(void **state)
{
    (void)state;
    uint64_t job = 0;
    roles(FAKE_LEADS, FAKE_FOLLOWS, FAKE_FOLLOWS, 0);
    client_open(60000);
    assert_int_equal(list(&job), 0);
    fake_set(fakes[1], FAKE_FOLLOWS, NULL);
    fake_set(fakes[2], FAKE_LEADS, NULL);
    fake_stop(fakes[0]);
    fakes[0] = NULL;
    assert_int_equal(list(&job), 0);
    assert_int_equal(start_vm(&job), 0);
    assert_int_equal(job, 6);
}

static void a_silent_leader_does_not_hold_it_up(void **state)
{
    (void)state;
    uint64_t job = 0;
    roles(FAKE_LEADS, FAKE_FOLLOWS, FAKE_FOLLOWS, 0);
    client_open(60000);
    assert_int_equal(list(&job), 0); /* so that it asks this one first */
    roles(FAKE_SILENT, FAKE_LEADS, FAKE_LEADS, 1);
    assert_int_equal(list(&job), 0);
}

/* The first one leads, and the change is its last; then the second one leads. */
static void a_change_meets(enum fake_mode end)
{
    uint64_t job = 0;
    roles(end, FAKE_FOLLOWS, FAKE_FOLLOWS, 0);
    client_open(60000);
    assert_int_equal(list(&job), 0); /* so that it asks this one first */
    roles(end, FAKE_LEADS, FAKE_FOLLOWS, 1);
}

static void a_change_whose_answer_was_lost_happens_once(void **state)
{
    (void)state;
    uint64_t job = 0;
    a_change_meets(FAKE_TAKES_AND_DIES);
    assert_int_equal(start_vm(&job), 0);
    assert_int_equal(job, 6);
    assert_int_equal(jobs.jobs, 6); /* not 7 */
    assert_int_equal(start_vm(&job), 0);
    assert_int_equal(job, 7); /* the next change is another one */
}

static void somebody_elses_change_is_not_taken_for_its_own(void **state)
{
    (void)state;
    uint64_t job = 0;
    a_change_meets(FAKE_LOSES_AND_DIES);
    assert_int_equal(start_vm(&job), 0);
    assert_int_equal(job, 7);
    assert_int_equal(jobs.jobs, 7);
}

static void a_controller_that_closes_is_outlived(void **state)
{
    (void)state;
    uint64_t job = 0;
    a_change_meets(FAKE_CLOSES);
    assert_int_equal(start_vm(&job), 0);
    assert_int_equal(job, 6);
    assert_int_equal(jobs.jobs, 6);
}

static void what_may_have_been_taken_is_said(void **state)
{
    (void)state;
    uint64_t job = 0;
    roles(FAKE_TAKES_AND_DIES, FAKE_FOLLOWS, FAKE_FOLLOWS, 0);
    client_open(SHORT_MS);
    assert_int_equal(list(&job), 0);
    roles(FAKE_TAKES_AND_DIES, FAKE_FOLLOWS, FAKE_FOLLOWS, FAKES);
    start_fails(ERR_UNAVAILABLE, UNKNOWN);
    start_fails(ERR_UNAVAILABLE, "knows no leader"); /* so nobody took this one */
    assert_null(strstr(err.message, UNKNOWN));
}

/* Whoever comes after it says that nothing can be done now; of the request that was sent before that says nothing. */
static void what_may_have_been_taken_is_said_by_whoever_refuses(void **state)
{
    (void)state;
    const enum fake_mode ends[] = {FAKE_TAKES_AND_DIES, FAKE_CLOSES};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        uint64_t job = 0;
        roles(ends[i], FAKE_FOLLOWS, FAKE_FOLLOWS, 0);
        client_open(60000);
        assert_int_equal(list(&job), 0); /* so that it asks this one first */
        roles(ends[i], FAKE_UNAVAILABLE, FAKE_UNAVAILABLE, FAKES);
        start_fails(ERR_UNAVAILABLE, UNKNOWN);
        assert_non_null(strstr(err.message, "host h2 is down"));
        connect_close(connection);
        connection = NULL;
    }
}

/* A leader that has lost the leadership says no more than that, either. */
static void what_may_have_been_taken_is_said_of_an_unclear_answer(void **state)
{
    (void)state;
    all(FAKE_UNAVAILABLE);
    client_open(60000);
    start_fails(ERR_UNAVAILABLE, UNKNOWN);
    all(FAKE_GARBLED);
    start_fails(ERR_PROTOCOL, UNKNOWN);
    all(FAKE_REFUSES);
    start_fails(ERR_BUSY, "job 7 holds web-1");
    assert_null(strstr(err.message, UNKNOWN));
}

static void refusals_are_final(void **state)
{
    (void)state;
    all(FAKE_REFUSES);
    client_open(60000);
    list_fails(ERR_BUSY, "job 7 holds web-1");
    assert_int_equal(fake_requests(fakes[0]) + fake_requests(fakes[1]) + fake_requests(fakes[2]), 1);
    all(FAKE_GARBLED);
    list_fails(ERR_PROTOCOL, "");
}

static void what_stays_unavailable_is_said(void **state)
{
    (void)state;
    const uint32_t timeout_ms = 60000;
    uint64_t begun_ms = clock_now_ms();
    all(FAKE_UNAVAILABLE);
    client_open(timeout_ms);
    list_fails(ERR_UNAVAILABLE, "host h2 is down");
    assert_true(clock_now_ms() - begun_ms < timeout_ms); /* it is believed before that */
}

static void without_a_leader_it_waits_and_says_so(void **state)
{
    (void)state;
    uint64_t begun_ms = clock_now_ms();
    all(FAKE_FOLLOWS);
    client_open(SHORT_MS);
    list_fails(ERR_UNAVAILABLE, "knows no leader");
    assert_non_null(strstr(err.message, "a majority of the controllers"));
    assert_true(clock_now_ms() - begun_ms >= SHORT_MS * 9 / 10); /* one may be elected meanwhile */
}

static void press_ctrl_c(uv_timer_t *timer)
{
    (void)timer;
    raise(SIGINT);
}

static void ctrl_c_says_whether_anything_may_have_been_taken(void **state)
{
    (void)state;
    static uv_timer_t timer; /* until the loop is closed */
    all(FAKE_SILENT);
    client_open(60000);
    assert_int_equal(connect_catch_interrupt(connection, &err), 0);
    assert_int_equal(connect_catch_interrupt(connection, &err), 0); /* as often as one likes */
    assert_int_equal(uv_timer_init(connect_loop(connection), &timer), 0);
    assert_int_equal(uv_timer_start(&timer, press_ctrl_c, 300, 0), 0);
    start_fails(ERR_CANCELLED, UNKNOWN);
    start_fails(ERR_CANCELLED, "nothing was changed"); /* it is not sent any more */
    assert_null(strstr(err.message, UNKNOWN));
}

static void a_stranger_gets_nothing(void **state)
{
    (void)state;
    roles(FAKE_LEADS, FAKE_LEADS, FAKE_LEADS, 0);
    assert_int_equal(key_generate(&err, &context.key), 0);
    client_open(SHORT_MS);
    list_fails(ERR_UNAVAILABLE, "yours is known to them");
    assert_int_equal(fake_requests(fakes[0]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(follows_to_the_leader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(outlives_the_leader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_silent_leader_does_not_hold_it_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_change_whose_answer_was_lost_happens_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(somebody_elses_change_is_not_taken_for_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_controller_that_closes_is_outlived, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_may_have_been_taken_is_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_may_have_been_taken_is_said_by_whoever_refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_may_have_been_taken_is_said_of_an_unclear_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refusals_are_final, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_stays_unavailable_is_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_leader_it_waits_and_says_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ctrl_c_says_whether_anything_may_have_been_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stranger_gets_nothing, set_up, tear_down),
    };
    log_setup("cli_connect", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
