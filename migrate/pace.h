/* pace: when something that is rationed may go on: bytes on a link, CPU time. Pure.
 *
 * What is used is owed and paid back at so many units a second; who owes nothing may go on. What was not used is kept
 * for `burst_ns`, so that waking up late costs nothing; more than `debt_ns` is never owed, so that nobody waits for
 * long after something that could not wait. So within t seconds at most t + (burst_ns + debt_ns) / 1e9 seconds' worth
 * is used. The rate may change with every call; 0: not limited. */
#ifndef MIGRATE_PACE_H
#define MIGRATE_PACE_H

#include <stdint.h>

struct pace {
    uint64_t burst_ns, debt_ns; /* worth of the rate */
    uint64_t at_ns;             /* when `owed` was right; 0: never yet */
    double owed;                /* units; negative: kept */
};

/* `units` were used. */
void pace_spend(struct pace *pace, uint64_t now_ns, uint64_t per_s, uint64_t units);
/* How long to wait; 0: go on. */
uint64_t pace_wait_ns(struct pace *pace, uint64_t now_ns, uint64_t per_s);

#endif
