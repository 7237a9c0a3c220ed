/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <limits.h>
/* clang-format on */
#include "hostd/decision.h"

static void a_dead_source_engine(void **unused)
{
    (void)unused;
    assert_int_equal(decide_engine_death(false, RECORD_NONE, false), VERDICT_RUN);
    assert_int_equal(decide_engine_death(false, RECORD_FAILED, false), VERDICT_RUN);
    assert_int_equal(decide_engine_death(false, RECORD_HANDED_OVER, false), VERDICT_DOUBT);
    assert_int_equal(decide_engine_death(false, RECORD_SENDING, false), VERDICT_SEND);
    assert_int_equal(decide_engine_death(false, RECORD_TAKEN, false), VERDICT_END);
    /* What no source writes is no leave to run. */
    assert_int_equal(decide_engine_death(false, RECORD_OWNER, false), VERDICT_DOUBT);
    assert_int_equal(decide_engine_death(false, RECORD_FETCHING, false), VERDICT_DOUBT);
    assert_int_equal(decide_engine_death(false, RECORD_UNREADABLE, false), VERDICT_DOUBT);
}

/* Its record of the hand-over may be lost, and with it the guest's only other owner's claim. */
static void a_source_that_was_reset_trusts_no_silence(void **unused)
{
    (void)unused;
    assert_int_equal(decide_engine_death(false, RECORD_NONE, true), VERDICT_DOUBT);
    assert_int_equal(decide_engine_death(false, RECORD_FAILED, true), VERDICT_RUN); /* the last that its engine wrote */
    static const enum record_phase others[] = {
        RECORD_HANDED_OVER, RECORD_SENDING, RECORD_TAKEN, RECORD_OWNER, RECORD_FETCHING, RECORD_UNREADABLE};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(decide_engine_death(false, others[i], true), decide_engine_death(false, others[i], false));
    for (int phase = RECORD_NONE; phase <= RECORD_UNREADABLE; phase++)
        assert_int_equal(decide_engine_death(true, (enum record_phase)phase, true),
            decide_engine_death(true, (enum record_phase)phase, false));
}

static void a_dead_destination_engine(void **unused)
{
    (void)unused;
    assert_int_equal(decide_engine_death(true, RECORD_OWNER, false), VERDICT_RUN);
    assert_int_equal(decide_engine_death(true, RECORD_FETCHING, false), VERDICT_LOST);
    static const enum record_phase others[] = {
        RECORD_NONE, RECORD_FAILED, RECORD_HANDED_OVER, RECORD_SENDING, RECORD_TAKEN, RECORD_UNREADABLE};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(decide_engine_death(true, others[i], false), VERDICT_END);
}

/* Of every pair of records the two engines of one migration can leave, at most one host runs the guest by itself. */
static void never_two_owners(void **unused)
{
    (void)unused;
    static const struct {
        enum record_phase source, destination;
    } pairs[] = {
        {RECORD_NONE, RECORD_NONE},
        {RECORD_NONE, RECORD_FAILED},
        {RECORD_FAILED, RECORD_NONE},
        {RECORD_FAILED, RECORD_FAILED},
        {RECORD_HANDED_OVER, RECORD_NONE},
        {RECORD_HANDED_OVER, RECORD_FAILED},
        {RECORD_HANDED_OVER, RECORD_OWNER},
        {RECORD_TAKEN, RECORD_OWNER},
        {RECORD_SENDING, RECORD_NONE},
        {RECORD_SENDING, RECORD_FAILED},
        {RECORD_SENDING, RECORD_FETCHING},
        {RECORD_SENDING, RECORD_OWNER},
        {RECORD_TAKEN, RECORD_FETCHING},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        int owners = (decide_engine_death(false, pairs[i].source, false) == VERDICT_RUN) +
                     (decide_engine_death(true, pairs[i].destination, false) == VERDICT_RUN) +
                     (decide_engine_death(true, pairs[i].destination, false) == VERDICT_LOST);
        assert_true(owners <= 1);
    }
}

/* A reset may have taken the last replacement of the record back, and that may have been the one by `owner`. */
static void what_never_ran(void **unused)
{
    (void)unused;
    static const enum record_phase ended[] = {RECORD_NONE, RECORD_FAILED, RECORD_HANDED_OVER, RECORD_TAKEN};
    for (size_t i = 0; i < sizeof ended / sizeof *ended; i++) {
        assert_int_equal(decide_engine_death(true, ended[i], false), VERDICT_END);
        assert_true(decide_never_ran(ended[i], false));
    }
    assert_false(decide_never_ran(RECORD_NONE, true));
    assert_false(decide_never_ran(RECORD_HANDED_OVER, true));
    assert_false(decide_never_ran(RECORD_TAKEN, true));
    assert_true(decide_never_ran(RECORD_FAILED, true)); /* the last that its engine wrote */
    assert_false(decide_never_ran(RECORD_UNREADABLE, false));
    assert_false(decide_never_ran(RECORD_UNREADABLE, true));
    for (int reset = 0; reset < 2; reset++) {
        assert_false(decide_never_ran(RECORD_OWNER, reset));
        assert_false(decide_never_ran(RECORD_FETCHING, reset));
    }
}

/* Killed, it may leave a doubt; told to stop, it resumes the guest: only where nothing can have been handed over. */
static void a_source_whose_destination_is_gone(void **unused)
{
    (void)unused;
    assert_false(decide_forsaken(RECORD_NONE));
    assert_false(decide_forsaken(RECORD_FAILED));
    assert_true(decide_forsaken(RECORD_HANDED_OVER));
    assert_true(decide_forsaken(RECORD_SENDING));
    assert_true(decide_forsaken(RECORD_UNREADABLE));
}

static void what_a_restarted_hostd_does(void **unused)
{
    (void)unused;
    static const struct {
        enum partition_state state;
        enum adoption neither, guest, engine, both; /* what of the two is alive */
    } table[] = {
        {STATE_STARTING, ADOPT_END, ADOPT_WATCH, ADOPT_END, ADOPT_WATCH},
        {STATE_RUNNING, ADOPT_GUEST_DEATH, ADOPT_WATCH, ADOPT_GUEST_DEATH, ADOPT_WATCH},
        {STATE_INCOMING, ADOPT_GUEST_DEATH, ADOPT_ENGINE_DEATH, ADOPT_ENGINE_STOP, ADOPT_WATCH_ENGINE},
        {STATE_OUTGOING, ADOPT_GUEST_DEATH, ADOPT_ENGINE_DEATH, ADOPT_ENGINE_STOP, ADOPT_WATCH_ENGINE},
        {STATE_IN_DOUBT, ADOPT_GUEST_DEATH, ADOPT_WATCH, ADOPT_GUEST_DEATH, ADOPT_WATCH},
        {STATE_STOPPING, ADOPT_END, ADOPT_END, ADOPT_END, ADOPT_END},
        {STATE_STOPPED, ADOPT_KEEP, ADOPT_KEEP, ADOPT_KEEP, ADOPT_KEEP},
        {STATE_FAILED, ADOPT_KEEP, ADOPT_KEEP, ADOPT_KEEP, ADOPT_KEEP},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(decide_adoption(table[i].state, false, false, false, RECORD_NONE), table[i].neither);
        assert_int_equal(decide_adoption(table[i].state, true, false, false, RECORD_NONE), table[i].guest);
        assert_int_equal(decide_adoption(table[i].state, false, true, false, RECORD_NONE), table[i].engine);
        assert_int_equal(decide_adoption(table[i].state, true, true, false, RECORD_NONE), table[i].both);
    }
    assert_int_equal(decide_adoption(STATE_STOPPING, true, false, true, RECORD_NONE), ADOPT_WATCH);
    assert_int_equal(decide_adoption(STATE_STOPPING, false, false, true, RECORD_NONE), ADOPT_END);
}

/* What a guest needs at its new host is in the RAM file here, whether the QEMU that it left lives or not. */
static void a_sender_outlives_its_guest(void **unused)
{
    (void)unused;
    assert_true(decide_sends_on(false, RECORD_SENDING));
    assert_false(decide_sends_on(true, RECORD_SENDING));
    static const enum record_phase others[] = {
        RECORD_NONE, RECORD_FAILED, RECORD_HANDED_OVER, RECORD_TAKEN, RECORD_OWNER, RECORD_FETCHING, RECORD_UNREADABLE};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(decide_sends_on(false, others[i]));
    assert_int_equal(decide_adoption(STATE_OUTGOING, false, true, false, RECORD_SENDING), ADOPT_WATCH_SENDER);
    assert_int_equal(decide_adoption(STATE_OUTGOING, false, false, false, RECORD_SENDING), ADOPT_GUEST_DEATH);
    assert_int_equal(decide_adoption(STATE_OUTGOING, true, true, false, RECORD_SENDING), ADOPT_WATCH_ENGINE);
    assert_int_equal(decide_adoption(STATE_OUTGOING, false, true, false, RECORD_HANDED_OVER), ADOPT_ENGINE_STOP);
    assert_int_equal(decide_guest_death(STATE_OUTGOING, RECORD_SENDING), DEATH_DOUBT);
}

/* A guest whose monitor is silent may run, for as long as its storage takes to come back. */
static void a_silent_monitor_costs_no_guest(void **unused)
{
    (void)unused;
    for (unsigned refusals = 0; refusals < 100; refusals++) {
        assert_int_equal(decide_resume(ERR_TIMEOUT, refusals, 0, false), RESUME_AGAIN);
        assert_int_equal(decide_resume(ERR_UNAVAILABLE, refusals, 3600000, true), RESUME_AGAIN);
    }
    assert_int_equal(decide_resume(ERR_BUSY, 0, 3600000, true), RESUME_AGAIN);
    assert_int_equal(decide_resume(ERR_WRONG_STATE, 1, 0, false), RESUME_AGAIN);
    assert_int_equal(decide_resume(ERR_WRONG_STATE, 5, 0, false), RESUME_GIVE_UP);
    assert_int_equal(decide_resume(ERR_WRONG_STATE, 5, 3600000, true), RESUME_GIVE_UP);
}

/* Whoever waits is told once, and the guest is asked on. */
static void a_long_silence_is_told_once(void **unused)
{
    (void)unused;
    assert_int_equal(decide_resume(ERR_TIMEOUT, 0, 1000, false), RESUME_AGAIN);
    assert_int_equal(decide_resume(ERR_TIMEOUT, 0, 60000, false), RESUME_TELL);
    assert_int_equal(decide_resume(ERR_WRONG_STATE, 1, 60000, false), RESUME_TELL);
    assert_int_equal(decide_resume(ERR_BUSY, 0, 60000, false), RESUME_TELL);
    assert_int_equal(decide_resume(ERR_TIMEOUT, 0, 60000, true), RESUME_AGAIN);
}

static void it_is_asked_ever_more_seldom_but_for_good(void **unused)
{
    (void)unused;
    assert_int_equal(decide_resume_pause_ms(0), 500);
    for (unsigned asked = 0; asked < 100; asked++)
        assert_true(decide_resume_pause_ms(asked) <= decide_resume_pause_ms(asked + 1));
    assert_int_equal(decide_resume_pause_ms(100), 4000);
    assert_int_equal(decide_resume_pause_ms(UINT_MAX), 4000);
}

/* What an engine has said is no sign that it let go of the guest's memory: how it ended is. */
static void who_lets_go_of_the_guests_memory(void **unused)
{
    (void)unused;
    for (int phase = RECORD_NONE; phase <= RECORD_UNREADABLE; phase++) {
        enum record_phase at = (enum record_phase)phase;
        assert_true(decide_let_go(false, at, true, false));
        assert_false(decide_let_go(false, at, true, true));
        assert_false(decide_let_go(false, at, false, false)); /* nobody waits */
        for (int in_order = 0; in_order < 2; in_order++) {
            /* A destination does not watch, but may have been about to have run what is whole elsewhere. */
            assert_int_equal(decide_let_go(true, at, true, in_order), at == RECORD_FETCHING);
            assert_false(decide_let_go(true, at, false, in_order));
        }
    }
}

static void what_a_guests_death_means(void **unused)
{
    (void)unused;
    assert_int_equal(decide_guest_death(STATE_RUNNING, RECORD_NONE), DEATH_REPORT);
    assert_int_equal(decide_guest_death(STATE_STARTING, RECORD_NONE), DEATH_REMOVE);
    assert_int_equal(decide_guest_death(STATE_STOPPING, RECORD_NONE), DEATH_REMOVE);
    assert_int_equal(decide_guest_death(STATE_IN_DOUBT, RECORD_HANDED_OVER), DEATH_DOUBT);
    assert_int_equal(decide_guest_death(STATE_OUTGOING, RECORD_NONE), DEATH_REPORT);
    assert_int_equal(decide_guest_death(STATE_OUTGOING, RECORD_FAILED), DEATH_REPORT);
    assert_int_equal(decide_guest_death(STATE_OUTGOING, RECORD_HANDED_OVER), DEATH_DOUBT);
    assert_int_equal(decide_guest_death(STATE_OUTGOING, RECORD_UNREADABLE), DEATH_DOUBT);
    assert_int_equal(decide_guest_death(STATE_OUTGOING, RECORD_TAKEN), DEATH_REMOVE);
    assert_int_equal(decide_guest_death(STATE_INCOMING, RECORD_NONE), DEATH_REMOVE);
    assert_int_equal(decide_guest_death(STATE_INCOMING, RECORD_OWNER), DEATH_REPORT);
    assert_int_equal(decide_guest_death(STATE_INCOMING, RECORD_FETCHING), DEATH_REPORT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dead_source_engine),
        cmocka_unit_test(a_source_that_was_reset_trusts_no_silence),
        cmocka_unit_test(a_dead_destination_engine),
        cmocka_unit_test(never_two_owners),
        cmocka_unit_test(what_never_ran),
        cmocka_unit_test(a_source_whose_destination_is_gone),
        cmocka_unit_test(what_a_restarted_hostd_does),
        cmocka_unit_test(what_a_guests_death_means),
        cmocka_unit_test(a_sender_outlives_its_guest),
        cmocka_unit_test(a_silent_monitor_costs_no_guest),
        cmocka_unit_test(a_long_silence_is_told_once),
        cmocka_unit_test(it_is_asked_ever_more_seldom_but_for_good),
        cmocka_unit_test(who_lets_go_of_the_guests_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
