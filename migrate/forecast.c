#include "migrate/forecast.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/format.h"
#include "migrate/ram.h"

/* From the last byte sent to the acknowledgement and the scan that follows: small rounds took 1-2 ms. */
#define ROUND_FIXED_US 1500.0
/* Of a link, what arrives as pages: frames, TCP and our own headers take the rest. */
#define LINK_SHARE 0.94
/* Where nothing at all is known of the link: 1 Gbit/s, what nearly every host has at least. */
#define ASSUMED_LINK_BYTES_PER_S UINT64_C(125000000)
/* Of the pace of reading and packing alone, what is left when pages are sealed, sent and applied, too: 0.27 and 0.40
 * were measured with both sides on two busy cores. Where the last move tells, that is taken. */
#define PACE_SHARE 0.4
/* No engine was ever so far below its pace for want of processors: the link held it up. */
#define PACE_SHARE_MIN 0.15
/* A switch where nothing is known of earlier ones: 7-19 ms were measured, seldom on a quiet machine. */
#define SWITCH_UNKNOWN_US 10000u
/* Beyond a window of 5 ms, so many times as long is longer than any round. */
#define AHEAD 1000000u

double forecast_written(const struct forecast_input *in, double us)
{
    struct forecast_point before = {0}, last = {0};
    for (size_t i = 0; i < in->points; i++) {
        before = last;
        last = in->curve[i];
        if ((double)last.us >= us)
            break;
    }
    if (last.us <= before.us)
        return 0;
    double slope = ((double)last.pages - (double)before.pages) / (double)(last.us - before.us);
    double pages = (double)before.pages + slope * (us - (double)before.us);
    double most = (double)(in->allocated_pages > last.pages ? in->allocated_pages : last.pages);
    return pages < most ? pages : most;
}

/* ---- the link ---- */

/* Of the pace, what the last move has come to; 0: not known. */
static double last_share(const struct forecast_way *way)
{
    return way->last_raw && way->last_pace ? (double)way->last_raw / (double)way->last_pace : 0;
}

/* Bytes on the wire a microsecond that the link carries, and where that comes from. What the last move was acknowledged
 * tells of the link only if it was the link that held it up. */
static double wire_rate(const struct forecast_way *way, enum forecast_link *source)
{
    double share = last_share(way);
    double wire = (double)ASSUMED_LINK_BYTES_PER_S / 1e6 * LINK_SHARE;
    *source = LINK_ASSUMED;
    if (way->last_wire && (share < PACE_SHARE_MIN || !way->link)) {
        *source = LINK_LAST_MOVE;
        wire = (double)way->last_wire / 1e6;
    } else if (way->link) {
        *source = LINK_SPEED;
        wire = (double)way->link / 1e6 * LINK_SHARE;
    }
    if (way->limit && (double)way->limit / 1e6 < wire) {
        *source = LINK_LIMIT;
        wire = (double)way->limit / 1e6;
    }
    return wire;
}

/* Bytes of guest RAM a microsecond: what the link carries or the engine does, whichever is less. */
static double raw_rate(const struct forecast_input *in, enum forecast_link *source)
{
    double packed = in->sample.packed_share > 0 ? in->sample.packed_share : 1, share = last_share(&in->way);
    double raw = wire_rate(&in->way, source) / packed;
    double pace = in->sample.raw_bytes_per_us * (share < PACE_SHARE_MIN ? PACE_SHARE : share < 1 ? share : 1);
    return pace > 0 && pace < raw ? pace : raw;
}

/* ---- playing ---- */

struct play {
    struct policy policy;
    enum policy_decision end;
    double us, pages; /* so far; sent so far */
};

static double pass_us(double pages, double rate)
{
    return ROUND_FIXED_US + pages * PAGE_BYTES / rate;
}

/* How fast the guest goes on, braked: CPU time that it did not use is not missed. */
static double speed(const struct forecast_input *in, const struct policy *policy)
{
    double allowed = policy->throttle_percent / 100.0;
    double used = in->cpu_share > 0 && in->cpu_share < 1 ? in->cpu_share : 1;
    return allowed < used ? allowed / used : 1;
}

static void play_round(const struct forecast_input *in, double rate, struct play *p)
{
    double pages =
        p->policy.rounds ? (double)p->policy.remaining_pages : (double)in->allocated_pages * in->sample.full_share;
    double us = pass_us(pages, rate);
    p->us += us;
    p->pages += pages;
    double pace = speed(in, &p->policy), written = forecast_written(in, us * pace);
    /* The first round looks at every page, half of what is written before it has come to it: that is in what it sends.
     */
    double left = p->policy.rounds ? written : forecast_written(in, us / 2 * pace);
    policy_round(&p->policy, (uint64_t)pages, (uint64_t)us, (uint64_t)written, (uint64_t)left);
}

/* Rounds as the policy would have them. `percent`: CPU time the guest keeps from the beginning; `floor`: see
 * policy_throttle(). */
static struct play play(
    const struct forecast_input *in, const struct policy_limits *limits, double rate, uint32_t percent, uint32_t floor)
{
    struct play p = {0};
    policy_init(&p.policy);
    p.policy.throttle_percent = percent;
    do {
        play_round(in, rate, &p);
        p.end = policy_decide(&p.policy, limits);
        if (p.end == POLICY_THROTTLE)
            policy_throttle(&p.policy, floor);
    } while (p.end == POLICY_ROUND || p.end == POLICY_THROTTLE);
    return p;
}

bool forecast_clear(const struct forecast_input *in)
{
    struct forecast_input worst = *in;
    enum forecast_link link;
    if (in->points == 0 || in->points == FORECAST_POINTS_MAX)
        return false;
    const struct forecast_point *last = &in->curve[in->points - 1];
    worst.limits.throttle = worst.limits.postcopy_next = false;
    worst.curve[worst.points++] = (struct forecast_point){last->us * AHEAD, last->pages * AHEAD};
    return play(&worst, &worst.limits, raw_rate(in, &link), 100, 100).end == POLICY_SWITCH;
}

/* The most CPU time with which pre-copy ends in budget; 0: it never does. */
static uint32_t needed_percent(const struct forecast_input *in, double rate)
{
    struct policy_limits limits = in->limits;
    struct policy steps;
    limits.throttle = false;
    policy_init(&steps);
    for (;;) {
        if (play(in, &limits, rate, steps.throttle_percent, 100).end == POLICY_SWITCH)
            return steps.throttle_percent;
        uint32_t before = steps.throttle_percent;
        policy_throttle(&steps, 100);
        if (steps.throttle_percent == before)
            return 0;
    }
}

/* ---- the verdict ---- */

/* What the guest stands still for besides its last pages. */
static uint64_t switch_us(const struct forecast_input *in)
{
    return in->limits.switch_us ? in->limits.switch_us : SWITCH_UNKNOWN_US;
}

static void take_precopy(
    const struct forecast_input *in, const struct play *p, enum forecast_mode mode, struct forecast *out)
{
    out->mode = mode;
    out->throttle_percent = p->policy.throttle_percent;
    out->blackout_us = switch_us(in) + policy_remainder_us(&p->policy);
    out->total_us = (uint64_t)p->us + out->blackout_us;
}

/* What is left when the guest is switched follows. */
static double take_postcopy(
    const struct forecast_input *in, const struct play *p, double left, double rate, struct forecast *out)
{
    out->mode = p->policy.rounds ? FORECAST_HYBRID : FORECAST_POSTCOPY;
    out->blackout_us = switch_us(in);
    out->total_us = (uint64_t)(p->us + pass_us(left, rate)) + out->blackout_us;
    return p->pages + left;
}

/* "in the 3.2 s of a round the guest writes 48 MiB, and the 240 ms it would stand still are over the 30 ms allowed" */
static void say_stuck(const struct play *p, const struct forecast_input *in, const char *then, char *why)
{
    char time[FORMAT_MAX], bytes[FORMAT_MAX];
    snprintf(why, FORECAST_WHY_MAX,
        "in the %s of a round the guest writes %s again: it would stand still for %" PRIu64 " ms of %" PRIu64
        " allowed, so %s",
        format_duration_ms(p->policy.round_us / 1000, time),
        format_bytes(p->policy.remaining_pages * PAGE_BYTES, bytes), policy_predict_us(&p->policy, &in->limits) / 1000,
        in->limits.max_downtime_us / 1000, then);
}

static void say_fits(const struct forecast *f, const struct play *p, const struct forecast_input *in, char *why)
{
    char bytes[FORMAT_MAX], more[96] = "";
    if (f->blackout_us > in->limits.max_downtime_us)
        snprintf(
            more, sizeof more, " but for the %" PRIu64 " ms that switches have cost here lately", switch_us(in) / 1000);
    snprintf(why, FORECAST_WHY_MAX, "after %" PRIu32 " round%s %s are left, which fits the %" PRIu64 " ms allowed%s",
        f->rounds, f->rounds == 1 ? "" : "s", format_bytes(p->policy.remaining_pages * PAGE_BYTES, bytes),
        in->limits.max_downtime_us / 1000, more);
}

/* Post-copy follows. Returns pages sent. */
static double forecast_later(
    const struct forecast_input *in, double rate, const struct play *plain, const char *then, struct forecast *out)
{
    struct policy_limits limits = in->limits;
    struct play p = {0};
    policy_init(&p.policy);
    limits.postcopy_next = true;
    limits.throttle = false;
    if (in->chosen.mode == MODE_AUTO)
        play_round(in, rate, &p); /* it knows from here on, and does not wait until rounds show it */
    else
        p = play(in, &limits, rate, 100, 100);
    say_stuck(plain, in, then, out->why);
    out->rounds = p.policy.rounds;
    return take_postcopy(in, &p, (double)p.policy.remaining_pages, rate, out);
}

/* The guest is slowed down to `percent`. Returns pages sent. */
static double forecast_throttled(
    const struct forecast_input *in, double rate, const struct play *plain, uint32_t percent, struct forecast *out)
{
    char then[96];
    struct policy_limits limits = in->limits;
    limits.throttle = true;
    struct play p = play(in, &limits, rate, 100, percent);
    take_precopy(in, &p, p.end == POLICY_SWITCH ? FORECAST_THROTTLE : FORECAST_NONE, out);
    snprintf(then, sizeof then, "it is slowed down to %" PRIu32 " %% of its CPU time", out->throttle_percent);
    say_stuck(plain, in, then, out->why);
    out->rounds = p.policy.rounds;
    return p.pages;
}

/* Pre-copy does not end in budget: what the policy says then. */
static double forecast_stuck(
    const struct forecast_input *in, double rate, const struct play *plain, struct forecast *out)
{
    bool throttle = in->chosen.stuck == STUCK_THROTTLE;
    uint32_t percent = throttle ? needed_percent(in, rate) : 0;
    if (percent)
        return forecast_throttled(in, rate, plain, percent, out);
    if (options_postcopy_last(&in->chosen))
        return forecast_later(in, rate, plain,
            throttle ? "slowing it down would not end it, and what is left follows after the switch"
                     : "what is left follows after the switch",
            out);
    say_stuck(plain, in,
        throttle ? "not even slowing the guest down would end it; it would be given up" : "it would be given up",
        out->why);
    take_precopy(in, plain, FORECAST_NONE, out);
    return plain->pages;
}

void forecast_make(const struct forecast_input *in, struct forecast *out)
{
    *out = (struct forecast){.throttle_percent = 100};
    double rate = raw_rate(in, &out->link), pages;
    struct policy_limits limits = in->limits;
    limits.throttle = limits.postcopy_next = false;
    struct play plain = play(in, &limits, rate, 100, 100);
    out->bandwidth_bytes_per_s = (uint64_t)(rate * 1e6);
    out->pace_bytes_per_s = (uint64_t)(in->sample.raw_bytes_per_us * 1e6);
    out->rounds = plain.policy.rounds;
    if (in->points)
        out->written_pages_per_s =
            (uint64_t)((double)in->curve[in->points - 1].pages * 1e6 / (double)in->curve[in->points - 1].us);
    if (in->chosen.mode == MODE_POSTCOPY) {
        struct play none = {0};
        snprintf(out->why, sizeof out->why, "as asked, all of memory follows after the switch");
        out->rounds = 0;
        pages = take_postcopy(in, &none, (double)in->allocated_pages * in->sample.full_share, rate, out);
    } else if (in->chosen.mode == MODE_HYBRID) {
        struct play p = {0};
        policy_init(&p.policy);
        do
            play_round(in, rate, &p);
        while (policy_hybrid_round(&p.policy));
        snprintf(out->why, sizeof out->why, "as asked, what is written meanwhile follows after the switch");
        out->rounds = p.policy.rounds;
        pages = take_postcopy(in, &p, (double)p.policy.remaining_pages, rate, out);
    } else if (plain.end == POLICY_SWITCH) {
        take_precopy(in, &plain, FORECAST_PRECOPY, out);
        say_fits(out, &plain, in, out->why);
        pages = plain.pages + (double)plain.policy.remaining_pages;
    } else {
        pages = forecast_stuck(in, rate, &plain, out);
    }
    out->wire_bytes = (uint64_t)(pages * PAGE_BYTES * (in->sample.packed_share > 0 ? in->sample.packed_share : 1));
}

const char *forecast_mode_name(enum forecast_mode mode)
{
    static const char *const names[FORECAST_MODES] = {"precopy", "throttle", "hybrid", "postcopy", "none"};
    return names[mode];
}

const char *forecast_link_name(enum forecast_link link)
{
    static const char *const names[LINK_SOURCES] = {"last-move", "limit", "link", "assumed"};
    return names[link];
}
