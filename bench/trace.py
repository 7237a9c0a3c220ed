"""What a guest's beats say of a move: silence, throughput, dip and recovery. Pure. `samples` are (arrival, work), by arrival; times in
seconds on one clock."""
import bisect

WINDOW_S = 0.25      # throughput is looked at over this long ...
STEP_S = 0.025       # ... every so often
RECOVERED = 0.9      # of the throughput before
CALM_S = 1.0         # for this long, to count as recovered
TIMELINE_STEP_S = 0.05


def longest_gap(samples, begin, end):
    """(from, to) of the longest time between begin and end without a beat."""
    times = [begin] + [at for at, _ in samples if begin < at < end] + [end]
    return max(zip(times, times[1:]), key=lambda pair: pair[1] - pair[0])


def work_at(samples, at):
    """The guest's count of work at a time, between two beats by straight line."""
    place = bisect.bisect_left(samples, (at,))
    if place == 0:
        return samples[0][1]
    if place == len(samples):
        return samples[-1][1]
    (t0, w0), (t1, w1) = samples[place - 1], samples[place]
    return w0 + (w1 - w0) * (at - t0) / (t1 - t0) if t1 > t0 else w1


def rate_before(samples, begin, end):
    """Work per second before the move."""
    return (work_at(samples, end) - work_at(samples, begin)) / (end - begin) if samples and end > begin else 0.0


def windows(samples, begin, end, rate):
    """(begin of window, throughput as a share of `rate`) for all windows that fit between begin and end."""
    found, at = [], begin
    while at + WINDOW_S <= end:
        found.append((at, (work_at(samples, at + WINDOW_S) - work_at(samples, at)) / WINDOW_S / rate))
        at += STEP_S
    return found


def recovered_at(samples, begin, end, rate):
    """The moment from which on throughput was as good as before for CALM_S, or None when that did not come before `end`."""
    good_since = None
    for at, share in windows(samples, begin, end, rate):
        if share < RECOVERED:
            good_since = None
        elif good_since is None:
            good_since = at
        if good_since is not None and at + WINDOW_S - good_since >= CALM_S:
            return good_since
    return None


def disturbance(samples, baseline_begin, order, silence_end, end):
    """dip_percent: the deepest fall of throughput over any window from the order to the end, pauses included; lost_work_s: the work that
    was not done in that time, in seconds of work as before; recover_s: from the guest's first sign of life at the destination until
    it works as before, None when it did not. None altogether when the guest does no work."""
    rate = rate_before(samples, baseline_begin, order)
    if rate <= 0:
        return None
    shares = [share for _, share in windows(samples, order, end, rate)]
    back = recovered_at(samples, silence_end, end, rate)
    done = work_at(samples, end) - work_at(samples, order)
    return {"rate_before": rate, "dip_percent": max(0.0, 100 * (1 - min(shares, default=1.0))),
            "lost_work_s": (end - order) - done / rate, "recover_s": None if back is None else back - silence_end}


def timeline(samples, order, begin, end, rate):
    """Throughput as whole percent of `rate`, one number every TIMELINE_STEP_S from begin to end; times relative to the order."""
    count = int((end - begin) / TIMELINE_STEP_S)
    edges = [work_at(samples, begin + i * TIMELINE_STEP_S) for i in range(count + 1)]
    return {"from_s": round(begin - order, 3), "step_s": TIMELINE_STEP_S,
            "percent": [round(100 * (b - a) / TIMELINE_STEP_S / rate) for a, b in zip(edges, edges[1:])]}
