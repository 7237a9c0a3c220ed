"""The programs start, and do with failures what they say. No guest takes part."""
import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench")
sys.path.insert(0, BENCH)

import engines
import figures
import measure
import qemu
import workloads

PROGRAMS = ("migrate", "cold-start", "brownout", "blackout", "channel")


def load(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), os.path.join(BENCH, name))
    program = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(program)
    return program


def main_of(program, *argv):
    """Runs its main() with these arguments; what it printed, and what it returned."""
    said = io.StringIO()
    with mock.patch.object(sys, "argv", [program.__name__, *argv]), contextlib.redirect_stdout(said):
        status = program.main()
    return said.getvalue(), status


class Started(unittest.TestCase):
    def test_help(self):
        for name in PROGRAMS:
            done = subprocess.run([sys.executable, "-B", os.path.join(BENCH, name), "--help"], capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)
            self.assertIn("usage:", done.stdout)

    def test_list(self):
        for mode, cell in (("--full", "moves/idle/unshaped/libvirt"), ("--map", "map/"), (None, "moves/random-5000/unshaped/drover-precopy")):
            done = subprocess.run([sys.executable, "-B", os.path.join(BENCH, "migrate"), "--list", *([mode] if mode else [])],
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(cell, done.stdout)


class ColdStart(unittest.TestCase):
    def test_each_qemu_gets_a_machine(self):
        program = load("cold-start")
        made = []

        def qemu_of(arena, side, machine, shim=None, incoming=()):  # as qemu.Qemu()
            self.assertIsInstance(machine, qemu.Machine)
            made.append(side)
            return mock.MagicMock()

        pinger = mock.MagicMock()
        pinger.report.return_value = {"begin_monotonic_ns": 0, "blackout_at_ms": 1.0, "blackout_ms": 2.0}
        arena = mock.MagicMock()
        arena.__enter__.return_value = arena
        arena.pinger.return_value = pinger
        with mock.patch.object(program, "Arena", return_value=arena), mock.patch.object(program, "Qemu", side_effect=qemu_of), \
                mock.patch.object(program.time, "sleep"):
            said, _ = main_of(program, "--runs", "2")
        self.assertEqual(made, ["a", "b", "a"])
        self.assertIn("of 2", said)


class Brownout(unittest.TestCase):
    def test_a_silent_guest_has_no_speed(self):
        program = load("brownout")
        beats = argparse.Namespace(samples=[(10.0, 500)])
        with mock.patch.object(program.time, "sleep"), mock.patch.object(program.time, "monotonic", return_value=10.0):
            self.assertEqual(program.speed(beats), 0)

    def test_silence_at_the_end_counts(self):
        program = load("brownout")
        beats = argparse.Namespace(samples=[(10.0, 500)])
        with mock.patch.object(program.time, "sleep", lambda _: beats.samples.append((10.5, 2000))), \
                mock.patch.object(program.time, "monotonic", return_value=10.0):
            self.assertEqual(program.speed(beats), 1500 / program.WATCH_S)


class Blackout(unittest.TestCase):
    def setUp(self):
        self.program = load("blackout")
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def test_a_failed_move_is_kept_and_counts(self):
        moves = iter([{"outside_ms": 9.0, "reported_ms": 7.0, "network_ms": 8.0}, RuntimeError("the source\nhas ended"),
                      subprocess.TimeoutExpired("ip", 10), {"outside_ms": 40.0, "reported_ms": 3.0, "network_ms": None}])

        def one_move(*_):
            move = next(moves)
            if isinstance(move, Exception):
                raise move
            return move

        path = f"{self.folder.name}/moves"
        arena = mock.MagicMock()
        with mock.patch.object(self.program, "one_move", one_move), mock.patch.object(self.program, "Arena", return_value=arena), \
                mock.patch.object(self.program, "machine"), mock.patch.object(engines, "digest", return_value="x"):
            said, status = main_of(self.program, "--runs", "2", "--guests", "echo", "--into", path)
        with open(path) as file:
            rows = [json.loads(line) for line in file]
        self.assertEqual(status, 1)
        self.assertEqual([row.get("failed") for row in rows], [None, "the source has ended", str(subprocess.TimeoutExpired("ip", 10)), None])
        self.assertEqual([row["engine"] for row in rows], ["drover-precopy", "qemu-precopy", "qemu-precopy", "drover-precopy"])
        self.assertEqual(self.program.read(path), rows)
        self.assertIn("| echo | qemu-precopy | 2 | 2 | never |", said)

    def test_failures_are_the_longest(self):
        moves = [{"guest": "echo", "engine": "drover-precopy", "outside_ms": 10.0 + n, "reported_ms": 5.0, "network_ms": 6.0} for n in range(99)]
        failed = {"guest": "echo", "engine": "drover-precopy", "failed": "why"}
        self.assertEqual(self.program.cell(moves, "outside", 99), "")  # 99 moves say nothing of it
        self.assertEqual(self.program.cell([*moves, failed], "outside", 99), "108.00")
        self.assertEqual(self.program.cell([*moves, failed], "outside", 100), "never")
        self.assertEqual(self.program.cell([*moves[:-1], failed, failed], "outside", 99), "never")
        self.assertEqual(self.program.cell([failed] * 2 + moves[:1], "network", 50), "never")
        self.assertEqual(self.program.cell([failed], "network", 50), "")

    def test_builds_are_not_mixed_in_silence(self):
        move = {"guest": "echo", "engine": "drover-precopy", "outside_ms": 10.0, "reported_ms": 5.0, "network_ms": 6.0}
        self.assertNotIn("mixed", self.program.table([{**move, "build": "a"}] * 2))
        self.assertIn("2 builds", self.program.table([{**move, "build": "a"}, {**move, "build": "b"}]))


class NoGuest(unittest.TestCase):
    """What cannot be moved is nobody's failure only when the guest does not start without the engine either."""

    def run_with(self, plain_starts, shape=None):
        engine, arena, workload = mock.MagicMock(), mock.MagicMock(), workloads.find("idle", 1 << 20)
        engine.start.side_effect = subprocess.CalledProcessError(1, "keygen")
        arena.shape.side_effect = shape
        arena.connect_guest.return_value.ask.return_value = workload.run
        arena.pinger.return_value.report.return_value = {"received": 5}
        plain = mock.MagicMock() if plain_starts else mock.MagicMock(side_effect=RuntimeError("QEMU did not start"))
        with mock.patch.object(measure.Direct, "start", plain), mock.patch.object(measure, "Beats") as beats:
            beats.return_value.samples = [(1.0, 1)]
            return measure.run(arena, engine, workload, "unshaped", measure.Terms(1 << 28, 30, 30, 1, 1))

    def test_the_engine_kept_it_from_starting(self):
        result = self.run_with(plain_starts=True)
        self.assertEqual(result["outcome"], measure.NOT_STARTED, result["error"])
        self.assertIn("keygen", result["error"])

    def test_nothing_starts(self):
        result = self.run_with(plain_starts=False)
        self.assertEqual(result["outcome"], measure.VOID)
        self.assertIn("nor without the engine: QEMU did not start", result["error"])

    def test_the_arena_is_nobodys(self):
        self.assertEqual(self.run_with(plain_starts=True, shape=OSError("tc"))["outcome"], measure.VOID)


if __name__ == "__main__":
    unittest.main()
