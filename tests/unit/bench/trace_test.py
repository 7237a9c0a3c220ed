"""What beats say: made-up guests with a known pause and a known dip."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench"))

import trace

ORDER, END = 2.0, 8.0


def guest(speed, dark=(0, 0)):
    """Beats each millisecond of a guest that does speed(t) units a second, and neither beats nor works in `dark`."""
    samples, work = [], 0.0
    for millisecond in range(int(END * 1000) + 1):
        at = millisecond / 1000
        if not dark[0] <= at < dark[1]:
            work += speed(at) / 1000
            samples.append((at, work))
    return samples


class Trace(unittest.TestCase):
    def test_the_longest_gap(self):
        begin, end = trace.longest_gap(guest(lambda at: 100, (3.0, 3.05)), ORDER, END)
        self.assertAlmostEqual(end - begin, 0.051, places=6)
        self.assertAlmostEqual(end, 3.05)

    def test_a_guest_that_is_never_heard_again(self):
        self.assertEqual(trace.longest_gap(guest(lambda at: 100, (3.0, 99)), ORDER, END)[1], END)

    def test_undisturbed(self):
        samples = guest(lambda at: 1000)
        seen = trace.disturbance(samples, 0, ORDER, ORDER, END)
        self.assertAlmostEqual(seen["rate_before"], 1000, delta=1)
        self.assertLess(seen["dip_percent"], 1)
        self.assertAlmostEqual(seen["lost_work_s"], 0, delta=0.01)
        self.assertLess(seen["recover_s"], 0.01)

    def test_a_pause(self):
        samples = guest(lambda at: 1000, (3.0, 3.1))
        seen = trace.disturbance(samples, 0, ORDER, 3.1, END)
        self.assertAlmostEqual(seen["dip_percent"], 40, delta=2)
        self.assertAlmostEqual(seen["lost_work_s"], 0.1, delta=0.01)

    def test_slow_for_a_second_afterwards(self):
        samples = guest(lambda at: 500 if 3.1 <= at < 4.1 else 1000, (3.0, 3.1))
        seen = trace.disturbance(samples, 0, ORDER, 3.1, END)
        self.assertAlmostEqual(seen["lost_work_s"], 0.6, delta=0.02)
        self.assertTrue(0.75 <= seen["recover_s"] <= 1.0, seen["recover_s"])

    def test_never_as_before(self):
        seen = trace.disturbance(guest(lambda at: 1000 if at < ORDER else 500), 0, ORDER, 3.0, END)
        self.assertIsNone(seen["recover_s"])

    def test_no_work_no_figures(self):
        self.assertIsNone(trace.disturbance(guest(lambda at: 0), 0, ORDER, 3.0, END))
        self.assertIsNone(trace.disturbance([], 0, ORDER, 3.0, END))

    def test_timeline(self):
        line = trace.timeline(guest(lambda at: 1000, (3.0, 3.5)), ORDER, 1.0, 5.0, 1000)
        self.assertEqual((line["from_s"], len(line["percent"])), (-1.0, 80))
        self.assertEqual({line["percent"][i] for i in range(41, 49)} - {0, 1, 2}, set())


if __name__ == "__main__":
    unittest.main()
