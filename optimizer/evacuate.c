/* Emptying a host. Two orders matter, and they are not the same: the VMs with most memory are placed first, because
 * they are the hardest to fit; the moves that take longest begin first, because then the last ones to end are short and
 * the links are busy until the end (longest processing time first). */
#include "optimizer/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct leaving {
    size_t vm;
    double memory;
    const char *name;
};

static int harder_first(const void *a, const void *b)
{
    const struct leaving *x = a, *y = b;
    if (x->memory != y->memory)
        return x->memory > y->memory ? -1 : 1;
    return strncmp(x->name, y->name, OPTIMIZER_NAME_MAX);
}

static int longer_first(const void *a, const void *b)
{
    const struct optimizer_move *x = a, *y = b;
    if (x->cost_s != y->cost_s)
        return x->cost_s > y->cost_s ? -1 : 1;
    return x->vm < y->vm ? -1 : 1;
}

/* What must leave the host; to be freed. */
static size_t leaving_list(const struct view *view, size_t host, struct leaving **out)
{
    const struct optimizer_input *in = view->input;
    struct leaving *list = mem_zalloc((in->vm_count + 1) * sizeof *list);
    size_t count = 0;
    for (size_t v = 0; v < in->vm_count; v++)
        if (view->vms[v].host == host && view->vms[v].sane && in->vms[v].movable)
            list[count++] = (struct leaving){v, view->vms[v].demand[RESOURCE_MEMORY], in->vms[v].name};
    qsort(list, count, sizeof *list, harder_first);
    *out = list;
    return count;
}

void optimizer_evacuate(const struct optimizer_settings *settings, const struct optimizer_input *input, size_t host,
    struct optimizer_plan *out)
{
    struct optimizer_settings clean = settings_clean(settings);
    struct leaving *list;
    struct view view;
    memset(out, 0, sizeof *out);
    view_init(&view, input);
    out->imbalance_before = view_imbalance(&view);
    size_t count = leaving_list(&view, host, &list), looked_at = 0, stuck = 0;
    while (looked_at < count && out->move_count < OPTIMIZER_MOVES_MAX) {
        char reason[OPTIMIZER_TEXT_MAX];
        size_t vm = list[looked_at++].vm, to = place_choose(&view, &clean, vm, host, reason);
        if (to == SIZE_MAX) {
            if (stuck++ == 0)
                memcpy(out->verdict, reason, sizeof reason);
            continue;
        }
        struct optimizer_move *move = &out->moves[out->move_count++];
        *move = (struct optimizer_move){.vm = vm, .from = host, .to = to, .cost_s = view_cost_s(&view, vm, to)};
        move->gain = view_gain(&view, vm, to);
        memcpy(move->reason, reason, sizeof reason);
        view_move(&view, vm, to);
    }
    qsort(out->moves, out->move_count, sizeof *out->moves, longer_first);
    out->imbalance_after = view_imbalance(&view);
    if (stuck == 0 && looked_at < count)
        explain_text(out->verdict, "%zu VMs have a place elsewhere; %zu more are planned once these are on their way",
            out->move_count, count - looked_at);
    else if (stuck == 0)
        explain_text(out->verdict, "every VM has a place elsewhere");
    free(list);
    view_free(&view);
}
