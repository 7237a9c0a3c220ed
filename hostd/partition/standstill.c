/* A guest that QEMU has stopped for its storage: told to whoever asks how it is, and asked to go on, with growing
 * pauses, until it does. Only while nothing else has to do with the guest: an engine decides by itself what such a
 * guest means to it, and none is started for one that stands still. So a `cont` of ours is never under way when an
 * engine begins. Nor does a guest whose disk moves go on by us: while it changes over it must not. Who moves the disk
 * sees to both. */
#include <string.h>

#include "base/log.h"
#include "hostd/partition/private.h"
#include "hostd/text.h"

#define PAUSE_FIRST_MS 2000u
#define PAUSE_MAX_MS   15000u

static bool ours_to_continue(const struct partition *p)
{
    return p->record.state == STATE_RUNNING && p->guest && !p->engine && !p->forecaster && !p->moving &&
           p->aftermath == AFTERMATH_NONE && !p->record.storage.id[0];
}

static void pause_begin(struct partition *p)
{
    struct standstill *s = &p->standstill;
    s->pause_ms = s->pause_ms ? s->pause_ms * 2 : PAUSE_FIRST_MS;
    if (s->pause_ms > PAUSE_MAX_MS)
        s->pause_ms = PAUSE_MAX_MS;
    loop_timer_start(s->again, s->pause_ms, 0);
}

static void pause_over(void *user)
{
    struct partition *p = user;
    if (ours_to_continue(p))
        guest_continue(p->guest);
    pause_begin(p);
}

static void standstill_over(struct partition *p)
{
    struct standstill *s = &p->standstill;
    loop_timer_free(s->again);
    *s = (struct standstill){0};
}

static void standstill_begin(struct partition *p, const char *why)
{
    struct standstill *s = &p->standstill;
    text_print(s->why, sizeof s->why, why);
    log_event(
        LOG_WARN, "guest.halted", "vm=%s name=%s reason=%s", p->record.vm_id, p->record.spec->name, LOG_QUOTE(s->why));
    if (!s->again) {
        s->again = loop_timer_new(p->all->env.loop, pause_over, p);
        pause_begin(p);
    }
}

void standstill_told(struct partition *p, const char *why)
{
    char printable[RECORD_TEXT_MAX];
    if (why && strcmp(text_print(printable, sizeof printable, why), p->standstill.why) != 0) {
        standstill_begin(p, why);
    } else if (!why && p->standstill.why[0]) {
        log_event(LOG_INFO, "guest.goes_on", "vm=%s name=%s", p->record.vm_id, p->record.spec->name);
        standstill_over(p);
    } else {
        return;
    }
    p->all->env.on_change(p->all->env.user);
}

void standstill_drop(struct partition *p)
{
    standstill_over(p);
}

int standstill_check(const struct partition *p, struct err *err)
{
    if (!p->standstill.why[0])
        return 0;
    return err_set(err, ERR_WRONG_STATE,
        "QEMU has stopped the guest: %s; mend that first: the guest then goes on by itself within %u s",
        p->standstill.why, PAUSE_MAX_MS / 1000);
}
