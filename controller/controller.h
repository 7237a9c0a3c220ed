/* What the controller is made of, for the parts that join it together (api/, keeper, metrics, main). */
#ifndef CONTROLLER_CONTROLLER_H
#define CONTROLLER_CONTROLLER_H

#include "base/exporter.h"
#include "base/log.h"
#include "base/loop.h"
#include "controller/fleet/call.h"
#include "controller/jobs/runner.h"
#include "controller/options.h"
#include "controller/placement/placement.h"
#include "controller/proposer.h"

/* Counted by the leader since it began to lead; Prometheus copes with counters that begin anew. */
struct controller_counters {
    uint64_t migrations[3]; /* succeeded, failed, cancelled */
    uint64_t migration_wire_bytes;
    struct metrics_histogram duration_s, blackout_s, network_blackout_s;
    struct metrics_histogram foretold_duration, foretold_blackout, foretold_bytes; /* outcome by forecast */
};

struct controller {
    struct options options;
    uv_loop_t *loop;
    struct wire *wire;
    struct wire_server *server;
    struct replica *replica;
    struct state *state;
    struct fleet *fleet;
    struct claims *claims;
    struct runner *runner;
    struct admission *admission; /* as decided when the runner was at this revision; NULL: not yet */
    uint64_t admission_revision, admission_ms;
    struct placement *placement;
    struct exporter *exporter;
    struct loop_timer *tick;
    bool leader; /* and ready for reads */
    bool closing;
    uint64_t leader_ms; /* since when */
    uint64_t last_key;  /* of actions no job asked for */
    struct controller_counters counters;
    uint64_t last_end; /* number of the last end that was put down, perhaps not in the log yet (state/ends.h) */
};

/* metrics.c */
void metrics_setup(struct controller *c);
void metrics_collect(void *controller, struct metrics *m);
void metrics_job_finished(struct controller *c, const struct state_job *job);

/* keeper.c: compares what a host has just reported with the log, and does something about differences. */
void keeper_check(struct controller *c, struct fleet_host *host);
/* Facts a host told go into the log when they are new. */
void keeper_note_facts(struct controller *c, const struct fleet_host *host);
/* A new cluster's members go from the configuration into the log. */
void keeper_note_members(struct controller *c);

/* balance.c: the leader's second: the optimizer's sample, and its move where it may. */
void balance_tick(struct controller *c);

/* Address of the leader's API; empty: unknown. */
void controller_leader_address(const struct controller *c, char out[WIRE_ADDRESS_MAX]);

#endif
