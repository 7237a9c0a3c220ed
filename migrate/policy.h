/* policy: after a round, what next? Pure: figures in, a decision out.
 *
 * The last pass happens while the guest stands still. It is predicted from what the rounds measured: pages left, bytes
 * they take on the wire, bandwidth as acknowledged, and the fixed cost of a switch. Switch when that fits the downtime
 * budget and another round would not make it much shorter. When rounds stop making progress, slow the guest down step
 * by step where that is allowed, else give up. */
#ifndef MIGRATE_POLICY_H
#define MIGRATE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* What a switch costs besides its pages (stopping, device state, starting) where nothing is known of earlier ones. 3-6
 * ms were measured on a quiet machine. */
#define POLICY_SWITCH_FIXED_US 5000u

enum policy_decision { POLICY_ROUND, POLICY_SWITCH, POLICY_THROTTLE, POLICY_GIVE_UP };

struct policy_limits {
    uint64_t max_downtime_us;
    uint32_t max_rounds;
    uint64_t switch_us; /* what switches have cost lately besides their pages; 0: not known */
    bool postcopy_next; /* giving up costs little: what is left follows after the switch */
    bool throttle;      /* the guest may be slowed down */
};

/* What the rounds have shown so far. policy_init() it. */
struct policy {
    uint32_t rounds;
    uint64_t remaining_pages; /* dirty after the last round */
    uint64_t best_pages;      /* fewest so far */
    uint32_t rounds_since_best;
    double bytes_per_us; /* bandwidth, raw bytes of guest RAM the destination applied */
    double dirty_pages_per_us;
    uint64_t round_us, round_pages; /* length of the last round; what it sent */
    uint32_t throttle_percent;      /* CPU time the guest's vCPUs keep; 100: all */
};

void policy_init(struct policy *policy);
/* One round is over: `pages` were applied in `duration_us`; `written_pages` were written meanwhile, and of these
 * `dirty_pages` must be sent again. */
void policy_round(
    struct policy *policy, uint64_t pages, uint64_t duration_us, uint64_t written_pages, uint64_t dirty_pages);
/* Time that the pages left would take with the guest standing still, if it was switched now. */
uint64_t policy_remainder_us(const struct policy *policy);
/* Predicted time the guest would stand still then, as the decision counts it: of what switches have cost lately no more
 * than half the budget, so that a few bad ones do not forbid all moves for ever. */
uint64_t policy_predict_us(const struct policy *policy, const struct policy_limits *limits);
enum policy_decision policy_decide(const struct policy *policy, const struct policy_limits *limits);
/* After POLICY_THROTTLE: one step down, so that the next rounds can make progress. `floor_percent`: the first step may
 * go down to just above it, because less is known not to do; 100: nothing is known. */
void policy_throttle(struct policy *policy, uint32_t floor_percent);
/* Before a switch to post-copy, is another round worth it? Once, if it makes what has to follow much shorter. */
bool policy_hybrid_round(const struct policy *policy);

#endif
