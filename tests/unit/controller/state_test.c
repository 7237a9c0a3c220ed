/* The replicated state: the same commands make the same state everywhere, a refused one changes nothing, a repeated one
 * is recognized, a snapshot holds everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

static Drover__Effect *vm(const char *id, const char *name, const char *mac)
{
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    Drover__Nic nic = DROVER__NIC__INIT, *nics[] = {&nic};
    spec.name = (char *)name;
    spec.vcpus = 2;
    spec.memory_bytes = 512u << 20;
    nic.mac = (char *)mac;
    spec.nics = nics;
    spec.n_nics = mac ? 1 : 0;
    return effect_vm_insert(id, &spec, "");
}

/* Refused with that code, and nothing has changed. */
static void refused(struct sim *sim, Drover__Command *command, const char *code)
{
    uint64_t before = state_hash(sim->state);
    const char *why = sim_apply(sim, command, NULL);
    assert_non_null(why);
    assert_memory_equal(why, code, strlen(code));
    assert_int_equal(state_hash(sim->state), before);
}

/* Packed commands of a small history, with refused ones among them. */
static size_t history(struct buf *entries, size_t max)
{
    uint8_t key[KEY_BYTES] = {9};
    size_t n = 0;
    Drover__Command *commands[] = {command_of_change(effect_host_insert("h9", key)),
        command_of_change(vm("a", "vm-a", "52:54:00:00:00:01")), command_of_change(vm("b", "vm-a", NULL)),
        command_of_change(vm("c", "vm-c", "52:54:00:00:00:01")), command_of_change(effect_vm_grant("a", "h9", 1)),
        command_of_change(effect_vm_grant("a", "h9", 2)), command_of_change(effect_setting_put("x", "y")),
        command_of_change(effect_host_delete("h9")),
        command_of_change(effect_member_put("c1", (uint8_t[KEY_BYTES]){10}, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2")),
        pb_new(&drover__command__descriptor)};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        assert_true(n < max);
        commands[i]->version = STATE_SCHEMA;
        commands[i]->now_ms = (int64_t)(1000 + i);
        pb_pack(commands[i], &entries[n++]);
        pb_free(commands[i]);
    }
    Drover__Command *job = pb_new(&drover__command__descriptor);
    job->body_case = DROVER__COMMAND__BODY_JOB_CREATE;
    job->job_create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "a", "", false);
    pb_string(&job->request_id, "anna/1");
    job->version = STATE_SCHEMA;
    pb_pack(job, &entries[n++]);
    buf_append(&entries[n], &entries[n - 1].data[0], entries[n - 1].len); /* the same request again */
    n++;
    pb_free(job);
    buf_append(&entries[n++], "\xff\xff garbage", 10);
    return n;
}

#define ENTRIES 32

static void same_commands_same_state(void **unused)
{
    (void)unused;
    struct buf entries[ENTRIES] = {0};
    size_t count = history(entries, ENTRIES);
    struct state *one = state_new(), *two = state_new();
    for (size_t i = 0; i < count; i++) {
        struct buf r1 = {0}, r2 = {0};
        state_apply(one, entries[i].data, entries[i].len, &r1);
        state_apply(two, entries[i].data, entries[i].len, &r2);
        assert_int_equal(r1.len, r2.len);
        assert_memory_equal(r1.data, r2.data, r1.len);
        assert_int_equal(state_hash(one), state_hash(two));
        buf_free(&r1);
        buf_free(&r2);
    }
    struct state *empty = state_new();
    assert_int_not_equal(state_hash(one), state_hash(empty));
    state_free(empty);
    state_free(one);
    state_free(two);
    for (size_t i = 0; i < count; i++)
        buf_free(&entries[i]);
}

/* A member that restores a snapshot at any point and applies the rest is where the others are. */
static void snapshot_holds_everything(void **unused)
{
    (void)unused;
    struct buf entries[ENTRIES] = {0};
    size_t count = history(entries, ENTRIES);
    for (size_t cut = 0; cut <= count; cut++) {
        struct err err;
        struct buf snapshot = {0}, ignored = {0};
        struct state *leader = state_new(), *late = state_new();
        for (size_t i = 0; i < cut; i++)
            state_apply(leader, entries[i].data, entries[i].len, &ignored);
        state_apply(late, entries[0].data, entries[0].len, &ignored); /* is replaced */
        state_snapshot(leader, &snapshot);
        assert_int_equal(state_restore(late, snapshot.data, snapshot.len, &err), 0);
        assert_int_equal(state_hash(late), state_hash(leader));
        for (size_t i = cut; i < count; i++) {
            state_apply(leader, entries[i].data, entries[i].len, &ignored);
            state_apply(late, entries[i].data, entries[i].len, &ignored);
        }
        assert_int_equal(state_hash(late), state_hash(leader));
        state_free(leader);
        state_free(late);
        buf_free(&snapshot);
        buf_free(&ignored);
    }
    for (size_t i = 0; i < count; i++)
        buf_free(&entries[i]);
}

static void damaged_snapshot_is_refused(void **unused)
{
    (void)unused;
    struct sim sim;
    struct err err;
    struct buf snapshot = {0};
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    state_snapshot(sim.state, &snapshot);
    uint64_t hash = state_hash(sim.state);
    assert_int_equal(state_restore(sim.state, snapshot.data, 3, &err), -1);
    assert_int_equal(state_restore(sim.state, snapshot.data, snapshot.len - 1, &err), -1);
    snapshot.data[0] ^= 1;
    assert_int_equal(state_restore(sim.state, snapshot.data, snapshot.len, &err), -1);
    snapshot.data[0] ^= 1;
    memset(snapshot.data + 24 + 100, 0xff, 4000); /* the first page of the database */
    assert_int_equal(state_restore(sim.state, snapshot.data, snapshot.len, &err), -1);
    assert_int_equal(state_hash(sim.state), hash);
    snapshot.data[8] = STATE_SCHEMA + 1;
    assert_int_equal(state_restore(sim.state, snapshot.data, snapshot.len, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    buf_free(&snapshot);
    sim_close(&sim);
}

static void request_is_recognized(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    uint64_t first = 0, again = 0, known = 0;
    assert_false(state_request(sim.state, "anna/42", &known));
    for (int i = 0; i < 2; i++) {
        Drover__Command *command = pb_new(&drover__command__descriptor);
        command->body_case = DROVER__COMMAND__BODY_JOB_CREATE;
        command->job_create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "vm-1", "", false);
        pb_string(&command->request_id, "anna/42");
        assert_null(sim_apply(&sim, command, i ? &again : &first));
    }
    assert_int_equal(first, again);
    assert_true(state_request(sim.state, "anna/42", &known));
    assert_int_equal(known, first);
    assert_false(state_request(sim.state, "bert/42", &known));
    struct state_counts counts;
    state_counts(sim.state, &counts);
    assert_int_equal(counts.jobs_active, 1);
    sim_close(&sim);
}

/* A refused request may be sent again with the same id once the obstacle is gone. */
static void refused_request_is_not_remembered(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    Drover__Command *command = command_of_change(effect_host_delete("h7"));
    pb_string(&command->request_id, "anna/7");
    refused(&sim, command, "not-found");
    uint8_t key[KEY_BYTES] = {7};
    sim_change(&sim, effect_host_insert("h7", key));
    command = command_of_change(effect_host_delete("h7"));
    pb_string(&command->request_id, "anna/7");
    assert_null(sim_apply(&sim, command, NULL));
    sim_close(&sim);
}

static void one_job_holds_a_vm(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm-1", "h2", false));
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_CREATE;
    command->job_create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "vm-1", "", false);
    uint64_t before = state_hash(sim.state);
    const char *why = sim_apply(&sim, command, NULL);
    assert_string_equal(why, "busy: VM web-1 is busy with job 1 (vm migrate); `drover job watch 1`");
    assert_int_equal(state_hash(sim.state), before);
    /* and what reconciling would like to change has to wait */
    refused(&sim, command_of_change(effect_vm_release("vm-1", "h1", 1, "")), "busy");
    sim_close(&sim);
}

/* The log's side of the ownership protocol, as a table of what is refused. */
static void ownership_is_guarded(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    refused(&sim, command_of_change(effect_vm_grant("vm-1", "h2", 2)), "wrong-state");        /* has an owner */
    refused(&sim, command_of_change(effect_vm_release("vm-1", "h2", 1, "")), "wrong-state");  /* not the owner */
    refused(&sim, command_of_change(effect_vm_release("vm-1", "h1", 2, "")), "wrong-state");  /* not the generation */
    refused(&sim, command_of_change(effect_vm_release("vm-1", "h1", 1, "m")), "wrong-state"); /* no such hand-over */
    refused(&sim, command_of_change(effect_vm_renew("vm-1", "h1", 1, "")), "wrong-state");    /* not later */
    refused(&sim, command_of_change(effect_hand_over_allow("vm-1", "h2", 1, "m", "h3")), "wrong-state");
    refused(&sim, command_of_change(effect_hand_over_allow("vm-1", "h1", 2, "m", "h2")), "wrong-state");
    refused(&sim, command_of_change(effect_hand_over_allow("vm-1", "h1", 1, "m", "h1")), "invalid");
    refused(&sim, command_of_change(effect_hand_over_allow("vm-1", "h1", 1, "m", "h9")), "not-found");
    refused(&sim, command_of_change(effect_hand_over_taken("vm-1", "m")), "wrong-state");
    refused(&sim, command_of_change(effect_vm_delete("vm-1")), "wrong-state");
    refused(&sim, command_of_change(effect_host_delete("h1")), "wrong-state");

    sim_change(&sim, effect_hand_over_allow("vm-1", "h1", 1, "m", "h2"));
    refused(
        &sim, command_of_change(effect_hand_over_allow("vm-1", "h1", 1, "n", "h3")), "wrong-state"); /* one at a time */
    refused(&sim, command_of_change(effect_vm_release("vm-1", "h1", 1, "")), "wrong-state"); /* may be handed over */
    refused(&sim, command_of_change(effect_vm_renew("vm-1", "h1", 2, "m")), "wrong-state");  /* has been offered */
    refused(&sim, command_of_change(effect_hand_over_taken("vm-1", "n")), "wrong-state");
    refused(&sim, command_of_change(effect_host_delete("h2")), "wrong-state"); /* may become the owner */
    sim_change(&sim, effect_hand_over_clear("vm-1", "n"));                     /* another one's: nothing happens */
    assert_string_equal(sim_vm(&sim, "vm-1").hand_over_id, "m");
    sim_change(&sim, effect_hand_over_taken("vm-1", "m"));
    struct state_vm moved = sim_vm(&sim, "vm-1");
    assert_string_equal(moved.owner, "h2");
    assert_int_equal(moved.generation, 2);
    assert_string_equal(moved.hand_over_id, "");
    assert_true(moved.moved_ms > 0);

    sim_change(&sim, effect_hand_over_allow("vm-1", "h2", 2, "o", "h3"));
    sim_change(&sim, effect_vm_release("vm-1", "h2", 2, "o"));
    struct state_vm stopped = sim_vm(&sim, "vm-1");
    assert_string_equal(stopped.owner, "");
    assert_true(stopped.generation > 3); /* later than what was on offer */
    assert_false(stopped.desired_running);
    sim_close(&sim);
}

/* How a VM is moved changes by the job that holds it, and only as far as it is said. */
static void policy_changes_by_parts(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    Drover__VmSpec policy = DROVER__VM_SPEC__INIT;
    policy.max_downtime_ms = 12;
    policy.migration_mode = DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO;
    sim_change(&sim, effect_vm_policy_put("vm-1", &policy));
    policy = (Drover__VmSpec)DROVER__VM_SPEC__INIT;
    policy.on_no_convergence = DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE;
    sim_change(&sim, effect_vm_policy_put("vm-1", &policy));
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(sim.state, "vm-1");
    assert_int_equal(spec->max_downtime_ms, 12);
    assert_int_equal(spec->migration_mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO);
    assert_int_equal(spec->on_no_convergence, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE);
    assert_string_equal(spec->name, "web-1");
    assert_int_equal(spec->n_disks, 1);
    refused(&sim, command_of_change(effect_vm_policy_put("vm-9", &policy)), "not-found");
    sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm-1", "h2", false));
    refused(&sim, command_of_change(effect_vm_policy_put("vm-1", &policy)), "busy");
    sim_close(&sim);
}

static void names_keys_and_macs_are_unique(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    uint8_t key[KEY_BYTES] = {1}; /* h1's */
    refused(&sim, command_of_change(effect_host_insert("h9", key)), "exists");
    refused(&sim, command_of_change(effect_member_put("c1", key, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2")), "exists");
    key[0] = 50;
    refused(&sim, command_of_change(effect_host_insert("h1", key)), "exists");
    sim_change(&sim, vm("a", "web-1", "52:54:00:AA:00:01"));
    refused(&sim, command_of_change(vm("b", "web-1", NULL)), "exists");
    refused(&sim, command_of_change(vm("a", "web-2", NULL)), "exists");
    refused(&sim, command_of_change(vm("b", "web-2", "52:54:00:aa:00:01")), "exists");
    assert_true(state_mac_taken(sim.state, "52:54:00:aa:00:01"));
    sim_change(&sim, effect_vm_delete("a"));
    assert_false(state_mac_taken(sim.state, "52:54:00:aa:00:01"));
    sim_change(&sim, vm("b", "web-1", "52:54:00:aa:00:01"));
    sim_close(&sim);
}

static void principals_follow_hosts_and_members(void **unused)
{
    (void)unused;
    struct sim sim;
    struct principal who;
    uint8_t host[KEY_BYTES] = {1}, member[KEY_BYTES] = {60};
    sim_open(&sim);
    assert_true(state_principal(sim.state, host, &who));
    assert_int_equal(who.kind, PRINCIPAL_HOST);
    assert_string_equal(who.name, "h1");
    sim_change(&sim, effect_host_delete("h1"));
    assert_false(state_principal(sim.state, host, &who));
    sim_change(&sim, effect_member_put("c1", member, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"));
    assert_true(state_principal(sim.state, member, &who));
    assert_int_equal(who.kind, PRINCIPAL_CONTROLLER);
    sim_change(&sim, effect_member_delete("c1"));
    assert_false(state_principal(sim.state, member, &who));
    sim_close(&sim);
}

static const char *update(struct sim *sim, uint64_t id, uint64_t revision, Drover__JobState state)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    command->job_update = pb_new(&drover__job_update__descriptor);
    command->job_update->job_id = id;
    command->job_update->revision = revision;
    command->job_update->state = state;
    return sim_apply(sim, command, NULL);
}

/* A deposed leader's update, and any update of a job that has ended, change nothing. */
static void stale_updates_are_refused(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    uint64_t id = sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "vm-1", "", false));
    assert_non_null(update(&sim, id, 7, DROVER__JOB_STATE__JOB_RUNNING));
    assert_non_null(update(&sim, id + 1, 1, DROVER__JOB_STATE__JOB_RUNNING));
    assert_non_null(update(&sim, id, 1, DROVER__JOB_STATE__JOB_QUEUED));
    assert_null(update(&sim, id, 1, DROVER__JOB_STATE__JOB_RUNNING));
    assert_non_null(update(&sim, id, 1, DROVER__JOB_STATE__JOB_RUNNING));
    assert_null(update(&sim, id, 2, DROVER__JOB_STATE__JOB_FAILED));
    assert_int_equal(sim_vm(&sim, "vm-1").job_id, 0);
    assert_non_null(update(&sim, id, 3, DROVER__JOB_STATE__JOB_RUNNING));
    sim_close(&sim);
}

static void history_is_bounded(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_job job;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    for (unsigned i = 1; i <= STATE_JOBS_KEPT + 10; i++) {
        uint64_t id = sim_job(&sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, "vm-1", "", false));
        assert_int_equal(id, i);
        assert_null(update(&sim, id, 1, DROVER__JOB_STATE__JOB_FAILED));
    }
    assert_false(state_job(sim.state, 10, &job));
    assert_true(state_job(sim.state, 11, &job));
    state_job_clear(&job);
    struct state_job_ref *refs;
    assert_int_equal(state_jobs(sim.state, 0, false, 20, &refs), 20);
    assert_int_equal(refs[0].id, STATE_JOBS_KEPT + 10);
    free(refs);
    assert_int_equal(state_jobs(sim.state, 15, false, 20, &refs), 4);
    free(refs);
    sim_close(&sim);
}

static void lists_page_by_name(void **unused)
{
    (void)unused;
    struct sim sim;
    struct state_vm *vms;
    sim_open(&sim);
    for (int i = 0; i < 10; i++) {
        char id[8], name[16];
        snprintf(id, sizeof id, "id%d", i);
        snprintf(name, sizeof name, "vm-%d", 9 - i);
        sim_change(&sim, vm(id, name, NULL));
    }
    assert_int_equal(state_vms(sim.state, "", 4, &vms), 4);
    assert_string_equal(vms[0].name, "vm-0");
    free(vms);
    assert_int_equal(state_vms(sim.state, "vm-7", 100, &vms), 2);
    assert_string_equal(vms[1].name, "vm-9");
    free(vms);
    sim_change(&sim, effect_vm_grant("id0", "h1", 1));
    assert_int_equal(state_vms_owned(sim.state, "h1", &vms), 1);
    free(vms);
    assert_int_equal(state_memory_promised(sim.state, "h1"), 512u << 20);
    sim_change(&sim, effect_hand_over_allow("id0", "h1", 1, "m", "h2"));
    assert_int_equal(state_memory_promised(sim.state, "h2"), 512u << 20);
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_commands_same_state),
        cmocka_unit_test(snapshot_holds_everything),
        cmocka_unit_test(damaged_snapshot_is_refused),
        cmocka_unit_test(request_is_recognized),
        cmocka_unit_test(refused_request_is_not_remembered),
        cmocka_unit_test(one_job_holds_a_vm),
        cmocka_unit_test(ownership_is_guarded),
        cmocka_unit_test(policy_changes_by_parts),
        cmocka_unit_test(names_keys_and_macs_are_unique),
        cmocka_unit_test(principals_follow_hosts_and_members),
        cmocka_unit_test(stale_updates_are_refused),
        cmocka_unit_test(history_is_bounded),
        cmocka_unit_test(lists_page_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
