#include "controller/placement/evacuation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "controller/placement/possible.h"
#include "controller/placement/view.h"

#define LIMIT_DEFAULT 2u /* one sends while the other is prepared or switches; more only share the link */

static unsigned limit_read(struct state *state, const char *name)
{
    char text[16];
    if (!state_setting(state, name, text, sizeof text))
        return LIMIT_DEFAULT;
    unsigned long value = strtoul(text, NULL, 10);
    return value > 0 && value <= UINT16_MAX ? (unsigned)value : LIMIT_DEFAULT;
}

void evacuation_limits(struct state *state, struct optimizer_limits *out)
{
    out->outgoing = limit_read(state, "migration.outgoing");
    out->incoming = limit_read(state, "migration.incoming");
    out->link = limit_read(state, "migration.link");
}

static uint64_t never_moved(void *user, const struct state_vm *vm)
{
    (void)user, (void)vm;
    return 0;
}

/* Everything the host still has, in the order planned, and after it what the plan has no room for or cannot be moved
 * just now: for that, each goes to a host of its own, by the fastest way there is. What has no place anywhere is left
 * out. */
static double takes(
    const struct view *view, size_t from, const struct optimizer_plan *plan, const struct optimizer_limits *limits)
{
    struct optimizer_transfer *list = mem_zalloc((view->input.vm_count + 1) * sizeof *list);
    bool *planned = mem_zalloc(view->input.vm_count + 1);
    bool full = plan->move_count == OPTIMIZER_MOVES_MAX;
    double fastest = 0;
    size_t count = 0;
    for (size_t i = 0; i < plan->move_count; i++) {
        const struct optimizer_move *m = &plan->moves[i];
        const struct optimizer_vm *vm = &view->vms[m->vm];
        planned[m->vm] = true;
        list[count++] = (struct optimizer_transfer){
            from, m->to, vm->move_bytes, vm->move_cost_s, optimizer_link_bytes_per_s(&view->input, from, m->to)};
    }
    for (size_t h = 0; h < view->input.host_count; h++)
        if (h != from)
            fastest = fmax(fastest, optimizer_link_bytes_per_s(&view->input, from, h));
    for (size_t v = 0; v < view->input.vm_count && fastest > 0; v++)
        if (view->vms[v].host == from && !planned[v] && (full || !view->vms[v].movable))
            list[count++] = (struct optimizer_transfer){
                from, view->input.host_count + v, view->vms[v].move_bytes, view->vms[v].move_cost_s, fastest};
    double seconds = optimizer_schedule(list, count, view->input.host_count + view->input.vm_count, limits);
    free(list);
    free(planned);
    return seconds;
}

static void stay(struct view *view, size_t from, const char *name)
{
    for (size_t v = 0; v < view->input.vm_count; v++)
        if (view->vms[v].host == from && strcmp(view->vms[v].name, name) == 0)
            view->vms[v].movable = false;
}

void evacuation_plan(struct state *state, struct fleet *fleet, const struct optimizer_settings *settings,
    const char *host, uint64_t now_ms, size_t max, struct job_plan *out)
{
    struct view view;
    struct optimizer_limits limits;
    evacuation_limits(state, &limits);
    out->at_once = limits.outgoing;
    struct speeds *speeds = speeds_read(state);
    placement_view_make(&view, state, fleet, speeds, NULL, now_ms, never_moved, NULL);
    speeds_free(speeds);
    size_t from = placement_view_host(&view, host);
    if (from != SIZE_MAX) {
        struct optimizer_plan *plan = mem_zalloc(sizeof *plan);
        size_t movable = 0;
        possible_fill(&view, state, fleet, from);
        for (size_t i = 0; i < out->given_up_count; i++)
            stay(&view, from, out->given_up[i]);
        optimizer_evacuate(settings, &view.input, from, plan);
        for (size_t v = 0; v < view.input.vm_count; v++)
            movable += view.vms[v].host == from && view.vms[v].movable;
        for (size_t i = 0; i < plan->move_count && i < max; i++) {
            const struct optimizer_move *m = &plan->moves[i];
            struct job_move *move = &out->moves[out->count++];
            snprintf(move->vm_id, sizeof move->vm_id, "%s", view.vm_ids[m->vm]);
            snprintf(move->vm, sizeof move->vm, "%s", view.vms[m->vm].name);
            snprintf(move->to_host, sizeof move->to_host, "%s", view.hosts[m->to].name);
            snprintf(move->reason, sizeof move->reason, "host %.63s is being emptied; %.150s", host, m->reason);
        }
        if (plan->move_count < movable && plan->move_count < OPTIMIZER_MOVES_MAX)
            snprintf(out->stuck, sizeof out->stuck, "%.255s", plan->verdict);
        out->takes_s = takes(&view, from, plan, &limits);
        free(plan);
    }
    placement_view_free(&view);
}
