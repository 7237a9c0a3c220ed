/* Which single move is best now.
 *
 * A move is possible when the VM may move and has rested, the target accepts it and stays within `high` and its
 * capacity on every resource, something that is too much gets less, and the imbalance falls by enough. Among those the
 * worth decides:
 *
 *   worth = (relief + gain) / (OVERHEAD_S + cost_s)
 *
 * relief is the share of the hot host's excess over `low` that the move takes away: 1 where the move alone ends the
 * contention. So one cheap move that is enough beats several, and several small ones beat one that takes minutes. */
#include "optimizer/internal.h"

#include <math.h>
#include <string.h>

#define OVERHEAD_S 5.0  /* what any migration costs besides its time: a job, attention, a short blackout */
#define GAIN_MIN   1e-9 /* below this it is rounding */

bool candidate_fits(const struct view *view, const struct optimizer_settings *settings, size_t vm, size_t host)
{
    const struct view_host *h = &view->hosts[host];
    for (int r = 0; r < RESOURCE_COUNT; r++)
        if (h->capacity[r] > 0 && h->used[r] + view->vms[vm].demand[r] > h->capacity[r] * fmin(settings->high[r], 1.0))
            return false;
    return true;
}

bool candidate_rests(const struct view *view, const struct optimizer_settings *settings, size_t vm)
{
    uint64_t moved_ms = view->input->vms[vm].moved_ms, now_ms = view->input->now_ms;
    return moved_ms != 0 && (moved_ms > now_ms || now_ms - moved_ms < settings->rest_ms);
}

/* The share of the excess over `low`, over all hot resources of its host, that goes with the VM. */
static double relief_of(const struct view *view, const struct optimizer_settings *settings, size_t vm,
    const host_heat *hot, enum resource *resource)
{
    const struct view_vm *v = &view->vms[vm];
    double before = 0, after = 0, most = -1;
    for (int i = 0; i < RESOURCE_COUNT; i++) {
        enum resource r = (enum resource)i;
        if (!hot[v->host][r])
            continue;
        double excess = fmax(view_utilization(view, v->host, r, 0) - settings->low[r], 0);
        before += excess;
        after += fmax(view_utilization(view, v->host, r, -v->demand[r]) - settings->low[r], 0);
        if (excess > most) {
            most = excess;
            *resource = r;
        }
    }
    return before > 0 ? (before - after) / before : 0;
}

static bool better(const struct view *view, const struct candidate *a, const struct candidate *b)
{
    if (a->worth != b->worth)
        return a->worth > b->worth;
    const struct optimizer_input *in = view->input;
    int order = strncmp(in->vms[a->vm].name, in->vms[b->vm].name, OPTIMIZER_NAME_MAX);
    if (order == 0)
        order = strncmp(in->hosts[a->to].name, in->hosts[b->to].name, OPTIMIZER_NAME_MAX);
    return order < 0;
}

static void keep_best(const struct view *view, const struct candidate *c, struct candidate best[2], size_t *count)
{
    if (*count == 0 || better(view, c, &best[0])) {
        best[1] = best[0];
        best[0] = *c;
    } else if (*count == 1 || better(view, c, &best[1])) {
        best[1] = *c;
    } else {
        return;
    }
    *count = *count == 0 ? 1 : 2;
}

static bool may_take(const struct view *view, const host_heat *hot, size_t host)
{
    bool takes = view->hosts[host].accepts;
    for (int r = 0; r < RESOURCE_COUNT; r++)
        takes = takes && hot[host][r] != HEAT_HOT;
    return takes;
}

size_t candidate_search(
    const struct view *view, const struct optimizer_settings *settings, const host_heat *hot, struct candidate best[2])
{
    const struct optimizer_input *in = view->input;
    /* One move's share of a score over many hosts shrinks with their number. */
    double gain_min = fmax(settings->min_gain / (double)(in->host_count ? in->host_count : 1), GAIN_MIN);
    size_t count = 0;
    for (size_t v = 0; v < in->vm_count; v++) {
        const struct view_vm *vm = &view->vms[v];
        if (vm->host == SIZE_MAX || !vm->sane || vm->moved || !in->vms[v].movable || candidate_rests(view, settings, v))
            continue;
        struct candidate c = {.vm = v, .from = vm->host};
        c.relief = relief_of(view, settings, v, hot, &c.resource);
        if (c.relief <= 0)
            continue;
        for (c.to = 0; c.to < in->host_count; c.to++) {
            if (c.to == c.from || !may_take(view, hot, c.to) || !place_possible(view, v, c.to) ||
                !candidate_fits(view, settings, v, c.to))
                continue;
            c.gain = view_gain(view, v, c.to);
            if (c.gain < gain_min)
                continue;
            c.cost_s = view_cost_s(view, v, c.to);
            c.worth = (c.relief + c.gain) / (OVERHEAD_S + c.cost_s);
            keep_best(view, &c, best, &count);
        }
    }
    return count;
}
