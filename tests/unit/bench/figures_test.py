"""Quantiles with failures in them, and their intervals."""
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench"))

import figures
from figures import NEVER


class Quantiles(unittest.TestCase):
    def test_median(self):
        self.assertEqual(figures.median([4, 1, 3, 2]), 2.5)
        self.assertEqual(figures.median([7]), 7)

    def test_rank_is_never_below_what_was_seen(self):
        self.assertEqual(figures.rank([1, 2], 95), 2)
        self.assertEqual(figures.rank(range(1, 101), 99), 99)
        self.assertEqual(figures.rank(range(1, 101), 100), 100)
        self.assertEqual(figures.rank([3, 1, 2], 50), 2)

    def test_a_failure_is_worst(self):
        values = [1.0] * 9 + [NEVER]
        self.assertEqual(figures.median(values), 1.0)
        self.assertEqual(figures.rank(values, 95), NEVER)

    def test_half_failed_has_no_median(self):
        self.assertEqual(figures.median([1.0, NEVER]), NEVER)
        self.assertEqual(figures.median([NEVER, NEVER]), NEVER)


class Intervals(unittest.TestCase):
    def test_order_statistics_of_the_binomial(self):
        for count, place in ((6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (99, 40), (100, 40)):
            self.assertEqual(figures.interval(range(count, 0, -1)), (place, count + 1 - place), count)

    def test_holds_the_median_as_often_as_it_says(self):
        source = random.Random(1)
        for count in (6, 10):
            held = 0
            for _ in range(2000):
                low, high = figures.interval([source.lognormvariate(0, 0.4) for _ in range(count)])
                held += low <= 1 <= high
            self.assertGreater(held / 2000, 0.95)

    def test_too_few_have_none(self):
        for count in range(1, figures.INTERVAL_RUNS_MIN):
            self.assertIsNone(figures.interval([1.0] * count))
            self.assertNotIn("ci_low", figures.summary([1.0] * count))
            self.assertNotIn("p95", figures.summary([1.0] * count))

    def test_summary(self):
        self.assertIsNone(figures.summary([]))
        summary = figures.summary([1.0, 2.0, NEVER])
        self.assertEqual((summary["n"], summary["failed"], summary["median"], summary["worst"]), (3, 1, 2.0, NEVER))
        summary = figures.summary([1.0] * 9 + [NEVER])
        self.assertEqual((summary["ci_low"], summary["ci_high"], summary["p95"]), (1.0, 1.0, NEVER))

    def test_json_knows_no_infinity(self):
        self.assertEqual(figures.finite({"a": [1.0, NEVER], "b": "x"}), {"a": [1.0, None], "b": "x"})


if __name__ == "__main__":
    unittest.main()
