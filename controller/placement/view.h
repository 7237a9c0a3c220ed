/* Private to placement/: the cluster as the optimizer sees it. */
#ifndef CONTROLLER_PLACEMENT_VIEW_H
#define CONTROLLER_PLACEMENT_VIEW_H

#include "controller/fleet/fleet.h"
#include "controller/placement/speeds.h"
#include "optimizer/optimizer.h"

/* How fast guests' memory travels where neither a migration nor the hosts have said it: a plain gigabit network. */
#define VIEW_LINK_ASSUMED_BYTES_PER_S 100e6
/* What each move costs besides. */
#define VIEW_MOVE_FIXED_S 1.0

struct view {
    struct optimizer_host *hosts;
    struct optimizer_vm *vms;
    char (*vm_ids)[STATE_ID_MAX]; /* beside vms */
    bool *possible;               /* see possible.h; NULL: nothing is known to be impossible */
    struct optimizer_link *links; /* of the input */
    struct optimizer_input input;
    size_t up; /* hosts that are */
};

/* When a VM was last moved, on the clock of `now_ms`; 0: never. */
typedef uint64_t (*placement_moved_fn)(void *user, const struct state_vm *vm);

/* All hosts with a session and all VMs that have an owner, and `extra` (an id; NULL: none) even without. Take:
 * placement_view_free(). */
void placement_view_make(struct view *view, struct state *state, struct fleet *fleet, const struct speeds *speeds,
    const char *extra, uint64_t now_ms, placement_moved_fn moved, void *user);
/* Keeps room on the host of that name for a VM that is on its way there and of which the state does not say so yet. */
void placement_view_reserve(struct view *view, struct state *state, const char *host, const struct state_vm *vm);
void placement_view_free(struct view *view);
size_t placement_view_host(const struct view *view, const char *name); /* SIZE_MAX: none */
size_t placement_view_vm(const struct view *view, const char *id);     /* SIZE_MAX: none */

#endif
