/* What may be ended, and above all what may not: every combination of log and report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "controller/fleet/reconcile.h"

#define NONE     DROVER__PARTITION_STATE__PARTITION_NONE
#define STARTING DROVER__PARTITION_STATE__PARTITION_STARTING
#define RUNNING  DROVER__PARTITION_STATE__PARTITION_RUNNING
#define INCOMING DROVER__PARTITION_STATE__PARTITION_INCOMING
#define OUTGOING DROVER__PARTITION_STATE__PARTITION_OUTGOING
#define IN_DOUBT DROVER__PARTITION_STATE__PARTITION_IN_DOUBT
#define STOPPING DROVER__PARTITION_STATE__PARTITION_STOPPING
#define STOPPED  DROVER__PARTITION_STATE__PARTITION_STOPPED
#define FAILED   DROVER__PARTITION_STATE__PARTITION_FAILED

static const struct {
    const char *name, *owner;
    uint64_t generation;
    const char *hand_over_to;
    uint64_t job_id, reported;
    Drover__PartitionState state;
    enum reconcile_act act; /* for what h1 reports */
} table[] = {
    {"as it should be", "h1", 3, "", 0, 3, RUNNING, RECONCILE_NOTHING},
    {"the guest has powered off", "h1", 3, "", 0, 3, STOPPED, RECONCILE_RELEASE},
    {"QEMU has crashed", "h1", 3, "", 0, 3, FAILED, RECONCILE_RELEASE},
    {"it is just stopping", "h1", 3, "", 0, 3, STOPPING, RECONCILE_NOTHING},
    {"a job has it", "h1", 3, "", 9, 3, STOPPED, RECONCILE_NOTHING},
    {"a job has it, elsewhere", "h2", 3, "", 9, 2, RUNNING, RECONCILE_NOTHING},
    {"may be handed over to h1", "h2", 3, "h1", 0, 4, RUNNING, RECONCILE_NOTHING},
    {"may be handed over by h1", "h1", 3, "h2", 0, 3, IN_DOUBT, RECONCILE_NOTHING},
    {"in doubt, but the leave was taken back", "h1", 3, "", 0, 3, IN_DOUBT, RECONCILE_RENEW},
    {"being sent, but the leave was taken back", "h1", 3, "", 0, 3, OUTGOING, RECONCILE_FORSAKE},
    {"being sent", "h1", 3, "h2", 0, 3, OUTGOING, RECONCILE_NOTHING},
    {"being sent by a job", "h1", 3, "", 9, 3, OUTGOING, RECONCILE_NOTHING},
    {"in doubt, and renewed", "h1", 5, "", 0, 3, IN_DOUBT, RECONCILE_RESUME},
    {"the owner runs an older generation", "h1", 5, "", 0, 3, RUNNING, RECONCILE_WARN},
    {"the owner runs a later generation", "h1", 5, "", 0, 6, RUNNING, RECONCILE_WARN},
    {"the owner keeps an older one that has ended", "h1", 5, "", 0, 3, STOPPED, RECONCILE_END},
    {"left behind by a migration", "h2", 4, "", 0, 3, STOPPED, RECONCILE_END},
    {"in doubt, but h2 has taken it", "h2", 4, "", 0, 3, IN_DOUBT, RECONCILE_END},
    {"an old generation runs elsewhere", "h2", 4, "", 0, 3, RUNNING, RECONCILE_END},
    {"an old generation runs, nobody owns it", "", 4, "", 0, 3, RUNNING, RECONCILE_END},
    {"the present generation runs elsewhere", "h2", 4, "", 0, 4, RUNNING, RECONCILE_WARN},
    {"the present generation is being sent elsewhere", "h2", 4, "", 0, 4, OUTGOING, RECONCILE_WARN},
    {"a later generation runs elsewhere", "h2", 4, "", 0, 5, RUNNING, RECONCILE_WARN},
    {"the present generation, nobody owns it", "", 4, "", 0, 4, RUNNING, RECONCILE_WARN},
    {"an incoming one that nobody waits for", "h2", 4, "", 0, 5, INCOMING, RECONCILE_END},
    {"the present generation, ended, not the owner's", "h2", 4, "", 0, 4, STOPPED, RECONCILE_END},
    {"about to be gone", "h2", 4, "", 0, 3, NONE, RECONCILE_NOTHING},
    {"starting without a job", "h1", 4, "", 0, 4, STARTING, RECONCILE_NOTHING},
};

static struct reconcile_decision decide(size_t i)
{
    struct state_vm vm = {.generation = table[i].generation, .job_id = table[i].job_id};
    struct fleet_partition p = {.generation = table[i].reported, .state = table[i].state};
    snprintf(vm.owner, sizeof vm.owner, "%s", table[i].owner);
    snprintf(vm.hand_over_to, sizeof vm.hand_over_to, "%s", table[i].hand_over_to);
    if (table[i].hand_over_to[0])
        snprintf(vm.hand_over_id, sizeof vm.hand_over_id, "m");
    return reconcile_partition("h1", &p, &vm, 1000);
}

static void decisions(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct reconcile_decision d = decide(i);
        if (d.act != table[i].act)
            fail_msg("%s: %d (%s)", table[i].name, (int)d.act, d.why);
    }
}

/* Its host has taken the generation, and asks QEMU on until it runs: another one would come too late or too early. */
static void one_that_is_being_resumed_keeps_its_generation(void **unused)
{
    (void)unused;
    struct state_vm vm = {.generation = 5, .owner = "h1"};
    struct fleet_partition p = {.generation = 5, .state = IN_DOUBT, .resuming = true};
    assert_int_equal(reconcile_partition("h1", &p, &vm, 1000).act, RECONCILE_NOTHING);
    p.generation = 4;
    assert_int_equal(reconcile_partition("h1", &p, &vm, 1000).act, RECONCILE_RESUME);
    p.generation = 5;
    p.resuming = false; /* it has been started again and waits to be told */
    assert_int_equal(reconcile_partition("h1", &p, &vm, 1000).act, RECONCILE_RENEW);
}

/* Over all combinations: what could be the only instance is never ended. */
static void the_only_instance_is_never_ended(void **unused)
{
    (void)unused;
    const char *owners[] = {"", "h1", "h2"};
    for (size_t o = 0; o < 3; o++)
        for (uint64_t reported = 1; reported < 6; reported++)
            for (int state = NONE; state <= FAILED; state++)
                for (int bits = 0; bits < 4; bits++) {
                    struct state_vm vm = {.generation = 3, .job_id = bits & 1};
                    struct fleet_partition p = {.generation = reported, .state = (Drover__PartitionState)state};
                    snprintf(vm.owner, sizeof vm.owner, "%s", owners[o]);
                    if (bits & 2) {
                        snprintf(vm.hand_over_id, sizeof vm.hand_over_id, "m");
                        snprintf(vm.hand_over_to, sizeof vm.hand_over_to, "h1");
                    }
                    bool runs = state == RUNNING || state == OUTGOING;
                    bool only = runs && (o == 1 || reported >= 3 || bits);
                    enum reconcile_act act = reconcile_partition("h1", &p, &vm, 1000).act;
                    assert_false(only && act == RECONCILE_END);
                    assert_false(only && act == RECONCILE_RELEASE);
                }
}

static void unknown_vm_gets_some_time(void **unused)
{
    (void)unused;
    struct fleet_partition p = {.generation = 1, .state = RUNNING, .first_ms = 5000};
    assert_int_equal(reconcile_partition("h1", &p, NULL, 5000).act, RECONCILE_NOTHING);
    p.state = STOPPED;
    assert_int_equal(reconcile_partition("h1", &p, NULL, 5000).act, RECONCILE_END);
}

/* A cluster that was founded anew meets the guests of the old one. */
static void a_guest_of_an_unknown_vm_is_left_alone(void **unused)
{
    (void)unused;
    static const struct {
        Drover__PartitionState state;
        enum reconcile_act act;
    } rows[] = {{STARTING, RECONCILE_WARN}, {RUNNING, RECONCILE_WARN}, {OUTGOING, RECONCILE_WARN},
        {INCOMING, RECONCILE_WARN}, {STOPPING, RECONCILE_NOTHING}, {IN_DOUBT, RECONCILE_END}, {STOPPED, RECONCILE_END},
        {FAILED, RECONCILE_END}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fleet_partition p = {.generation = 1, .state = rows[i].state, .first_ms = 5000};
        assert_int_equal(reconcile_partition("h1", &p, NULL, 5000 + RECONCILE_UNKNOWN_MS).act, rows[i].act);
    }
}

static void missing_partition_is_gone_after_some_reports(void **unused)
{
    (void)unused;
    struct state_vm vm = {.generation = 3, .owner = "h1"};
    assert_int_equal(reconcile_missing(&vm, RECONCILE_MISSING - 1).act, RECONCILE_NOTHING);
    assert_int_equal(reconcile_missing(&vm, RECONCILE_MISSING).act, RECONCILE_RELEASE);
    vm.job_id = 4;
    assert_int_equal(reconcile_missing(&vm, RECONCILE_MISSING).act, RECONCILE_NOTHING);
    vm.job_id = 0;
    snprintf(vm.hand_over_id, sizeof vm.hand_over_id, "m");
    assert_int_equal(reconcile_missing(&vm, RECONCILE_MISSING).act, RECONCILE_NOTHING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions),
        cmocka_unit_test(one_that_is_being_resumed_keeps_its_generation),
        cmocka_unit_test(the_only_instance_is_never_ended),
        cmocka_unit_test(unknown_vm_gets_some_time),
        cmocka_unit_test(a_guest_of_an_unknown_vm_is_left_alone),
        cmocka_unit_test(missing_partition_is_gone_after_some_reports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
