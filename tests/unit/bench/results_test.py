"""The file of results survives what may happen to it; the order of runs."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench"))

import plan
import report
from results import Results


def run(outcome="intact", **more):
    figures = {key: 1.0 for key, _, _ in report.COLUMNS}
    return {"outcome": outcome, "error": None if outcome == "intact" else "why", "classes": {}, "wire_back_mb": 0.1, **figures, **more}


class File(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "x.jsonl")
        self.results = Results.create(self.path, {"mode": "quick"})
        self.tasks = plan.tasks([plan.Group(plan.MOVES, "idle", "1G", ("drover-precopy", "qemu-precopy"), 2)])

    def tearDown(self):
        self.folder.cleanup()

    def test_goes_on_where_it_stood(self):
        self.results.begin_session({"engine": "x"})
        self.results.add(self.tasks[0], run())
        self.results.add(self.tasks[1], run("endless"))
        self.results.add(self.tasks[2], run("void"))
        self.assertEqual(Results.load(self.path).done(), set(self.tasks[:2]))

    def test_a_line_cut_off_is_left_out(self):
        self.results.add(self.tasks[0], run())
        self.results.add(self.tasks[1], run())
        os.truncate(self.path, os.path.getsize(self.path) - 5)
        loaded = Results.load(self.path)
        self.assertEqual(loaded.done(), {self.tasks[0]})
        loaded.add(self.tasks[1], run())
        self.assertEqual(Results.load(self.path).done(), set(self.tasks[:2]))

    def test_nothing_is_overwritten(self):
        with self.assertRaises(FileExistsError):
            Results.create(self.path, {})

    def test_not_ours(self):
        with open(self.path, "w") as file:
            file.write("")
        with self.assertRaises(ValueError):
            Results.load(self.path)


class Order(unittest.TestCase):
    def test_abba(self):
        tasks = plan.tasks([plan.Group(plan.MOVES, "idle", "1G", ("a", "b"), 3)])
        self.assertEqual([task.engine for task in tasks], ["a", "b", "b", "a", "a", "b"])

    def test_only(self):
        tasks = plan.tasks(plan.QUICK, ["moves/random-5000/*/drover-*"])
        self.assertTrue(tasks and all(task.engine.startswith("drover-") and task.workload == "random-5000" for task in tasks))

    def test_shares_of_the_link_survive_their_names(self):
        for group in plan.ENDS:
            self.assertIn(plan.map_factor(group.workload, group.link), (0, 0.25, 0.5, 1, 2))
        for group in plan.FULL:
            if group.suite == plan.MAP:
                self.assertIn(plan.map_factor(group.workload, group.link), (0.1, 0.25, 0.5, 0.9, 1.2, 2))


class Tables(unittest.TestCase):
    def test_failures_stay_in_the_denominator(self):
        summary = report.summarize([run(total_s=2.0), run("damaged"), run(total_s=3.0), run("did-not-start")])
        self.assertEqual((summary["intact"], summary["damaged"], summary["did-not-start"], summary["runs"]), (2, 1, 1, 4))
        self.assertEqual(report.figure_text(summary["figures"]["total_s"], 1), "never (2.0..never)")

    def test_an_interval_is_called_one_where_it_is_one(self):
        def text(count):
            return report.figure_text(report.summarize([run(total_s=float(n)) for n in range(1, count + 1)])["figures"]["total_s"], 0)
        self.assertEqual((text(1), text(2), text(5), text(10)), ("1", "2 (1..2)", "3 (1..5)", "6 [2, 9] 10"))

    def test_only_what_counts_holds(self):
        def task(outcome, engine="drover-precopy", workload="idle"):
            return {"suite": plan.MOVES, "workload": workload, "link": "1G", "engine": engine, **run(outcome)}
        self.assertTrue(report.holds([task("intact"), task("void"), task("gave-up", "qemu-precopy")]))
        self.assertFalse(report.holds([task("intact"), task("did-not-start")]))
        self.assertFalse(report.holds([task("void"), task("void")]))
        self.assertFalse(report.holds([task("intact"), task("void", workload="cpu")]))
        self.assertTrue(report.holds([task("void", "qemu-precopy")]))

    def test_what_is_not_counted_is_told_by_its_cell(self):
        void = {"suite": plan.MOVES, "workload": "idle", "link": "1G", "engine": "drover-precopy", **run("void")}
        self.assertEqual(report.void_lines([void, void]), ["- moves/idle/1G/drover-precopy: 2: why"])

    def test_a_guest_without_work_has_no_dip(self):
        idle = run()
        del idle["dip_percent"]
        self.assertIsNone(report.summarize([idle])["figures"]["dip_percent"])


if __name__ == "__main__":
    unittest.main()
