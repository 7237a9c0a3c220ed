"""Medians, percentiles and confidence intervals in which a failure counts as the worst there is. Pure.

A run that did not end, or left a damaged guest, has no time, no blackout and no bytes that could be averaged away: it takes part in every
quantile as infinitely bad. So a cell with one failure in ten has a median, but its 95th percentile is `never`.

Nothing is said that the number of runs does not carry: of fewer than INTERVAL_RUNS_MIN not even the whole range holds the median in 95 of
100 cases, so that no interval is given."""
import math

NEVER = math.inf
CONFIDENCE = 0.95
INTERVAL_RUNS_MIN = 6  # the range of n runs misses the median in 2 / 2^n


def median(values):
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else (low + high) / 2


def rank(values, percent):
    """Percentile by the nearest rank: always one of the values, and never below what so many of them are."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def interval(values):
    """The narrowest pair of order statistics that holds the median with at least CONFIDENCE, by the binomial distribution; None when there
    is none."""
    count = len(values)
    if count < INTERVAL_RUNS_MIN:
        return None
    missed, cut = 1, 0  # cases, of 2^count, in which the median is below the lowest value kept; values left out on each side
    while 2 * (missed + math.comb(count, cut + 1)) <= (1 - CONFIDENCE) * 2**count:
        cut += 1
        missed += math.comb(count, cut)
    ordered = sorted(values)
    return ordered[cut], ordered[count - 1 - cut]


def summary(values):
    """None when there are none. `ci_low`, `ci_high` and `p95` only where there are enough."""
    if not values:
        return None
    found = {"n": len(values), "failed": sum(value == NEVER for value in values), "median": median(values), "best": min(values),
             "worst": max(values)}
    between = interval(values)
    if between:
        found.update(ci_low=between[0], ci_high=between[1], p95=rank(values, 95))
    return found


def finite(value):
    """For JSON, which has no infinity: null."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
