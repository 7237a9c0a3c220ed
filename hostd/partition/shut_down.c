/* Before the host goes down: its guests are asked to shut down, and no others come. */
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "hostd/partition/private.h"

/* A guest that is still booting misses the press, so one that runs on is pressed again; but not soon, because to one
 * that is shutting down another press may mean to leave that, or to be cut off at once. (libvirt's and Proxmox's hosts
 * press once and then cut the power of what was booting; OpenStack's press every 10 s.) */
#define PRESS_AGAIN_MS 30000u

static void press(struct partition *p)
{
    uint64_t now_ms = clock_now_ms();
    if (p->pressed_ms && now_ms - p->pressed_ms < PRESS_AGAIN_MS)
        return;
    if (!guest_power_down(p->guest)) /* it is called again */
        return;
    log_event(LOG_INFO, "guest.power_button", "vm=%s name=%s again=%d", p->record.vm_id, p->record.spec->name,
        p->pressed_ms != 0);
    p->pressed_ms = now_ms;
}

void partitions_shut_down(struct partitions *ps)
{
    struct partition *p;
    if (!ps->shutting_down) {
        log_event(LOG_WARN, "host.shutting_down", "hint=%s",
            LOG_QUOTE("guests are asked to shut down, and none begins here until drover-hostd is restarted"));
        ps->shutting_down = true;
        ps->env.on_change(ps->env.user);
    }
    DL_FOREACH(ps->list, p)
    {
        if (p->record.state == STATE_RUNNING && p->guest)
            press(p);
    }
}

bool partitions_shutting_down(const struct partitions *ps)
{
    return ps->shutting_down;
}
