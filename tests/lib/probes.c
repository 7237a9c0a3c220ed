#include "tests/lib/probes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static int by_answer(const void *a, const void *b)
{
    const struct probe *const *left = a, *const *right = b;
    return ((*left)->answered_ns > (*right)->answered_ns) - ((*left)->answered_ns < (*right)->answered_ns);
}

static int by_round_trip(const void *a, const void *b)
{
    const struct probe *const *left = a, *const *right = b;
    uint64_t l = (*left)->answered_ns - (*left)->sent_ns, r = (*right)->answered_ns - (*right)->sent_ns;
    return (l > r) - (l < r);
}

static void span_add(struct probe_stats *out, uint64_t begin_ns, uint64_t end_ns, uint64_t threshold_ns)
{
    if (end_ns <= begin_ns) {
        return;
    }
    struct dark_span span = {begin_ns, end_ns - begin_ns};
    if (span.length_ns > out->blackout.length_ns) {
        out->blackout = span;
    }
    if (span.length_ns > threshold_ns) {
        if (out->span_count < DARK_SPANS_MAX) {
            out->spans[out->span_count] = span;
        }
        out->span_count++;
    }
}

/* Walks the replies in order of arrival. `passed` is the first probe after all those the guest has answered so far. */
static void spans_find(const struct probe *probes, size_t count, uint64_t interval_ns, uint64_t threshold_ns,
    uint64_t end_ns, const struct probe **answered, struct probe_stats *out)
{
    const struct probe *passed = probes, *last = probes + count;
    uint64_t reply_ns = 0;

    for (size_t i = 0; i <= out->received && passed < last; i++) {
        uint64_t next_ns = i < out->received ? answered[i]->answered_ns : end_ns;
        uint64_t waiting_ns = passed->sent_ns > interval_ns ? passed->sent_ns - interval_ns : 0;
        span_add(out, reply_ns > waiting_ns ? reply_ns : waiting_ns, next_ns, threshold_ns);
        reply_ns = next_ns;
        if (i < out->received && answered[i] >= passed) {
            passed = answered[i] + 1;
        }
    }
}

void probes_evaluate(const struct probe *probes, size_t count, uint64_t interval_ns, uint64_t threshold_ns,
    uint64_t end_ns, const struct probe **scratch, struct probe_stats *out)
{
    const struct probe *before = NULL;

    memset(out, 0, sizeof(*out));
    out->sent = count;
    for (size_t i = 0; i < count; i++) {
        if (probes[i].answered_ns == 0) {
            continue;
        }
        uint64_t gap_ns = probes[i].sent_ns - (before != NULL ? before->sent_ns : probes[0].sent_ns);
        if (gap_ns > out->send_gap_ns) {
            out->send_gap_ns = gap_ns;
        }
        before = &probes[i];
        scratch[out->received++] = &probes[i];
    }
    if (out->received > 0) {
        qsort(scratch, out->received, sizeof(*scratch), by_round_trip);
        const struct probe *median = scratch[out->received / 2], *p99 = scratch[out->received * 99 / 100];
        const struct probe *slowest = scratch[out->received - 1];
        out->rtt_median_ns = median->answered_ns - median->sent_ns;
        out->rtt_p99_ns = p99->answered_ns - p99->sent_ns;
        out->rtt_max_ns = slowest->answered_ns - slowest->sent_ns;
        qsort(scratch, out->received, sizeof(*scratch), by_answer);
    }
    spans_find(probes, count, interval_ns, threshold_ns, end_ns, scratch, out);
}
