"""Quantiles with failures in them, and their intervals."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench"))

import figures
from figures import NEVER


class Quantiles(unittest.TestCase):
    def test_between_neighbours(self):
        self.assertEqual(figures.quantile([4, 1, 3, 2], 0.5), 2.5)
        self.assertEqual(figures.quantile([7], 0.95), 7)
        self.assertAlmostEqual(figures.quantile(range(11), 0.95), 9.5)

    def test_a_failure_is_worst(self):
        values = [1.0] * 9 + [NEVER]
        self.assertEqual(figures.quantile(values, 0.5), 1.0)
        self.assertEqual(figures.quantile(values, 0.95), NEVER)

    def test_half_failed_has_no_median(self):
        self.assertEqual(figures.quantile([1.0, NEVER], 0.5), NEVER)
        self.assertEqual(figures.quantile([NEVER, NEVER], 0.5), NEVER)


class Intervals(unittest.TestCase):
    def test_repeatable_and_around_the_median(self):
        values = [3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.5, 3.5]
        low, high = figures.interval(values)
        self.assertEqual((low, high), figures.interval(values))
        self.assertLess(low, figures.quantile(values, 0.5))
        self.assertGreater(high, figures.quantile(values, 0.5))

    def test_of_equal_values(self):
        self.assertEqual(figures.interval([2.0] * 5), (2.0, 2.0))

    def test_summary(self):
        self.assertIsNone(figures.summary([]))
        summary = figures.summary([1.0, 2.0, NEVER])
        self.assertEqual((summary["n"], summary["failed"], summary["median"], summary["worst"]), (3, 1, 2.0, NEVER))

    def test_json_knows_no_infinity(self):
        self.assertEqual(figures.finite({"a": [1.0, NEVER], "b": "x"}), {"a": [1.0, None], "b": "x"})


if __name__ == "__main__":
    unittest.main()
