/* possible: which hosts could run a running VM that is moved there, by what all hosts have said of themselves: the
 * preflight without its looks at hosts. What it would refuse is no candidate. */
#ifndef CONTROLLER_PLACEMENT_POSSIBLE_H
#define CONTROLLER_PLACEMENT_POSSIBLE_H

#include "controller/placement/view.h"

/* Fills in `possible` of the VMs that run on `host` and may be moved, where that is not done yet; the view owns it.
 * Returns of how many. */
size_t possible_fill(struct view *view, struct state *state, struct fleet *fleet, size_t host);
/* The same of one VM, whether it may be moved now or not, for a move with options of its own (NULL: none). */
void possible_fill_vm(
    struct view *view, struct state *state, struct fleet *fleet, size_t vm, const Drover__MigrationOptions *options);

/* optimizer_plan() without moves known to be impossible. Only the VMs of hosts that it wants to relieve are filled in:
 * a quiet cluster costs no preflight, and a host that cannot be relieved, again and again, costs those of its own VMs.
 */
void possible_plan(struct view *view, struct state *state, struct fleet *fleet, const struct optimizer_memory *memory,
    const struct optimizer_settings *settings, bool at_once, struct optimizer_plan *out);

#endif
