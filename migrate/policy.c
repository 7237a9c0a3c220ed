#include "migrate/policy.h"

#include "migrate/ram.h"

/* Until QEMU has come to the switch the guest goes on writing; so long does that take. */
#define SWITCH_ARM_US 3000u
/* A remainder that takes so long needs no round of its own: the switch begins with one, while QEMU gets ready. */
#define REMAINDER_NEGLIGIBLE_US 2000u
/* Another round is worth it while it makes the remainder shorter by a quarter. */
#define WORTH_NUMERATOR   3u
#define WORTH_DENOMINATOR 4u
/* Rounds without a better remainder after which no better one is expected. */
#define ROUNDS_WITHOUT_PROGRESS 12u
#define ROUNDS_BEFORE_POSTCOPY  3u /* the same where post-copy may follow */
#define ROUNDS_BEFORE_THROTTLE  2u /* and where the guest is slowed down first; one for each step after that */
/* A shorter round says little about how much a guest writes: it counts for less. */
#define TELLING_ROUND_US 20000u
/* Rounds before post-copy: the first carries all, a second what was written meanwhile, if that was little. */
#define HYBRID_ROUNDS 2u

/* CPU time a guest keeps, step by step. A pause is 60 ms at most (brake.h), so less than this cannot be had. */
static const uint32_t throttle_steps[] = {100, 60, 35, 20, 12, 7, 4, 2, 1};
#define THROTTLE_STEPS (sizeof throttle_steps / sizeof *throttle_steps)

void policy_init(struct policy *p)
{
    *p = (struct policy){.throttle_percent = 100};
}

void policy_round(struct policy *p, uint64_t pages, uint64_t duration_us, uint64_t written_pages, uint64_t dirty_pages)
{
    if (duration_us == 0)
        duration_us = 1;
    double rate = (double)pages * PAGE_BYTES / (double)duration_us;
    /* Small rounds are all latency and say little about bandwidth: they may raise the estimate, not lower it. */
    if (p->rounds == 0 || rate > p->bytes_per_us)
        p->bytes_per_us = rate;
    else if (pages >= 4096)
        p->bytes_per_us = p->bytes_per_us * 0.5 + rate * 0.5;
    double weight = p->rounds == 0 || duration_us >= TELLING_ROUND_US ? 1 : (double)duration_us / TELLING_ROUND_US;
    p->dirty_pages_per_us += weight * ((double)written_pages / (double)duration_us - p->dirty_pages_per_us);
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

uint64_t policy_remainder_us(const struct policy *p)
{
    double pages = (double)p->remaining_pages + p->dirty_pages_per_us * SWITCH_ARM_US;
    if (p->bytes_per_us <= 0)
        return UINT64_MAX / 2;
    return (uint64_t)(pages * PAGE_BYTES / p->bytes_per_us);
}

uint64_t policy_predict_us(const struct policy *p, const struct policy_limits *limits)
{
    uint64_t most_us = limits->max_downtime_us / 2, fixed_us = POLICY_SWITCH_FIXED_US;
    if (limits->switch_us > fixed_us && most_us > fixed_us)
        fixed_us = limits->switch_us < most_us ? limits->switch_us : most_us;
    return fixed_us + policy_remainder_us(p);
}

static uint32_t throttle_patience(const struct policy *p)
{
    return p->throttle_percent == 100 ? ROUNDS_BEFORE_THROTTLE : 1;
}

enum policy_decision policy_decide(const struct policy *p, const struct policy_limits *limits)
{
    bool fits = policy_predict_us(p, limits) <= limits->max_downtime_us;
    if (fits && (policy_remainder_us(p) <= REMAINDER_NEGLIGIBLE_US || p->rounds_since_best > 0))
        return POLICY_SWITCH;
    if (!fits && limits->throttle && p->rounds_since_best >= throttle_patience(p) && p->rounds < limits->max_rounds &&
        p->throttle_percent > throttle_steps[THROTTLE_STEPS - 1])
        return POLICY_THROTTLE;
    uint32_t patience = limits->postcopy_next ? ROUNDS_BEFORE_POSTCOPY : ROUNDS_WITHOUT_PROGRESS;
    if (p->rounds >= limits->max_rounds || p->rounds_since_best >= patience)
        return fits ? POLICY_SWITCH : POLICY_GIVE_UP;
    return POLICY_ROUND;
}

void policy_throttle(struct policy *p, uint32_t floor_percent)
{
    size_t step = 1;
    while (step + 1 < THROTTLE_STEPS && throttle_steps[step] >= p->throttle_percent)
        step++;
    while (p->throttle_percent == 100 && step + 1 < THROTTLE_STEPS && throttle_steps[step + 1] > floor_percent)
        step++;
    p->throttle_percent = throttle_steps[step];
    p->best_pages = p->remaining_pages;
    p->rounds_since_best = 0;
}

bool policy_hybrid_round(const struct policy *p)
{
    return p->rounds < HYBRID_ROUNDS && p->remaining_pages * WORTH_DENOMINATOR < p->round_pages;
}
