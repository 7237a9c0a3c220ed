#include "controller/placement/possible.h"

#include "base/buf.h"
#include "controller/pb.h"
#include "controller/placement/preflight.h"

/* Nobody knows what a VM without a host, or on a host that has said nothing yet, was started with. */
static void fill_row(
    struct view *view, struct state *state, struct fleet *fleet, size_t vm, const Drover__MigrationOptions *options)
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
            .from = {source->name, source->facts, NULL, false, false},
            .to = {target->name, target->facts, NULL, false, false}};
        preflight_options(&input, options);
        row[h] = h != v->host && target->facts && preflight_possible(&input);
    }
    v->possible = row;
}

static void make_room(struct view *view)
{
    if (!view->possible)
        view->possible = mem_zalloc((view->input.vm_count * view->input.host_count + 1) * sizeof *view->possible);
}

size_t possible_fill(struct view *view, struct state *state, struct fleet *fleet, size_t host)
{
    size_t filled = 0;
    make_room(view);
    for (size_t v = 0; v < view->input.vm_count; v++)
        if (view->vms[v].movable && view->vms[v].host == host && !view->vms[v].possible) {
            fill_row(view, state, fleet, v, NULL);
            filled += view->vms[v].possible != NULL;
        }
    return filled;
}

void possible_fill_vm(
    struct view *view, struct state *state, struct fleet *fleet, size_t vm, const Drover__MigrationOptions *options)
{
    make_room(view);
    fill_row(view, state, fleet, vm, options);
}

/* It ends because each host is filled in once: what is still unknown after that cannot be known. */
void possible_plan(struct view *view, struct state *state, struct fleet *fleet, const struct optimizer_memory *memory,
    const struct optimizer_settings *settings, bool at_once, struct optimizer_plan *out)
{
    size_t filled;
    do {
        optimizer_plan(memory, settings, &view->input, at_once, out);
        filled = 0;
        for (size_t i = 0; i < out->move_count; i++)
            if (!view->vms[out->moves[i].vm].possible)
                filled += possible_fill(view, state, fleet, out->moves[i].from);
    } while (filled);
}
