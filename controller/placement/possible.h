/* possible: which hosts could run a running VM that is moved there, by what all hosts have said of themselves: the
 * preflight without its looks at hosts. What it would refuse is no candidate. */
#ifndef CONTROLLER_PLACEMENT_POSSIBLE_H
#define CONTROLLER_PLACEMENT_POSSIBLE_H

#include "controller/placement/view.h"

/* Fills in `possible` of the VMs that run on `host` (SIZE_MAX: on any) and may be moved; the view owns it. */
void possible_fill(struct view *view, struct state *state, struct fleet *fleet, size_t host);
/* The same of one VM, whether it may be moved now or not. */
void possible_fill_vm(struct view *view, struct state *state, struct fleet *fleet, size_t vm);

#endif
