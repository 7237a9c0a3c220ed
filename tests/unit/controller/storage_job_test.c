/* Moving a disk: undisturbed, and struck at every action. What the log names must be what the files say, always. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#define ACTIONS_MAX 400u
#define VM          "vm-1"
#define MOVE        DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE
#define OK          DROVER__JOB_STATE__JOB_SUCCEEDED
#define FAILED      DROVER__JOB_STATE__JOB_FAILED
#define CANCELLED   DROVER__JOB_STATE__JOB_CANCELLED

static const struct scenario {
    const char *name;
    struct sim_storage storage;
    Drover__JobState end; /* undisturbed */
} scenarios[] = {
    {"moved", {0}, OK},
    {"the copying fails", {.fails = true}, FAILED},
    {"moved, and the host forgets it", {.forgets = true}, OK},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static uint64_t begin(struct sim *sim, const struct sim_storage *storage)
{
    sim_open(sim);
    sim_running_vm(sim, VM, "web-1");
    sim->storage = *storage;
    return sim_job(sim, sim_vm_job(MOVE, VM, "h1", false));
}

static void check_end(struct sim *sim, const char *name, Drover__JobState end)
{
    char disk[64];
    sim_disk(sim, VM, disk);
    bool named = strcmp(disk, SIM_TARGET) == 0;
    if (named != sim->storage.committed || (end == OK) != named)
        fail_msg("%s: job ended %d, the log names %s, the files say %s", name, (int)end, disk,
            sim->storage.committed ? "new" : "old");
    if (sim->storage.begun && !sim->storage.over)
        fail_msg("%s: the host still copies", name);
    assert_int_equal(sim_vm(sim, VM).job_id, 0);
    assert_string_equal(sim_vm(sim, VM).owner, "h1");
}

static void undisturbed(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SCENARIOS; i++) {
        struct sim sim;
        uint64_t id = begin(&sim, &scenarios[i].storage);
        Drover__JobState end = sim_run(&sim, id, ACTIONS_MAX);
        check_end(&sim, scenarios[i].name, end);
        assert_int_equal(end, scenarios[i].end);
        assert_int_equal(sim.storage.removed, end == OK);
        sim_close(&sim);
    }
}

static void struck_at_every_action(void **unused)
{
    (void)unused;
    for (enum sim_blow blow = BLOW_LEADER_BEFORE; blow <= BLOW_AWAY; blow++)
        for (size_t i = 0; i < SCENARIOS; i++)
            for (unsigned at = 0;; at++) {
                struct sim sim;
                char name[128];
                uint64_t id = begin(&sim, &scenarios[i].storage);
                sim.blow = blow;
                sim.blow_at = at;
                snprintf(name, sizeof name, "%s, blow %d at action %u", scenarios[i].name, (int)blow, at);
                check_end(&sim, name, sim_run(&sim, id, ACTIONS_MAX));
                bool struck = sim.struck;
                sim_close(&sim);
                if (!struck)
                    break;
            }
}

static void a_copy_that_would_never_end_is_cancelled(void **unused)
{
    (void)unused;
    for (unsigned at = 0; at < 12; at++) {
        struct sim sim;
        struct sim_storage slow = {.slow = true};
        uint64_t id = begin(&sim, &slow);
        sim.blow = BLOW_CANCEL;
        sim.blow_at = at;
        assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), CANCELLED);
        check_end(&sim, "slow", CANCELLED);
        sim_close(&sim);
    }
}

/* --- nobody can tell --- */

static Drover__Command *settle(struct sim *sim, uint64_t id, const char *disk, struct err *err)
{
    Drover__Command *command = pb_new(&drover__command__descriptor);
    if (job_settle_command(sim->state, id, "anna", disk, err, command) == 0)
        return command;
    pb_free(command);
    return NULL;
}

static void wait_in_doubt(struct sim *sim, uint64_t id)
{
    char words[64];
    snprintf(words, sizeof words, "drover job cancel %u --disk FILE", (unsigned)id);
    sim->until = "cannot tell which file is the disk: the directory is not the one";
    sim_run(sim, id, ACTIONS_MAX);
    sim->until = NULL;
    assert_non_null(strstr(sim->job.waiting, words));
}

/* The job waits, says for what and what to do; what somebody says ends it, and nothing is removed. */
static void somebody_says_which_file_is_the_disk(void **unused)
{
    (void)unused;
    static const char *const files[] = {SIM_DISK, SIM_TARGET};
    for (unsigned cancelled = 0; cancelled < 2; cancelled++)
        for (size_t i = 0; i < 2; i++) {
            struct sim sim;
            struct err err;
            char disk[64];
            const struct sim_storage blind = {.forgets = true, .blind = true};
            uint64_t id = begin(&sim, &blind);
            assert_null(settle(&sim, id, SIM_DISK, &err)); /* still at its step check */
            assert_int_equal(err.code, ERR_WRONG_STATE);
            wait_in_doubt(&sim, id);
            if (cancelled) {
                sim_change(&sim, effect_job_cancel(id, "anna"));
                wait_in_doubt(&sim, id);
            }
            assert_null(settle(&sim, id, "/x", &err));
            assert_int_equal(err.code, ERR_INVALID);
            Drover__Command *command = settle(&sim, id, files[i], &err);
            assert_non_null(command);
            assert_null(sim_apply(&sim, command, NULL));
            assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), CANCELLED);
            assert_non_null(strstr(sim.job.log.job->error->message, "by anna, who says that"));
            sim_disk(&sim, VM, disk);
            assert_string_equal(disk, files[i]);
            assert_int_equal(sim.storage.removed, 0);
            assert_int_equal(sim_vm(&sim, VM).job_id, 0);
            assert_null(settle(&sim, id, files[i], &err));
            assert_int_equal(err.code, ERR_WRONG_STATE);
            sim_close(&sim);
        }
}

/* What the host knows counts, whatever anybody says. */
static void what_is_said_does_not_outdo_what_is_known(void **unused)
{
    (void)unused;
    struct sim sim;
    struct err err;
    char disk[64];
    const struct sim_storage slow = {.slow = true};
    uint64_t id = begin(&sim, &slow);
    sim.until = ""; /* anything: it polls */
    sim_run(&sim, id, ACTIONS_MAX);
    sim.until = NULL;
    Drover__Command *command = settle(&sim, id, SIM_TARGET, &err);
    assert_non_null(command);
    assert_null(sim_apply(&sim, command, NULL));
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), CANCELLED);
    sim_disk(&sim, VM, disk);
    assert_string_equal(disk, SIM_DISK);
    sim_close(&sim);
}

/* The log takes nothing for granted: the disk must still be where the move found it, and the job must hold the VM. */
static void only_the_disk_that_was_meant(void **unused)
{
    (void)unused;
    struct sim sim;
    char disk[64];
    uint64_t id = begin(&sim, &scenarios[0].storage);
    Drover__Command *command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_CHANGE;
    command->change = pb_new(&drover__change__descriptor);
    PB_ADD(command->change, effects, effect_vm_disk_put(VM, SIM_DISK, "/x", "raw"));
    assert_non_null(strstr(sim_apply(&sim, command, NULL), "held by job"));
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    command = pb_new(&drover__command__descriptor);
    command->body_case = DROVER__COMMAND__BODY_CHANGE;
    command->change = pb_new(&drover__change__descriptor);
    PB_ADD(command->change, effects, effect_vm_disk_put(VM, SIM_DISK, "/x", "raw"));
    assert_non_null(strstr(sim_apply(&sim, command, NULL), "no disk"));
    sim_disk(&sim, VM, disk);
    assert_string_equal(disk, SIM_TARGET);
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(undisturbed),
        cmocka_unit_test(struck_at_every_action),
        cmocka_unit_test(a_copy_that_would_never_end_is_cancelled),
        cmocka_unit_test(somebody_says_which_file_is_the_disk),
        cmocka_unit_test(what_is_said_does_not_outdo_what_is_known),
        cmocka_unit_test(only_the_disk_that_was_meant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
