/* Before the host goes down: its guests are asked to shut down, and no others come. */
#include <utlist.h>

#include "base/log.h"
#include "hostd/partition/private.h"

void partitions_shut_down(struct partitions *ps)
{
    struct partition *p;
    if (!ps->shutting_down)
        log_event(LOG_WARN, "host.shutting_down", "hint=%s",
            LOG_QUOTE("guests are asked to shut down, and none begins here until drover-hostd is restarted"));
    ps->shutting_down = true;
    DL_FOREACH(ps->list, p)
    {
        if (p->record.state == STATE_RUNNING && p->guest)
            guest_power_down(p->guest);
    }
}

bool partitions_shutting_down(const struct partitions *ps)
{
    return ps->shutting_down;
}
