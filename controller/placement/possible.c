#include "controller/placement/possible.h"

#include "base/buf.h"
#include "controller/pb.h"
#include "controller/placement/preflight.h"

/* Nobody knows what a VM without a host, or on a host that has said nothing yet, was started with. */
static void fill_row(struct view *view, struct state *state, struct fleet *fleet, size_t vm)
{
    struct optimizer_vm *v = &view->vms[vm];
    const struct fleet_host *source = v->host == SIZE_MAX ? NULL : fleet_at(fleet, v->host);
    cleanup_pb Drover__VmSpec *spec = source && source->facts ? state_vm_spec(state, view->vm_ids[vm]) : NULL;
    if (!spec)
        return;
    bool *row = view->possible + vm * view->input.host_count;
    for (size_t h = 0; h < view->input.host_count; h++) {
        const struct fleet_host *target = fleet_at(fleet, h);
        struct preflight_input input = {.vm = v->name,
            .spec = spec,
            .from = {source->name, source->facts, NULL, false},
            .to = {target->name, target->facts, NULL, false}};
        row[h] = h != v->host && target->facts && preflight_possible(&input);
    }
    v->possible = row;
}

static void make_room(struct view *view)
{
    if (!view->possible)
        view->possible = mem_zalloc((view->input.vm_count * view->input.host_count + 1) * sizeof *view->possible);
}

void possible_fill(struct view *view, struct state *state, struct fleet *fleet, size_t host)
{
    make_room(view);
    for (size_t v = 0; v < view->input.vm_count; v++)
        if (view->vms[v].movable && (host == SIZE_MAX || view->vms[v].host == host))
            fill_row(view, state, fleet, v);
}

void possible_fill_vm(struct view *view, struct state *state, struct fleet *fleet, size_t vm)
{
    make_room(view);
    fill_row(view, state, fleet, vm);
}
