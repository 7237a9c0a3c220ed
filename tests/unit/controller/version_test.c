/* Rolling upgrades: a command and a snapshot need no later schema than what is in them, and a program that is too old
 * for a command stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "controller/proposer.h"
#include "controller/state/version.h"
#include "sim.h"

/* As it is stamped. */
static uint32_t needs(Drover__Command *command)
{
    struct buf packed = {0};
    proposer_pack(command, &packed);
    Drover__Command *stamped = pb_unpack(&drover__command__descriptor, packed.data, packed.len);
    uint32_t version = stamped->version;
    pb_free(stamped);
    buf_free(&packed);
    return version;
}

static Drover__Effect *policy(void)
{
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    return effect_vm_policy_put("vm-1", &spec);
}

/* What was there from the beginning needs the first version, whatever this program knows besides. */
static void command_needs_what_is_in_it(void **unused)
{
    (void)unused;
    assert_int_equal(needs(command_of_change(effect_vm_grant("vm-1", "h1", 1))), 1);
    assert_int_equal(needs(command_of_change(effect_vm_pin("vm-1", "q35", "max"))), 2);
    assert_int_equal(needs(command_of_change(effect_host_maintenance("h1", true))), VERSION_MAINTENANCE);
    assert_int_equal(needs(command_of_change(effect_vm_disk_put("vm-1", "/a", "/b", "raw"))), 3);
    assert_int_equal(needs(command_of_change(policy())), 4);
    assert_int_equal(needs(command_of_change(effect_host_lost("h1"))), 5);
    Drover__Command *both = command_of_change(policy());
    PB_ADD(both->change, effects, effect_vm_grant("vm-1", "h1", 1));
    assert_int_equal(needs(both), 4);
    Drover__Command *cancel = pb_new(&drover__command__descriptor);
    cancel->body_case = DROVER__COMMAND__BODY_JOB_CANCEL;
    cancel->job_cancel = pb_new(&drover__job_cancel__descriptor);
    assert_int_equal(needs(cancel), 1);
}

static Drover__Command *creation(Drover__JobCreate *create)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_JOB_CREATE;
    command->job_create = create;
    return command;
}

/* Whoever leads when the job gets there must be able to: also what it will only do later counts, and its children's. */
static void job_needs_what_it_will_do(void **unused)
{
    (void)unused;
    assert_int_equal(needs(creation(sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm-1", "h2", false))), 1);
    Drover__JobCreate *set = sim_vm_job(DROVER__JOB_KIND__JOB_VM_SET, "vm-1", "", false);
    PB_ADD(set->data, effects, policy());
    Drover__Command *update = pb_new(&drover__command__descriptor);
    update->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    update->job_update = pb_new(&drover__job_update__descriptor);
    assert_int_equal(version_of_command(update), 1);
    PB_ADD(update->job_update, effects, effect_job_create(pb_copy(set)));
    assert_int_equal(version_of_command(update), 4);
    pb_free(update->job_update->effects[--update->job_update->n_effects]);
    update->job_update->data = pb_copy(set->data);
    assert_int_equal(needs(update), 4);
    assert_int_equal(needs(creation(set)), 4);
}

static uint32_t snapshot_of(struct sim *sim)
{
    uint32_t schema;
    struct buf snapshot = {0};
    state_snapshot(sim->state, &snapshot);
    memcpy(&schema, snapshot.data + 8, sizeof schema);
    buf_free(&snapshot);
    return schema;
}

/* An older leader would take the guest over and leave the definition at the old file. */
static void job_of_later_effects_needs_their_version(void **unused)
{
    (void)unused;
    static const struct {
        Drover__JobKind kind;
        uint32_t version;
    } kinds[] = {{DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE, 3}, {DROVER__JOB_KIND__JOB_HOST_EVACUATE, VERSION_MAINTENANCE},
        {DROVER__JOB_KIND__JOB_VM_STOP, 1}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct sim sim;
        sim_open(&sim);
        sim_running_vm(&sim, "vm-1", "web-1");
        Drover__JobCreate *create = sim_vm_job(kinds[i].kind, "vm-1", "", false);
        assert_int_equal(needs(creation(pb_copy(create))), kinds[i].version);
        sim_job(&sim, create);
        assert_int_equal(snapshot_of(&sim), kinds[i].version);
        sim_close(&sim);
    }
    Drover__JobCreate *move = sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, "vm-1", "h2", false);
    move->data->options = pb_new(&drover__migration_options__descriptor);
    assert_int_equal(needs(creation(pb_copy(move))), 1);
    move->data->options->with_storage = true;
    assert_int_equal(needs(creation(pb_copy(move))), 3);
    Drover__Command *update = pb_new(&drover__command__descriptor);
    update->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    update->job_update = pb_new(&drover__job_update__descriptor);
    update->job_update->data = pb_new(&drover__job_data__descriptor);
    update->job_update->data->disks = pb_new(&drover__disk_moves__descriptor);
    assert_int_equal(needs(update), 3);
    pb_free(move);
}

/* Each change of the protocol has a place in the table: one that has not would be taken for one of a later program. */
static void every_change_has_a_version(void **unused)
{
    (void)unused;
    const ProtobufCMessageDescriptor *type = &drover__effect__descriptor;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        Drover__Effect *effect = pb_new(type);
        ProtobufCMessageUnknownField unknown = {.tag = 9999};
        effect->change_case = (Drover__Effect__ChangeCase)field->id;
        *(void **)(void *)((char *)effect + field->offset) = pb_new(field->descriptor);
        effect->base.n_unknown_fields = 1;
        effect->base.unknown_fields = &unknown;
        Drover__Effect *one[] = {effect};
        Drover__Change change = DROVER__CHANGE__INIT;
        Drover__Command command = DROVER__COMMAND__INIT;
        change.effects = one;
        change.n_effects = 1;
        command.body_case = DROVER__COMMAND__BODY_CHANGE;
        command.change = &change;
        uint32_t version = version_of_command(&command);
        if (version < 1 || version > STATE_SCHEMA)
            fail_msg("%s needs version %u, of %u that are known", field->name, version, STATE_SCHEMA);
        effect->base.n_unknown_fields = 0;
        effect->base.unknown_fields = NULL;
        pb_free(effect);
    }
}

/* A change of a program of the future, as it looks to this one. */
static void later_change_needs_later_version(void **unused)
{
    (void)unused;
    Drover__Effect *effect =
        pb_unpack(&drover__effect__descriptor, (const uint8_t *)"\xfa\x3e\x00", 3); /* field 1007 */
    assert_non_null(effect);
    assert_int_equal(needs(command_of_change(effect)), STATE_SCHEMA + 1);
    assert_int_equal(
        needs(command_of_change(pb_new(&drover__effect__descriptor))), 1); /* nobody's: all refuse it alike */
    assert_int_equal(needs(pb_new(&drover__command__descriptor)), 1);
}

/* What has been done leaves nothing behind that an older program could not hold; what is still to be done may. */
static void snapshot_needs_what_is_in_it(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web-1");
    sim_change(&sim, policy());
    assert_int_equal(snapshot_of(&sim), 1);
    Drover__JobCreate *set = sim_vm_job(DROVER__JOB_KIND__JOB_VM_SET, "vm-1", "", false);
    PB_ADD(set->data, effects, policy());
    uint64_t id = sim_job(&sim, set);
    assert_int_equal(snapshot_of(&sim), 4);
    Drover__Command *update = pb_new(&drover__command__descriptor);
    update->body_case = DROVER__COMMAND__BODY_JOB_UPDATE;
    update->job_update = pb_new(&drover__job_update__descriptor);
    update->job_update->job_id = id;
    update->job_update->state = DROVER__JOB_STATE__JOB_SUCCEEDED;
    assert_null(sim_apply(&sim, update, NULL));
    assert_int_equal(snapshot_of(&sim), 1);
    sim_change(&sim, effect_host_maintenance("h3", true)); /* an older program would give it VMs */
    assert_int_equal(snapshot_of(&sim), VERSION_MAINTENANCE);
    sim_change(&sim, effect_host_maintenance("h3", false));
    assert_int_equal(snapshot_of(&sim), 1);
    sim_close(&sim);
}

static void old_program_stops_at_later_command(void **unused)
{
    (void)unused;
    struct buf packed = {0}, result = {0};
    Drover__Command *command = command_of_change(effect_setting_put("x", "y"));
    command->version = STATE_SCHEMA + 1;
    pb_pack(command, &packed);
    pb_free(command);
    struct state *state = state_new();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        state_apply(state, packed.data, packed.len, &result);
        _exit(0); /* it went on */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), err_exit_status(ERR_UNSUPPORTED));
    state_free(state);
    buf_free(&packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(command_needs_what_is_in_it),
        cmocka_unit_test(job_needs_what_it_will_do),
        cmocka_unit_test(job_of_later_effects_needs_their_version),
        cmocka_unit_test(every_change_has_a_version),
        cmocka_unit_test(later_change_needs_later_version),
        cmocka_unit_test(snapshot_needs_what_is_in_it),
        cmocka_unit_test(old_program_stops_at_later_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
