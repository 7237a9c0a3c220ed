/* Jobs about the cluster itself: controllers that come and go, hosts that go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

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
    sim.member_says.code = ERR_NONE;
    assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_REMOVE)), ACTIONS_MAX), OK);
    assert_int_equal(sim.last_member_act, ACT_MEMBER_REMOVE);
    sim_close(&sim);
}

/* It may be under way in the log's membership, which nobody can call back: it is gone through with. */
static void cancelled_removal_is_gone_through_with(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 4; at++) {
        struct sim sim;
        struct state_member member;
        sim_open(&sim);
        assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX), OK);
        sim.blow = BLOW_CANCEL;
        sim.blow_at = at;
        assert_int_equal(
            sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_REMOVE)), ACTIONS_MAX), OK);
        assert_int_equal(sim.last_member_act, ACT_MEMBER_REMOVE);
        assert_false(state_member(sim.state, "c4", &member));
        sim_close(&sim);
    }
}

/* Cancelled or not: what cannot be done is not tried for ever. */
static void refused_removal_fails(void **unused)
{
    (void)unused;
    for (unsigned cancelled = 0; cancelled < 2; cancelled++) {
        struct sim sim;
        struct state_member member;
        sim_open(&sim);
        assert_int_equal(sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_ADD)), ACTIONS_MAX), OK);
        err_set(&sim.member_says, ERR_WRONG_STATE, "no majority would be left");
        sim.blow = cancelled ? BLOW_CANCEL : BLOW_NONE;
        assert_int_equal(
            sim_run(&sim, sim_job(&sim, member_job(DROVER__JOB_KIND__JOB_MEMBER_REMOVE)), ACTIONS_MAX), FAILED);
        assert_true(state_member(sim.state, "c4", &member));
        sim_close(&sim);
    }
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

static Drover__JobCreate *lost_job(const char *host)
{
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = DROVER__JOB_KIND__JOB_HOST_REMOVE;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->target, host);
    PB_ADD(create->data, effects, effect_host_lost(host));
    job_add_steps(create, false);
    return create;
}

/* Its VMs are nobody's, under a generation that nobody was granted: what still runs of them is told to end. */
static void dead_host_frees_its_vms(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_host host;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    sim_running_vm(&sim, "vm-2", "web-2");
    sim.hosts[0].up = false;
    uint64_t generation = sim_vm(&sim, "vm-2").generation;
    uint64_t id = sim_job(&sim, lost_job("h1"));
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    struct state_vm vm = sim_vm(&sim, "vm-2");
    assert_string_equal(vm.owner, "");
    assert_false(vm.desired_running);
    assert_int_equal(vm.generation, generation + 1);
    assert_string_equal(sim_vm(&sim, "vm-1").owner, "");
    assert_false(state_host(sim.state, "h1", &host));
    assert_non_null(strstr(sim.job.log.job->steps[0]->detail, "web-1, web-2"));
    sim_close(&sim);
}

static void host_that_is_heard_is_not_dead(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_host host;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    assert_int_equal(sim_run(&sim, sim_job(&sim, lost_job("h1")), ACTIONS_MAX), FAILED);
    assert_true(state_host(sim.state, "h1", &host));
    assert_string_equal(sim_vm(&sim, "vm-1").owner, "h1");
    sim.hosts[0].up = false; /* to one that leads since a moment every host is silent */
    sim.new_leader = true;
    uint64_t id = sim_job(&sim, lost_job("h1"));
    assert_int_equal(sim_step(&sim, id), ACT_WAIT);
    assert_string_equal(sim_vm(&sim, "vm-1").owner, "h1");
    sim.hosts[0].up = true;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), FAILED);
    assert_string_equal(sim_vm(&sim, "vm-1").owner, "h1");
    sim_close(&sim);
}

/* One on its way from or to the host may be the other's by now, which its job finds out. */
static void what_a_job_holds_outlives_its_host(void **unused)
{
    (void)unused;
    for (size_t lost = 0; lost < 3; lost++) {
        struct sim sim;
        sim_open(&sim);
        sim_running_vm(&sim, "vm-1", "web-1");
        if (lost < 2)
            sim_change(&sim, effect_hand_over_allow("vm-1", "h1", 1, "m", "h2"));
        else
            sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "vm-1", "", false));
        const char *host = lost == 1 ? "h2" : "h1";
        sim.hosts[lost == 1].up = false;
        assert_int_equal(sim_run(&sim, sim_job(&sim, lost_job(host)), ACTIONS_MAX), FAILED);
        assert_string_equal(sim_vm(&sim, "vm-1").owner, "h1");
        assert_int_equal(sim_vm(&sim, "vm-1").generation, 1);
        sim_close(&sim);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(cancelled_member_is_out_again),
        cmocka_unit_test(refused_member_is_not_taken_for_the_one_that_is_there),
        cmocka_unit_test(cancelled_removal_is_gone_through_with),
        cmocka_unit_test(refused_removal_fails),
        cmocka_unit_test(host_with_vms_is_not_removed),
        cmocka_unit_test(dead_host_frees_its_vms),
        cmocka_unit_test(host_that_is_heard_is_not_dead),
        cmocka_unit_test(what_a_job_holds_outlives_its_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
