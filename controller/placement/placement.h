/* Placement: feeds the optimizer with what the log and the fleet say, and turns its plans into moves.
 *
 * The leader calls placement_tick() every second: the optimizer takes notice of the sample, and in automatic mode the
 * first move of its plan is handed back when nothing else is moving and the last move has settled. One thread. */
#ifndef CONTROLLER_PLACEMENT_PLACEMENT_H
#define CONTROLLER_PLACEMENT_PLACEMENT_H

#include "controller/fleet/fleet.h"
#include "optimizer/optimizer.h"
#include "proto/api.pb-c.h"

struct placement_options {
    struct optimizer_settings optimizer;
    bool automatic;     /* until the setting in the state says otherwise */
    uint64_t settle_ms; /* pause between automatic moves */
};

struct placement;
struct placement *placement_new(struct state *state, struct fleet *fleet, const struct placement_options *options);
void placement_free(struct placement *placement);
/* Leadership began: what was remembered of the fleet is void. */
void placement_reset(struct placement *placement);

struct placement_move {
    char vm_id[STATE_ID_MAX], vm[STATE_NAME_MAX], from_host[STATE_NAME_MAX], to_host[STATE_NAME_MAX];
    char reason[OPTIMIZER_TEXT_MAX];
};
/* True: `out` should be moved now. */
bool placement_tick(struct placement *placement, uint64_t now_ms, int64_t wall_ms, struct placement_move *out);
/* A move of the VM was begun or has ended, however: the VM rests, and the cluster settles. */
void placement_moved(struct placement *placement, const char *vm_id, uint64_t now_ms);

bool placement_automatic(const struct placement *placement);
/* A host for the VM, other than `exclude` (may be empty), that a move with these options (NULL: none) can go to.
 * ERR_CAPACITY: none has room; ERR_UNAVAILABLE: none is up. */
MUST_CHECK int placement_choose(struct placement *placement, const char *vm_id, const char *exclude,
    const Drover__MigrationOptions *options, uint64_t now_ms, struct err *err, char host[STATE_NAME_MAX],
    char reason[256]);

/* What the optimizer would do at once. `moves` takes up to `max`; returns how many. The reply is filled likewise. */
size_t placement_plan(struct placement *placement, uint64_t now_ms, int64_t wall_ms, Drover__OptimizerPlanReply *reply,
    struct placement_move *moves, size_t max);
void placement_status(
    struct placement *placement, uint64_t now_ms, int64_t wall_ms, Drover__OptimizerStatusReply *reply);
double placement_imbalance(struct placement *placement, uint64_t now_ms, int64_t wall_ms);

#endif
