#include "migrate/policy.h"

#include "migrate/ram.h"

/* What a switch costs besides its pages: stopping, device state, starting. 3-6 ms were measured on a quiet machine. */
#define SWITCH_FIXED_US 5000u
/* Until QEMU has come to the switch the guest goes on writing; so long does that take. */
#define SWITCH_ARM_US 3000u
/* A remainder that takes so long is as good as none: more rounds would only cost time. */
#define REMAINDER_NEGLIGIBLE_US 500u
/* Another round is worth it while it makes the remainder shorter by a quarter. */
#define WORTH_NUMERATOR   3u
#define WORTH_DENOMINATOR 4u
/* Rounds without a better remainder after which no better one is expected. */
#define ROUNDS_WITHOUT_PROGRESS 12u
#define ROUNDS_BEFORE_POSTCOPY  3u /* the same where post-copy may follow */
/* Rounds before post-copy: the first carries all, a second what was written meanwhile, if that was little. */
#define HYBRID_ROUNDS 2u

void policy_round(struct policy *p, uint64_t pages, uint64_t duration_us, uint64_t dirty_pages)
{
    if (duration_us == 0)
        duration_us = 1;
    double rate = (double)pages * PAGE_BYTES / (double)duration_us;
    /* Small rounds are all latency and say little about bandwidth: they may raise the estimate, not lower it. */
    if (p->rounds == 0 || rate > p->bytes_per_us)
        p->bytes_per_us = rate;
    else if (pages >= 4096)
        p->bytes_per_us = p->bytes_per_us * 0.5 + rate * 0.5;
    p->dirty_pages_per_us = (double)dirty_pages / (double)duration_us;
    p->rounds++;
    p->round_us = duration_us;
    p->round_pages = pages;
    p->remaining_pages = dirty_pages;
    if (p->rounds == 1 || dirty_pages * WORTH_DENOMINATOR < p->best_pages * WORTH_NUMERATOR) {
        p->best_pages = dirty_pages;
        p->rounds_since_best = 0;
    } else {
        p->rounds_since_best++;
    }
}

static uint64_t policy_remainder_us(const struct policy *p)
{
    double pages = (double)p->remaining_pages + p->dirty_pages_per_us * SWITCH_ARM_US;
    if (p->bytes_per_us <= 0)
        return UINT64_MAX / 2;
    return (uint64_t)(pages * PAGE_BYTES / p->bytes_per_us);
}

uint64_t policy_predict_us(const struct policy *p)
{
    return SWITCH_FIXED_US + policy_remainder_us(p);
}

enum policy_decision policy_decide(const struct policy *p, const struct policy_limits *limits)
{
    bool fits = policy_predict_us(p) <= limits->max_downtime_us;
    if (fits && (policy_remainder_us(p) <= REMAINDER_NEGLIGIBLE_US || p->rounds_since_best > 0))
        return POLICY_SWITCH;
    uint32_t patience = limits->postcopy_next ? ROUNDS_BEFORE_POSTCOPY : ROUNDS_WITHOUT_PROGRESS;
    if (p->rounds >= limits->max_rounds || p->rounds_since_best >= patience)
        return fits ? POLICY_SWITCH : POLICY_GIVE_UP;
    return POLICY_ROUND;
}

bool policy_hybrid_round(const struct policy *p)
{
    return p->rounds < HYBRID_ROUNDS && p->remaining_pages * WORTH_DENOMINATOR < p->round_pages;
}
