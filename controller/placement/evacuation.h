/* How a host is emptied: feeds the optimizer's evacuation with the cluster as it is now. */
#ifndef CONTROLLER_PLACEMENT_EVACUATION_H
#define CONTROLLER_PLACEMENT_EVACUATION_H

#include "controller/fleet/fleet.h"
#include "controller/jobs/job.h"
#include "optimizer/optimizer.h"

/* The cluster's settings, or their defaults: two migrations out of a host, two into it, two from one to another. */
void evacuation_limits(struct state *state, struct optimizer_limits *out);

/* Up to `max` moves off the host for what runs there and no job holds; with how long all that is still there takes. */
void evacuation_plan(struct state *state, struct fleet *fleet, const struct optimizer_settings *settings,
    const char *host, uint64_t now_ms, size_t max, struct job_plan *out);

#endif
