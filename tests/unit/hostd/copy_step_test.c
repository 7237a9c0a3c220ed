/* A pretended QEMU that copies a disk, driven by copy_step(): undisturbed, and with hostd killed, a cancel, a refusal
 * or a failed copy at every step. Whatever happens, the guest writes only to what is, or will be, written down as its
 * disk. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>

#include "hostd/hypervisor/qemu/copy_step.h"

#define STEPS_MAX 100

enum blow { NONE, CANCEL, KILLED_BEFORE, KILLED_AFTER, KILLED_AFTER_AND_CANCEL, REFUSED, COPY_FAILS, BLOWS };

struct qemu {
    enum copy_job job;
    bool job_failed, on_target, target_open, old_open, running;
    bool completing;
    unsigned lag; /* looks until what is under way is done */
};

struct sim {
    struct qemu qemu;
    struct copy_known known;
    bool written; /* on disk: outlives hostd */
    unsigned steps;
};

static void qemu_goes_on(struct qemu *q)
{
    if (q->lag > 0) {
        q->lag--;
        return;
    }
    if (q->job == COPY_JOB_RUNNING)
        q->job = COPY_JOB_READY;
    else if (q->job == COPY_JOB_READY && q->completing)
        q->job = COPY_JOB_ENDING;
    else if (q->job == COPY_JOB_ENDING) {
        q->job = COPY_JOB_CONCLUDED;
        q->on_target = q->completing && !q->job_failed;
    }
}

static struct copy_view look(const struct qemu *q)
{
    return (struct copy_view){q->job, q->job_failed, q->on_target, q->target_open, q->old_open, q->running};
}

/* Does the step; false: QEMU refuses. */
static bool qemu_does(struct sim *sim, enum copy_act act)
{
    struct qemu *q = &sim->qemu;
    switch (act) {
    case COPY_OPEN:
        q->target_open = true;
        return true;
    case COPY_BEGIN:
        q->job = COPY_JOB_RUNNING;
        q->lag = 2;
        return true;
    case COPY_STOP:
        q->running = false;
        return true;
    case COPY_COMPLETE:
        if (q->job != COPY_JOB_READY)
            return false;
        assert_false(q->running);
        q->completing = true;
        q->lag = 1;
        return true;
    case COPY_CONTINUE:
        q->running = true;
        return true;
    case COPY_STRIKE:
        if (q->job != COPY_JOB_RUNNING && q->job != COPY_JOB_READY)
            return false;
        q->job = COPY_JOB_ENDING;
        q->completing = false;
        q->job_failed = true;
        return true;
    case COPY_DISMISS:
        assert_int_equal(q->job, COPY_JOB_CONCLUDED);
        q->job = COPY_JOB_NONE;
        return true;
    case COPY_CLOSE_OLD:
        assert_true(q->on_target && sim->written);
        q->old_open = false;
        return true;
    case COPY_CLOSE_TARGET:
        assert_true(!q->on_target && q->job == COPY_JOB_NONE);
        q->target_open = false;
        return true;
    default:
        return true;
    }
}

static void known_after(struct sim *sim, enum copy_act act, bool done)
{
    struct copy_known *k = &sim->known;
    if (act == COPY_COMPLETE)
        k->completed = done;
    if (act == COPY_BEGIN)
        k->begun = true;
    if (!done && (act == COPY_MAKE || act == COPY_OPEN || act == COPY_BEGIN || act == COPY_STOP ||
                     (act == COPY_COMPLETE && !k->adopted)))
        k->off = true;
    if (done && act == COPY_MAKE)
        k->made = true;
    if (done && act == COPY_FLUSH)
        k->flushed = true;
    if (done && act == COPY_WRITE_DOWN)
        k->written = sim->written = true;
}

/* The promise: a guest that executes writes to the new file only when that is written down. */
static void invariant(const struct sim *sim, const char *name)
{
    if (sim->qemu.running && sim->qemu.on_target != sim->written)
        fail_msg("%s: the guest runs on the %s file, and the other is written down", name,
            sim->qemu.on_target ? "new" : "old");
}

static void hostd_restarts(struct sim *sim)
{
    sim->known = (struct copy_known){.adopted = true, .written = sim->written};
}

/* True: the blow was dealt. */
static bool run(struct sim *sim, enum blow blow, unsigned at, enum copy_act *end, const char *name)
{
    bool dealt = false;
    *sim = (struct sim){.qemu = {.old_open = true, .running = true}};
    for (sim->steps = 0; sim->steps < STEPS_MAX; sim->steps++) {
        bool now = sim->steps == at && blow != NONE;
        dealt = dealt || now;
        if (now && blow == CANCEL && !sim->known.completed && !sim->known.written)
            sim->known.off = true;
        if (now && blow == KILLED_BEFORE)
            hostd_restarts(sim);
        if (now && blow == COPY_FAILS && (sim->qemu.job == COPY_JOB_RUNNING || sim->qemu.job == COPY_JOB_READY)) {
            sim->qemu.job = COPY_JOB_ENDING;
            sim->qemu.job_failed = true;
        }
        struct copy_view view = look(&sim->qemu);
        enum copy_act act = copy_step(&sim->known, &view);
        if (act == COPY_MOVED || act == COPY_STAYED) {
            *end = act;
            return dealt;
        }
        bool done = !(now && blow == REFUSED) && qemu_does(sim, act);
        known_after(sim, act, done);
        if (now && (blow == KILLED_AFTER || blow == KILLED_AFTER_AND_CANCEL)) {
            hostd_restarts(sim);
            sim->known.off = blow == KILLED_AFTER_AND_CANCEL;
        }
        qemu_goes_on(&sim->qemu);
        invariant(sim, name);
    }
    fail_msg("%s: no end", name);
    return dealt;
}

static void check_end(const struct sim *sim, enum copy_act end, const char *name)
{
    const struct qemu *q = &sim->qemu;
    if (q->on_target != (end == COPY_MOVED) || sim->written != q->on_target || !q->running || q->job != COPY_JOB_NONE ||
        (q->on_target ? q->old_open : q->target_open))
        fail_msg("%s: ended %s with on_target %d written %d running %d job %d old %d target %d", name,
            copy_act_name(end), q->on_target, sim->written, q->running, (int)q->job, q->old_open, q->target_open);
}

static void undisturbed(void **unused)
{
    (void)unused;
    struct sim sim;
    enum copy_act end;
    run(&sim, NONE, 0, &end, "undisturbed");
    check_end(&sim, end, "undisturbed");
    assert_int_equal(end, COPY_MOVED);
}

static void struck_at_every_step(void **unused)
{
    (void)unused;
    for (enum blow blow = CANCEL; blow < BLOWS; blow++)
        for (unsigned at = 0;; at++) {
            struct sim sim;
            enum copy_act end;
            char name[64];
            snprintf(name, sizeof name, "blow %d at step %u", (int)blow, at);
            bool dealt = run(&sim, blow, at, &end, name);
            check_end(&sim, end, name);
            if (!dealt)
                break;
        }
}

/* The pause is as short as it can be: nothing comes between but what must. */
static void the_pause_has_no_detours(void **unused)
{
    (void)unused;
    struct copy_known known = {.made = true, .begun = true, .flushed = true};
    struct copy_view view = {.job = COPY_JOB_READY, .target_open = true, .old_open = true, .running = true};
    assert_int_equal(copy_step(&known, &view), COPY_STOP);
    view.running = false;
    assert_int_equal(copy_step(&known, &view), COPY_COMPLETE);
    known.completed = true;
    view.job = COPY_JOB_CONCLUDED;
    view.on_target = true;
    assert_int_equal(copy_step(&known, &view), COPY_WRITE_DOWN);
    known.written = true;
    assert_int_equal(copy_step(&known, &view), COPY_CONTINUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(undisturbed),
        cmocka_unit_test(struck_at_every_step),
        cmocka_unit_test(the_pause_has_no_detours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
