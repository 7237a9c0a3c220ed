/* What a series of probes says about the time in which the guest was dark. Pure.
 *
 * Probe i is sent at sent_ns[i] (ascending) and answered at answered_ns[i] (0: never). Replies may come late and out of
 * order.
 *
 * A dark span is a time in which a probe was waiting and no reply came in. It ends when a reply arrives (or, for the
 * last one, at `end_ns`); it begins at the reply before that, or, when the prober itself was held up and nothing was
 * under way, one interval before the first probe that the guest had not yet passed. So
 *   - probes that were lost and probes that were queued and answered late count alike;
 *   - a pause of the prober does not count as one of the guest;
 *   - a span is never too short, and too long by one interval at most;
 *   - a healthy guest shows spans of one interval, plus the jitter of its answers.
 * The blackout is the longest dark span. */
#ifndef TESTS_PROBES_H
#define TESTS_PROBES_H

#include <stddef.h>
#include <stdint.h>

struct probe {
    uint64_t sent_ns;
    uint64_t answered_ns; /* 0: not answered */
};

struct dark_span {
    uint64_t begin_ns;
    uint64_t length_ns;
};

#define DARK_SPANS_MAX 64

struct probe_stats {
    uint64_t sent;
    uint64_t received;
    struct dark_span blackout; /* the longest */
    uint64_t send_gap_ns;      /* longest distance, by time of sending, between probes that were answered at all */
    uint64_t rtt_median_ns;
    uint64_t rtt_p99_ns;
    uint64_t rtt_max_ns;
    struct dark_span
        spans[DARK_SPANS_MAX]; /* longer than the threshold, in order; the first ones when there are more */
    size_t span_count;         /* all of them, also those that did not fit */
};

/* `scratch` has room for `count` pointers. */
void probes_evaluate(const struct probe *probes, size_t count, uint64_t interval_ns, uint64_t threshold_ns,
    uint64_t end_ns, const struct probe **scratch, struct probe_stats *out);

#endif
