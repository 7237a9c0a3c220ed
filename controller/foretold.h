/* foretold: what the controller does with forecasts of migrations: keeps what a host wrote to sizes that fit the log,
 * knows what the last migration between two hosts was like, and compares forecasts with what came of them. */
#ifndef CONTROLLER_FORETOLD_H
#define CONTROLLER_FORETOLD_H

#include "controller/state/state.h"
#include "proto/host.pb-c.h"

/* NULL is fine. */
void foretold_bound(Drover__MigrationForecast *forecast);

/* What the last migrations between these hosts were like: what was acknowledged, if nothing limited it and it was long
 * enough to tell, and what the switch took, of this VM where that is known. Take: pb_free(); NULL: nothing is known. */
Drover__LinkHistory *foretold_way(struct state *state, const char *vm_id, const char *from_host, const char *to_host);

/* Bytes of guest memory per second that this migration was acknowledged; 0: it does not tell, because it was limited or
 * too short. */
uint64_t foretold_raw_bytes_per_s(const struct state_job *job);

/* What came of a migration, divided by what was foretold of it. */
struct foretold_ratios {
    double duration, blackout, bytes;
};
/* False: there was no forecast, or it said that the migration would be given up, or all of memory was hashed, too. */
bool foretold_compare(const Drover__MigrationRecord *record, struct foretold_ratios *out);

#endif
