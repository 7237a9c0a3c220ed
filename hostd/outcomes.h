/* How migrations ended on this host, kept until a controller has taken note and some time longer, so that a question
 * that comes late still gets its answer. Each is a small file (the packed MigrateOutcomeRequest), written before
 * anything is done that follows from it. Bounded: the oldest one that was told goes first. Single-threaded. */
#ifndef HOSTD_OUTCOMES_H
#define HOSTD_OUTCOMES_H

#include "base/err.h"
#include "proto/host.pb-c.h"

#define OUTCOMES_MAX 128

struct outcomes;

/* Loads what an earlier hostd left in `directory` (made when missing). Take: outcomes_close(). */
MUST_CHECK int outcomes_open(const char *directory, struct err *err, struct outcomes **out);
void outcomes_close(struct outcomes *outcomes);

/* Keeps a copy of the outcome. The first one of a migration stands: a second is ignored. `told`: nobody has to be told.
 * An outcome decides who runs a guest: when it cannot be written, the caller must not act on it. */
MUST_CHECK int outcomes_add(
    struct outcomes *outcomes, const Drover__MigrateOutcomeRequest *outcome, bool told, struct err *err);
/* The guest of that migration was heard `heard_us` after its start here. It goes with the outcome from now on; who has
 * been told already is not told again, and a hostd that starts again does not know it. */
void outcomes_set_heard(struct outcomes *outcomes, const char *migration_id, uint64_t heard_us);
/* Lent until outcomes_close() or until it had to give way; NULL: not known. */
const Drover__MigrateOutcomeRequest *outcomes_find(const struct outcomes *outcomes, const char *migration_id);
/* Fills in why that migration, of which this is kept, cannot begin here (again): how it ended. Returns -1. */
int outcome_refusal(const Drover__MigrateOutcomeRequest *kept, struct err *err);
/* The oldest one that nobody has taken note of after `after` (NULL: of all); NULL: none. Lent likewise. */
const Drover__MigrateOutcomeRequest *outcomes_untold(const struct outcomes *outcomes, const char *after);
void outcomes_set_told(struct outcomes *outcomes, const char *migration_id);
size_t outcomes_untold_count(const struct outcomes *outcomes);

#endif
