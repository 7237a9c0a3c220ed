/* Where one VM goes: the host whose fullest resource stays emptiest. Hosts that stay within `high` come first, then
 * those within their capacity, then those whose CPU or IOPS would be overcommitted: these are shared in time, and a VM
 * that may start is better than one that may not. Memory is not shared in time: without room for it a host is out. */
#include "optimizer/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum fit { FIT_NONE, FIT_OVERCOMMITTED, FIT_TIGHT, FIT_GOOD };

struct place {
    size_t host;
    enum fit fit;
    double peak, sum; /* utilization with the VM: of the fullest resource, and of all */
};

static struct place place_try(
    const struct view *view, const struct optimizer_settings *settings, size_t vm, size_t host)
{
    struct place p = {.host = host, .fit = FIT_GOOD};
    const struct view_vm *v = &view->vms[vm];
    for (int i = 0; i < RESOURCE_COUNT; i++) {
        enum resource r = (enum resource)i;
        double used = view_utilization(view, host, r, v->host == host ? 0 : v->demand[r]);
        enum fit fit = FIT_GOOD;
        if (used > 1)
            fit = r == RESOURCE_MEMORY ? FIT_NONE : FIT_OVERCOMMITTED;
        else if (used > settings->high[r])
            fit = FIT_TIGHT;
        if (fit < p.fit)
            p.fit = fit;
        p.peak = fmax(p.peak, used);
        p.sum += used;
    }
    return p;
}

static bool place_better(const struct view *view, const struct place *a, const struct place *b)
{
    if (a->fit != b->fit)
        return a->fit > b->fit;
    if (a->peak != b->peak)
        return a->peak < b->peak;
    if (a->sum != b->sum)
        return a->sum < b->sum;
    return strncmp(view->input->hosts[a->host].name, view->input->hosts[b->host].name, OPTIMIZER_NAME_MAX) < 0;
}

static void explain_choice(const struct view *view, const struct place *p, size_t vm, char *reason)
{
    static const char *const remark[] = {[FIT_GOOD] = "",
        [FIT_TIGHT] = ", which is above its threshold, but no host has more room",
        [FIT_OVERCOMMITTED] = ", which is more than it has, but no host has more room"};
    const struct optimizer_input *in = view->input;
    const struct view_vm *v = &view->vms[vm];
    double used[RESOURCE_COUNT];
    for (int r = 0; r < RESOURCE_COUNT; r++)
        used[r] = view_utilization(view, p->host, (enum resource)r, v->host == p->host ? 0 : v->demand[r]);
    explain_text(reason, "%.63s has most room: with %.63s it uses %.0f %% of its CPU and %.0f %% of its memory%s",
        in->hosts[p->host].name, in->vms[vm].name, used[RESOURCE_CPU] * 100, used[RESOURCE_MEMORY] * 100,
        remark[p->fit]);
}

/* Why no host will do: a word on each, as far as the room for text goes. */
static void explain_refusal(const struct view *view, size_t vm, size_t exclude, char *reason)
{
    const struct optimizer_input *in = view->input;
    char amount[AMOUNT_MAX];
    explain_text(reason, "no host has room for %.63s (%s)", in->vms[vm].name,
        resource_amount(RESOURCE_MEMORY, view->vms[vm].demand[RESOURCE_MEMORY], amount));
    for (size_t h = 0; h < in->host_count; h++) {
        char word[OPTIMIZER_TEXT_MAX];
        size_t len = strlen(reason);
        const char *comma = h == 0 ? ":" : ",";
        if (h == exclude)
            explain_text(word, "%s %.63s is where it is now", comma, in->hosts[h].name);
        else if (!view->hosts[h].accepts)
            explain_text(word, "%s %.63s takes no VMs now", comma, in->hosts[h].name);
        else if (!place_possible(view, vm, h))
            explain_text(word, "%s %.63s cannot run it", comma, in->hosts[h].name);
        else
            explain_text(word, "%s %.63s has %s of memory free", comma, in->hosts[h].name,
                resource_amount(RESOURCE_MEMORY,
                    fmax(view->hosts[h].capacity[RESOURCE_MEMORY] - view->hosts[h].used[RESOURCE_MEMORY], 0), amount));
        if (len + strlen(word) + sizeof ", ..." > OPTIMIZER_TEXT_MAX) {
            strcat(reason, ", ...");
            return;
        }
        strcat(reason, word);
    }
    if (in->host_count == 0)
        strcat(reason, ": there are no hosts");
}

bool place_possible(const struct view *view, size_t vm, size_t host)
{
    const bool *possible = view->input->vms[vm].possible;
    return !possible || possible[host];
}

size_t place_choose(
    const struct view *view, const struct optimizer_settings *settings, size_t vm, size_t exclude, char *reason)
{
    struct place best = {.host = SIZE_MAX, .fit = FIT_NONE};
    for (size_t h = 0; view->vms[vm].sane && h < view->input->host_count; h++) {
        if (h == exclude || !view->hosts[h].accepts || !place_possible(view, vm, h))
            continue;
        struct place p = place_try(view, settings, vm, h);
        if (p.fit != FIT_NONE && (best.host == SIZE_MAX || place_better(view, &p, &best)))
            best = p;
    }
    if (best.host != SIZE_MAX)
        explain_choice(view, &best, vm, reason);
    else if (!view->vms[vm].sane)
        explain_text(reason, "the demand of %.63s makes no sense: it must be finite and not negative",
            view->input->vms[vm].name);
    else
        explain_refusal(view, vm, exclude, reason);
    return best.host;
}

size_t optimizer_place(const struct optimizer_settings *settings, const struct optimizer_input *input, size_t vm,
    size_t exclude, char reason[OPTIMIZER_TEXT_MAX])
{
    struct optimizer_settings clean = settings_clean(settings);
    if (vm >= input->vm_count) {
        explain_text(reason, "there is no VM to place");
        return SIZE_MAX;
    }
    struct view view;
    view_init(&view, input);
    size_t host = place_choose(&view, &clean, vm, exclude, reason);
    view_free(&view);
    return host;
}
