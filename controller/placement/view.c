#include "controller/placement/view.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* What a VM nothing is known of yet is taken to use: starts in a row spread over the hosts instead of piling up on one.
 */
#define UNKNOWN_CPU_SHARE 0.25

static bool host_up(const struct fleet *fleet, const struct fleet_host *host, uint64_t now_ms)
{
    return host->facts && host->peer && fleet_up(fleet, host, now_ms);
}

static void host_read(struct state *state, const struct fleet *fleet, const struct fleet_host *host, uint64_t now_ms,
    struct optimizer_host *out)
{
    struct state_host known;
    bool maintenance = state_host(state, host->name, &known) && known.maintenance;
    *out = (struct optimizer_host){.accepts = !maintenance && !host->shutting_down && host_up(fleet, host, now_ms)};
    snprintf(out->name, sizeof out->name, "%s", host->name);
    const Drover__Capacity *capacity = host->facts ? host->facts->capacity : NULL;
    if (capacity) {
        out->capacity[RESOURCE_CPU] = capacity->cpu_cores > 0 ? capacity->cpu_cores : 0;
        out->capacity[RESOURCE_MEMORY] = (double)capacity->memory_bytes;
        out->capacity[RESOURCE_IOPS] = capacity->disk_iops > 0 ? capacity->disk_iops : 0;
    }
    out->link_bytes_per_s = host->facts ? (double)host->facts->link_bytes_per_s : 0;
    /* Capacity of memory is for guests alone, so what the daemons use of it does not count. */
    out->overhead[RESOURCE_CPU] = host->overhead.value.cpu_cores;
    out->overhead[RESOURCE_IOPS] = host->overhead.value.read_iops + host->overhead.value.write_iops;
}

static void vm_view(
    const struct fleet_host *host, const struct state_vm *vm, bool up, uint64_t moved_ms, struct optimizer_vm *out)
{
    const struct fleet_partition *p = host ? fleet_partition(host, vm->id) : NULL;
    bool known = p && p->demand.at_ms;
    snprintf(out->name, sizeof out->name, "%s", vm->name);
    out->demand[RESOURCE_CPU] = known ? p->demand.value.cpu_cores : UNKNOWN_CPU_SHARE * vm->vcpus;
    out->demand[RESOURCE_MEMORY] = (double)vm->memory_bytes;
    out->demand[RESOURCE_IOPS] = known ? p->demand.value.read_iops + p->demand.value.write_iops : 0;
    out->move_cost_s = VIEW_MOVE_FIXED_S;
    out->move_bytes = known ? p->demand.value.memory_bytes : (double)vm->memory_bytes;
    out->moved_ms = moved_ms;
    out->movable = up && p && p->state == DROVER__PARTITION_STATE__PARTITION_RUNNING &&
                   p->generation == vm->generation && !vm->job_id && !vm->hand_over_id[0] &&
                   strcmp(host->facts->tracker, "none") != 0;
}

size_t placement_view_host(const struct view *view, const char *name)
{
    size_t low = 0, high = view->input.host_count; /* as the fleet: by name */
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(view->hosts[middle].name, name);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return SIZE_MAX;
}

size_t placement_view_vm(const struct view *view, const char *id)
{
    for (size_t i = 0; i < view->input.vm_count; i++)
        if (strcmp(view->vm_ids[i], id) == 0)
            return i;
    return SIZE_MAX;
}

/* What was measured; the newest of two hosts comes first, and counts. */
static void links_make(struct view *view, const struct speeds *speeds)
{
    struct speed speed;
    size_t count = 0, room = 0;
    while (speeds_at(speeds, room, &speed))
        room++;
    view->links = mem_zalloc((room + 1) * sizeof *view->links);
    for (size_t i = 0; speeds_at(speeds, i, &speed); i++) {
        size_t from = placement_view_host(view, speed.from), to = placement_view_host(view, speed.to);
        if (from != SIZE_MAX && to != SIZE_MAX)
            view->links[count++] = (struct optimizer_link){from, to, speed.bytes_per_s};
    }
    view->input.links = view->links;
    view->input.link_count = count;
    view->input.link_bytes_per_s = VIEW_LINK_ASSUMED_BYTES_PER_S;
}

/* Where a migration takes the VM, from when its target is chosen; SIZE_MAX: nowhere. */
static size_t under_way_to(const struct view *view, struct state *state, const struct state_vm *vm)
{
    struct state_job job;
    if (vm->hand_over_to[0])
        return placement_view_host(view, vm->hand_over_to);
    if (!vm->job_id || !state_job(state, vm->job_id, &job))
        return SIZE_MAX;
    bool moves = job.job->kind == DROVER__JOB_KIND__JOB_VM_MIGRATE && strcmp(job.data->host, vm->owner) != 0;
    size_t to = moves ? placement_view_host(view, job.data->host) : SIZE_MAX;
    state_job_clear(&job);
    return to;
}

void placement_view_make(struct view *view, struct state *state, struct fleet *fleet, const struct speeds *speeds,
    const char *extra, uint64_t now_ms, placement_moved_fn moved, void *user)
{
    *view = (struct view){0};
    size_t host_count = fleet_count(fleet);
    view->hosts = mem_zalloc(host_count * sizeof *view->hosts);
    for (size_t i = 0; i < host_count; i++) {
        host_read(state, fleet, fleet_at(fleet, i), now_ms, &view->hosts[i]);
        view->up += view->hosts[i].accepts;
    }
    view->input = (struct optimizer_input){.hosts = view->hosts, .host_count = host_count, .now_ms = now_ms};
    links_make(view, speeds);

    struct state_vm *vms;
    size_t count = state_vms(state, "", INT64_MAX, &vms);
    view->vms = mem_zalloc(count * sizeof *view->vms);
    view->vm_ids = mem_zalloc(count * sizeof *view->vm_ids);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = vms[i].owner[0] ? placement_view_host(view, vms[i].owner) : SIZE_MAX;
        bool wanted = extra && strcmp(vms[i].id, extra) == 0;
        if (at == SIZE_MAX && !wanted)
            continue;
        view->vms[n].host = at;
        vm_view(at == SIZE_MAX ? NULL : fleet_at(fleet, at), &vms[i],
            at != SIZE_MAX && host_up(fleet, fleet_at(fleet, at), now_ms), moved(user, &vms[i]), &view->vms[n]);
        size_t to = under_way_to(view, state, &vms[i]);
        for (int r = 0; r < RESOURCE_COUNT && to != SIZE_MAX; r++) /* room is kept on both hosts while it moves */
            view->hosts[to].overhead[r] += view->vms[n].demand[r];
        snprintf(view->vm_ids[n], STATE_ID_MAX, "%s", vms[i].id);
        n++;
    }
    free(vms);
    view->input.vms = view->vms;
    view->input.vm_count = n;
}

void placement_view_reserve(struct view *view, struct state *state, const char *host, const struct state_vm *vm)
{
    size_t to = placement_view_host(view, host);
    bool said = strcmp(vm->owner, host) == 0 || under_way_to(view, state, vm) != SIZE_MAX;
    if (to == SIZE_MAX || said)
        return;
    view->hosts[to].overhead[RESOURCE_CPU] += UNKNOWN_CPU_SHARE * vm->vcpus;
    view->hosts[to].overhead[RESOURCE_MEMORY] += (double)vm->memory_bytes;
}

void placement_view_free(struct view *view)
{
    free(view->hosts);
    free(view->vms);
    free(view->vm_ids);
    free(view->possible);
    free(view->links);
    *view = (struct view){0};
}
