/* What hostd remembers of things that are over: the ledger and the outcomes. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "hostd/ledger.h"
#include "hostd/outcomes.h"

#define VM_A "0f4d6a2e-1c5b-4a39-9e87-3b2a1c0d9e8f"
#define VM_B "1f4d6a2e-1c5b-4a39-9e87-3b2a1c0d9e8f"

static char directory[64];

static int setup(void **unused)
{
    (void)unused;
    strcpy(directory, "/tmp/drover-hostd-test.XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    struct err err;
    return file_remove_tree(directory, &err);
}

#define METHOD         120
#define KEY(job, step) ((struct ledger_key){(job), (step), METHOD})

/* A cluster that is founded anew numbers its jobs from 1 again. */
static void a_number_used_again_is_another_job(void **unused)
{
    (void)unused;
    struct err err;
    struct ledger *l;
    cleanup_free char *path = mem_printf("%s/anew.json", directory);
    static const char older[] = "{\"actions\":[{\"job\":9,\"step\":0,\"method\":120,\"code\":\"none\",\"text\":\"\"}],"
                                "\"ended\":[]}";
    struct ledger_key old = {1, 2, METHOD, 1700000000000}, new = {1, 2, METHOD, 1800000000000};
    assert_int_equal(ledger_open(path, &err, &l), 0);
    ledger_remember(l, old, ERR_NONE, "done");
    ledger_close(l);
    assert_int_equal(ledger_open(path, &err, &l), 0);
    assert_non_null(ledger_find(l, old));
    assert_null(ledger_find(l, new));
    assert_non_null(ledger_find(l, KEY(1, 2))); /* a controller that does not tell it */
    ledger_remember(l, new, ERR_INVALID, "");
    assert_int_equal(ledger_find(l, new)->code, ERR_INVALID);
    assert_int_equal(ledger_find(l, old)->code, ERR_NONE);
    ledger_close(l);
    assert_int_equal(ledger_parse(older, sizeof older - 1, &err, &l), 0);
    assert_non_null(ledger_find(l, (struct ledger_key){9, 0, METHOD, 1700000000000}));
    ledger_close(l);
}

static void results_survive_a_restart(void **unused)
{
    (void)unused;
    struct err err;
    struct ledger *l;
    cleanup_free char *path = mem_printf("%s/ledger.json", directory);
    assert_int_equal(ledger_open(path, &err, &l), 0);
    assert_null(ledger_find(l, KEY(7, 1)));
    ledger_remember(l, KEY(7, 1), ERR_NONE, "tcp://10.0.0.1:5");
    ledger_remember(l, KEY(7, 2), ERR_INVALID, "bad\x01 thing");
    ledger_remember(l, KEY(0, 0), ERR_NONE, "no key");
    ledger_end(l, VM_A, 5);
    ledger_end(l, VM_A, 3);
    ledger_close(l);
    assert_int_equal(ledger_open(path, &err, &l), 0);
    assert_int_equal(ledger_find(l, KEY(7, 1))->code, ERR_NONE);
    assert_string_equal(ledger_find(l, KEY(7, 1))->text, "tcp://10.0.0.1:5");
    assert_int_equal(ledger_find(l, KEY(7, 2))->code, ERR_INVALID);
    assert_string_equal(ledger_find(l, KEY(7, 2))->text, "bad? thing");
    assert_null(ledger_find(l, KEY(0, 0)));
    /* What undoes a step has its job and step, and must not be answered with the step's result. */
    assert_null(ledger_find(l, (struct ledger_key){7, 2, METHOD + 1}));
    assert_int_equal(ledger_ended(l, VM_A), 5);
    assert_int_equal(ledger_ended(l, VM_B), 0);
    ledger_close(l);
}

static void the_oldest_gives_way(void **unused)
{
    (void)unused;
    struct err err;
    struct ledger *l;
    static const char empty[] = "{\"actions\":[],\"ended\":[]}";
    assert_int_equal(ledger_parse(empty, sizeof empty - 1, &err, &l), 0);
    for (uint32_t i = 1; i <= LEDGER_ACTIONS_MAX + 10; i++)
        ledger_remember(l, KEY(i, 0), ERR_NONE, "");
    assert_null(ledger_find(l, KEY(10, 0)));
    assert_non_null(ledger_find(l, KEY(11, 0)));
    assert_non_null(ledger_find(l, KEY(LEDGER_ACTIONS_MAX + 10, 0)));
    ledger_end(l, VM_A, 9);
    for (unsigned i = 0; i < LEDGER_GENERATIONS_MAX; i++) {
        char id[40];
        snprintf(id, sizeof id, "%08x-1c5b-4a39-9e87-3b2a1c0d9e8f", i);
        ledger_end(l, id, 1);
    }
    assert_int_equal(ledger_ended(l, VM_A), 0);
    assert_int_equal(ledger_ended(l, "00000000-1c5b-4a39-9e87-3b2a1c0d9e8f"), 1);
    ledger_close(l);
}

static void a_damaged_ledger_is_refused(void **unused)
{
    (void)unused;
    struct err err;
    struct ledger *l;
    static const char *const bad[] = {"", "{}", "[]", "{\"actions\":[{\"job\":1}],\"ended\":[]}",
        "{\"actions\":[],\"ended\":[{\"vm_id\":\"x\",\"generation\":1}]}",
        "{\"actions\":[],\"ended\":[{\"vm_id\":\"" VM_A "\",\"generation\":0}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(ledger_parse(bad[i], strlen(bad[i]), &err, &l), -1);
}

static void add(struct outcomes *o, const char *id, Drover__MigrationOutcome how, bool told)
{
    struct err err;
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    outcome.migration_id = (char *)(uintptr_t)id;
    outcome.vm_id = (char *)VM_A;
    outcome.outcome = how;
    assert_int_equal(outcomes_add(o, &outcome, told, &err), 0);
}

#define TAKEN   DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN
#define ABORTED DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED

static void the_first_outcome_stands(void **unused)
{
    (void)unused;
    struct err err;
    struct outcomes *o;
    cleanup_free char *path = mem_printf("%s/outcomes", directory);
    assert_int_equal(outcomes_open(path, &err, &o), 0);
    add(o, "m-1", ABORTED, false);
    add(o, "m-1", TAKEN, false);
    add(o, "m-2", TAKEN, true);
    add(o, "m-3", TAKEN, false);
    outcomes_set_heard(o, "m-3", 1500);
    outcomes_set_heard(o, "m-4", 1500); /* nobody's */
    assert_int_equal(outcomes_find(o, "m-3")->heard_us, 1500);
    assert_int_equal(outcomes_find(o, "m-2")->heard_us, 0);
    assert_int_equal(outcomes_find(o, "m-1")->outcome, ABORTED);
    outcomes_close(o);
    assert_int_equal(outcomes_open(path, &err, &o), 0);
    assert_int_equal(outcomes_find(o, "m-1")->outcome, ABORTED);
    assert_int_equal(outcomes_find(o, "m-2")->outcome, TAKEN);
    assert_null(outcomes_find(o, "m-9"));
    assert_int_equal(outcomes_untold_count(o), 2);
    /* Files written within one tick of the clock come in any order. */
    const char *one = outcomes_untold(o, NULL)->migration_id, *two = outcomes_untold(o, one)->migration_id;
    assert_string_not_equal(one, two);
    assert_string_not_equal(one, "m-2");
    assert_string_not_equal(two, "m-2");
    assert_null(outcomes_untold(o, two));
    outcomes_set_told(o, "m-1");
    outcomes_close(o);
    assert_int_equal(outcomes_open(path, &err, &o), 0);
    assert_int_equal(outcomes_untold_count(o), 1);
    assert_int_equal(outcomes_find(o, "m-1")->outcome, ABORTED);
    outcomes_close(o);
}

/* Who asks once more for what has failed early must hear of that, and not that it is over. */
static void a_refusal_names_how_it_ended(void **unused)
{
    (void)unused;
    struct err err;
    Drover__ErrorInfo why = DROVER__ERROR_INFO__INIT;
    Drover__MigrateOutcomeRequest kept = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    kept.migration_id = (char *)"m-1";
    assert_int_equal(outcome_refusal(&kept, &err), -1);
    assert_non_null(strstr(err.message, "fenced"));
    kept.outcome = TAKEN;
    assert_int_equal(outcome_refusal(&kept, &err), -1);
    assert_null(strstr(err.message, "fenced"));
    kept.outcome = ABORTED;
    kept.error = &why;
    why.code = (char *)"no-capacity";
    why.message = (char *)"QEMU has no memory";
    assert_int_equal(outcome_refusal(&kept, &err), -1);
    assert_int_equal(err.code, ERR_CAPACITY);
    assert_non_null(strstr(err.message, "QEMU has no memory"));
    why.code = (char *)"unavailable";
    assert_int_equal(outcome_refusal(&kept, &err), -1);
    assert_false(err_retryable(err.code)); /* it would be asked for again, in vain */
    assert_non_null(strstr(err.message, "QEMU has no memory"));
}

static void what_was_told_gives_way_first(void **unused)
{
    (void)unused;
    struct err err;
    struct outcomes *o;
    cleanup_free char *path = mem_printf("%s/many", directory);
    assert_int_equal(outcomes_open(path, &err, &o), 0);
    add(o, "first", TAKEN, false);
    add(o, "told", TAKEN, true);
    for (int i = 0; i < OUTCOMES_MAX - 2; i++) {
        char id[32];
        snprintf(id, sizeof id, "m-%d", i);
        add(o, id, TAKEN, false);
    }
    add(o, "more", TAKEN, false);
    assert_null(outcomes_find(o, "told"));
    assert_non_null(outcomes_find(o, "first"));
    add(o, "one-more", TAKEN, false);
    assert_null(outcomes_find(o, "first"));
    outcomes_close(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_used_again_is_another_job),
        cmocka_unit_test(results_survive_a_restart),
        cmocka_unit_test(the_oldest_gives_way),
        cmocka_unit_test(a_damaged_ledger_is_refused),
        cmocka_unit_test(a_refusal_names_how_it_ended),
        cmocka_unit_test(the_first_outcome_stands),
        cmocka_unit_test(what_was_told_gives_way_first),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
