"""Medians, percentiles and confidence intervals in which a failure counts as the worst there is. Pure.

A run that did not end, or left a damaged guest, has no time, no blackout and no bytes that could be averaged away: it takes part in every
quantile as infinitely bad. So a cell with one failure in ten has a median, but its 95th percentile is `never`."""
import math
import random

NEVER = math.inf
BOOTSTRAP_SAMPLES = 2000
SEED = 20


def quantile(values, share):
    """By linear interpolation between the two nearest; NEVER as soon as one of them is."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low, high = math.floor(place), math.ceil(place)
    if low == high or ordered[low] == ordered[high]:
        return ordered[low]
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def interval(values, seed=SEED, samples=BOOTSTRAP_SAMPLES):
    """95 % confidence interval of the median, by bootstrap; always the same for the same values."""
    source = random.Random(seed)
    medians = sorted(quantile(source.choices(values, k=len(values)), 0.5) for _ in range(samples))
    return medians[math.floor(0.025 * (samples - 1))], medians[math.ceil(0.975 * (samples - 1))]


def summary(values):
    """None when there are none."""
    if not values:
        return None
    low, high = interval(values)
    return {"n": len(values), "failed": sum(value == NEVER for value in values), "median": quantile(values, 0.5),
            "p95": quantile(values, 0.95), "ci_low": low, "ci_high": high, "best": min(values), "worst": max(values)}


def finite(value):
    """For JSON, which has no infinity: null."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
