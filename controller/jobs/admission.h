/* How many migrations may be at work at once: per host that sends, per host that receives, and per pair of them. What
 * is beyond waits, the oldest first; nothing is refused. Pure.
 *
 * All are decided in one go, and each then asks for its own: hundreds may wait, and all ask whenever one has ended. */
#ifndef CONTROLLER_JOBS_ADMISSION_H
#define CONTROLLER_JOBS_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "optimizer/optimizer.h"

/* A migration that is at work or waits to be. */
struct admission_move {
    uint64_t job_id;
    const char *from, *to;
    bool admitted;
};

struct admission;
/* Decides about `moves`, which are by job id, ascending, and lent until it returns. It takes time in proportion to
 * their number (times its logarithm). */
struct admission *admission_new(
    const struct admission_move *moves, size_t count, const struct optimizer_limits *limits);
void admission_free(struct admission *admission);
/* True: the job may begin (or has begun), or is none of them. Older jobs that may begin too count as begun, so that the
 * answer is the same whoever asks first; those that wait for another host hold nobody up. False: `reason` says what it
 * waits for. */
bool admission_ask(const struct admission *admission, uint64_t job_id, char reason[static 256]);

#endif
