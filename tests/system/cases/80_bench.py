"""The programs of bench/ do what their README says, each in its smallest form. What they measure is not looked at."""
import json
import os
import subprocess
import sys
import tempfile

from harness import MIGRATION, case

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench")


def bench(run, name, *arguments):
    done = subprocess.run([sys.executable, "-B", os.path.join(BENCH, name), "--build", run.options.build, *arguments], capture_output=True,
                          text=True)
    assert done.returncode == 0, f"bench/{name}: exit status {done.returncode}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done.stdout


@case(needs=MIGRATION, own_lab=True)
def bench_moves_an_echo_guest(run):
    with tempfile.TemporaryDirectory() as folder:
        bench(run, "blackout", "--guest", run.guest(), "--runs", "1", "--guests", "echo", "--into", f"{folder}/moves")
        with open(f"{folder}/moves") as file:
            moves = [json.loads(line) for line in file]
    assert [move["engine"] for move in moves] == ["drover-precopy", "qemu-precopy"], moves
    assert all(move["outside_ms"] > 0 and move["build"] for move in moves), moves


@case(own_lab=True)
def bench_loads_a_guest_cold(run):
    said = bench(run, "cold-start", "--guest", run.guest(), "--runs", "1")
    assert "first echo" in said and "of 1" in said, said


@case(own_lab=True)
def bench_sends_pages_without_a_guest(run):
    said = bench(run, "channel", "--runs", "1", "--mib", "16")
    assert said.count("| sealed, receipt |") == 2 and said.count("| iperf3 |") == 2, said
