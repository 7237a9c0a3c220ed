/* Jobs about the cluster itself: controllers that come and go, hosts that go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sim.h"

#define ACTIONS_MAX 400u
#define OK          DROVER__JOB_STATE__JOB_SUCCEEDED
#define FAILED      DROVER__JOB_STATE__JOB_FAILED

static Drover__JobCreate *member_job(Drover__JobKind kind)
{
    uint8_t key[KEY_BYTES] = {77};
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = kind;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->target, "c4");
    create->data->member = pb_new(&drover__member_put__descriptor);
    pb_string(&create->data->member->name, "c4");
    pb_bytes(&create->data->member->public_key, key, KEY_BYTES);
    PB_ADD(create->data, effects,
        kind == DROVER__JOB_KIND__JOB_MEMBER_ADD
            ? effect_member_put("c4", key, "tcp://127.0.0.1:1", "tcp://127.0.0.1:3")
            : effect_member_delete("c4"));
    job_add_steps(create, false);
    return create;
}

static void members_come_and_go(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 6; at++) {
        struct sim sim;
        struct state_member member;
        sim_open(&sim);
        sim.blow = BLOW_LEADER_AFTER;
        sim.blow_at = at;
        assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX), OK);
        assert_true(state_member(sim.state, "c4", &member));
        assert_int_equal(
            sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_REMOVE)), ACTIONS_MAX), OK);
        assert_false(state_member(sim.state, "c4", &member));
        assert_true(sim.members >= 2);
        sim_close(&sim);
    }
}

static void cancelled_member_is_out_again(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 3; at++) {
        struct sim sim;
        struct state_member member;
        sim_open(&sim);
        sim.blow = BLOW_CANCEL;
        sim.blow_at = at;
        Drover__JobState end = sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX);
        assert_int_equal(state_member(sim.state, "c4", &member), end == OK);
        sim_close(&sim);
    }
}

/* Its name may be another's in the log: undoing takes back what this job has added, not whoever has the name. */
static void refused_member_is_not_taken_for_the_one_that_is_there(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_member member;
    sim_open(&sim);
    err_set(&sim.member_says, ERR_INVALID, "it is there with another address");
    assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX), FAILED);
    assert_int_equal(sim.last_member_act, ACT_MEMBER_WITHDRAW);
    assert_false(state_member(sim.state, "c4", &member));
    sim.member_says.code = ERR_EXISTS; /* just this one votes: it was added before the leader changed */
    assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX), OK);
    assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_REMOVE)), ACTIONS_MAX), OK);
    assert_int_equal(sim.last_member_act, ACT_MEMBER_REMOVE);
    sim_close(&sim);
}

static void host_with_vms_is_not_removed(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_host host;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    const char *names[] = {"h1", "h2"};
    for (size_t i = 0; i < 2; i++) {
        Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
        create->kind = DROVER__JOB_KIND__JOB_HOST_REMOVE;
        create->data = pb_new(&drover__job_data__descriptor);
        PB_ADD(create->data, effects, effect_host_delete(names[i]));
        job_add_steps(create, false);
        assert_int_equal(sim_run(&sim, sim_job(&sim, create), ACTIONS_MAX), i == 0 ? FAILED : OK);
        assert_int_equal(state_host(sim.state, names[i], &host), i == 0);
    }
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(cancelled_member_is_out_again),
        cmocka_unit_test(refused_member_is_not_taken_for_the_one_that_is_there),
        cmocka_unit_test(host_with_vms_is_not_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
