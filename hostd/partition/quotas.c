/* What the migrations of this host may use of its link and of its CPU time: divided anew whenever one begins or ends.
 * Leaving and entering are counted by themselves, because a link carries as much each way; CPU time is one. */
#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/cpulist.h"
#include "base/log.h"
#include "hostd/partition/private.h"
#include "hostd/pinned.h"
#include "hostd/shares.h"

static bool takes_part(const struct partition *p, const struct partition *beginning)
{
    return p == beginning || p->engine;
}

/* Shares of those that go one way, in the order of the list. */
static void divide_link(struct partitions *ps, const struct partition *beginning, bool incoming)
{
    struct partition *p;
    size_t count = 0;
    DL_COUNT(ps->list, p, count);
    struct share *shares = mem_zalloc((count + 1) * sizeof *shares);
    count = 0;
    DL_FOREACH(ps->list, p)
    {
        if (takes_part(p, beginning) && p->record.migration.incoming == incoming)
            shares[count++].most = p->record.migration.bandwidth_bytes_per_s;
    }
    shares_divide(ps->env.options->migration_bandwidth, shares, count);
    count = 0;
    DL_FOREACH(ps->list, p)
    {
        if (takes_part(p, beginning) && p->record.migration.incoming == incoming)
            p->quota.bytes_per_s = shares[count++].given;
    }
    free(shares);
}

/* All engines use CPU time alike. */
static void divide_cpu(struct partitions *ps, const struct partition *beginning)
{
    struct partition *p;
    const struct options *o = ps->env.options;
    uint64_t count = 0;
    DL_FOREACH(ps->list, p)
    {
        count += takes_part(p, beginning);
    }
    double millicores = o->machine_cores * 10.0 * (double)o->migration_cpu_percent; /* of all of them */
    uint64_t each = count ? (uint64_t)(millicores / (double)count) : 0;
    DL_FOREACH(ps->list, p)
    {
        if (takes_part(p, beginning))
            p->quota.millicores = o->migration_cpu_percent == 100 ? 0 : each ? each : 1;
    }
}

void quotas_divide(struct partitions *ps, const struct partition *beginning)
{
    struct partition *p;
    divide_link(ps, beginning, false);
    divide_link(ps, beginning, true);
    divide_cpu(ps, beginning);
    DL_FOREACH(ps->list, p)
    {
        if (p->engine)
            engine_set_quota(p->engine, &p->quota);
    }
}

char *quotas_cores(struct partitions *ps)
{
    struct partition *p;
    cpu_set_t all, pinned, rest;
    if (sched_getaffinity(0, sizeof all, &all) < 0)
        return NULL;
    CPU_ZERO(&pinned);
    DL_FOREACH(ps->list, p)
    {
        if (p->guest)
            pinned_add(p->record.guest.pid, &all, &pinned);
    }
    if (CPU_COUNT(&pinned) == 0)
        return NULL;
    bool left = pinned_rest(&all, &pinned, &rest);
    char *text = cpulist_format(&pinned);
    if (!left)
        log_event(LOG_WARN, "migration.unpinned", "pinned=%s reason=%s", text,
            LOG_QUOTE("guests are pinned to every core, so engines run beside them"));
    free(text);
    return left ? cpulist_format(&rest) : NULL;
}
