/* The guest is this host's, and QEMU is asked to run it: until it does, refuses for good, or dies. A monitor that is
 * silent, or a QEMU that does not come out of a migration that was cut off, says nothing against the guest, which may
 * run; one that refuses because somebody else has a disk of it has a whole guest: it is asked on, but whoever waits for
 * the end of the migration is told what there is to tell. */
#include "base/clock.h"
#include "base/ensure.h"
#include "base/log.h"
#include "hostd/partition/private.h"

static void resume_answered(void *user, const struct err *err);

static void resume_ask(void *user)
{
    struct partition *p = user;
    guest_resume(p->guest, resume_answered, p);
}

static void resume_answered(void *user, const struct err *err)
{
    struct partition *p = user;
    struct resuming *r = &p->resuming;
    if (p->aftermath != AFTERMATH_RESUME)
        return; /* dropped */
    if (!err) {
        p->aftermath = AFTERMATH_NONE;
        r->on_end(p, NULL);
        return;
    }
    log_event(LOG_ERROR, "guest.not_resumed", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err->message));
    r->refusals += err->code == ERR_WRONG_STATE;
    switch (decide_resume(err->code, r->refusals, clock_now_ms() - r->since_ms, r->told)) {
    case RESUME_GIVE_UP:
        p->aftermath = AFTERMATH_NONE;
        r->on_end(p, err);
        return;
    case RESUME_TELL:
        r->told = true;
        r->on_late(p, err);
        break;
    case RESUME_AGAIN:
        break;
    }
    if (!r->again)
        r->again = loop_timer_new(p->all->env.loop, resume_ask, p);
    loop_timer_start(r->again, decide_resume_pause_ms(r->asked++), 0);
}

void resume_begin(struct partition *p, resume_fn on_end, resume_fn on_late)
{
    struct resuming *r = &p->resuming;
    ENSURE(p->aftermath == AFTERMATH_NONE && p->guest);
    p->aftermath = AFTERMATH_RESUME;
    *r = (struct resuming){.again = r->again, .since_ms = clock_now_ms(), .on_end = on_end, .on_late = on_late};
    guest_resume(p->guest, resume_answered, p);
}

void resume_drop(struct partition *p)
{
    if (p->aftermath != AFTERMATH_RESUME)
        return;
    p->aftermath = AFTERMATH_NONE;
    if (p->resuming.again)
        loop_timer_stop(p->resuming.again);
}
