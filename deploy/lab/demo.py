#!/usr/bin/env python3
"""The story of deploy/demo, once everything is built: a cluster of three controllers and three hosts is made on this machine, a host gets
hot, a running guest is moved off it, the leader is killed. Everything shown is measured as it happens.

Each act checks what it shows; what does not hold is named at the end, with exit status 1.
"""
import argparse
import os
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True

from lab import reaper  # noqa: E402
from lab.lab import CliError, Lab  # noqa: E402
from lab.program import until  # noqa: E402
from lab.screen import Screen  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PREFIX = "demo"
BLACKOUT_MS, FAILOVER_S = 15, 3
GUESTS = {"web": "h1", "shop": "h1", "mail": "h1", "wiki": "h2"}
HOT_GUESTS = ("web", "shop", "mail")
BURN_PERCENT, BURN_STEP, BURN_STEP_S = 30, 20, 25  # on a machine that is busy otherwise guests get less than they ask for
HIGH, CALM = 0.80, 0.15
MOVES_BY_HAND = 4
CONTROLLER_KEYS = [("optimizer", "automatic = true"), ("optimizer", f"high_cpu = {HIGH}"), ("optimizer", "low_cpu = 0.70"),
                   ("optimizer", "hold_s = 8"), ("optimizer", "settle_s = 5"), ("optimizer", "rest_s = 60")]


class Failed(Exception):
    """The story cannot go on; the message says why."""


class Demo:
    def __init__(self, lab, screen):
        self.lab, self.screen = lab, screen
        self.failures = []
        self.blackouts, self.engine_blackouts = [], []
        self.guests, self.streams, self.pingers, self.boots = {}, {}, {}, {}
        self.counters = {}
        self.moves = 0
        self.accelerator = ""
        self.failover_s = None
        self.acknowledged, self.lost = [], []

    def check(self, holds, text, problem=None):
        """Shows a line with a tick or a cross, and remembers what did not hold."""
        tick, cross = ("✓", "✗") if self.screen.unicode else ("ok", "FAILED")
        self.screen.say(f"{self.screen.good(tick) if holds else self.screen.bad(cross)} {text}")
        if not holds:
            self.failures.append(problem or text)

    # ---- looking

    def load_lines(self):
        """The load of every host, as the leader knows it, and the VMs on it."""
        hosts, vms = self.lab.host_list(), self.lab.vm_list()
        lines = []
        for host in hosts:
            capacity = host["facts"]["capacity"]["cpu_cores"]
            share = host["load"]["cpu_cores"] / capacity if capacity else 0
            here = [f"{vm['spec']['name']} {vm['load']['cpu_cores'] if vm['load'] else 0:.2f}" for vm in vms
                    if vm["owner"] == host["name"]]
            lines.append(f"   {host['name']}  {self.screen.bar(share, hot=HIGH)} {share:4.0%} of {capacity:g} core  "
                         f"{self.screen.dim('  '.join(here))}")
        return lines, {host["name"]: host["load"]["cpu_cores"] / host["facts"]["capacity"]["cpu_cores"] for host in hosts}

    def follow(self, what, predicate, timeout, extra=lambda: []):
        """Shows the load until predicate() gives something."""
        end = time.monotonic() + timeout
        while True:
            seen = predicate()
            if seen:
                self.screen.settle()
                return seen
            if time.monotonic() > end:
                raise Failed(f"{what} did not happen within {timeout} s")
            self.screen.block(self.load_lines()[0] + extra())
            time.sleep(0.5)  # the pace of the picture

    # ---- the acts

    def act_cluster(self):
        self.screen.act("A cluster: three controllers, three hosts")
        self.screen.say(self.screen.dim("each in a network namespace with its own address; state replicated by Raft"))
        self.lab.start()
        status = self.lab.status()
        rows = [["controller", "address", "role"]]
        rows += [[member["name"], member["api_address"], "leader" if member["name"] == status["leader"] else "follower"]
                 for member in sorted(status["members"], key=lambda member: member["name"])]
        self.screen.table(rows)
        self.screen.line()
        rows = [["host", "address", "capacity", "hypervisor"]]
        for host in self.lab.host_list():
            facts = host["facts"]
            rows.append([host["name"], facts["migration_address"],
                         f"{facts['capacity']['cpu_cores']:g} core, {facts['capacity']['memory_bytes'] >> 20} MiB",
                         f"{facts['hypervisor']}, {facts['accelerator']}"])
        self.screen.table(rows)
        self.accelerator = facts["accelerator"]
        self.screen.say(self.screen.dim(facts["accelerator_reason"]))

    def act_guests(self):
        self.screen.act("Guests: real Linux, 256 MiB, one disk each")
        begin = time.monotonic()
        for name, host in GUESTS.items():
            self.lab.vm_create(name, host=host, disk=True, wait=False)
        for name in GUESTS:
            self.guests[name] = self.lab.guest_wait(name, 90)
            self.boots[name] = self.guests[name].boot()
            self.counters[name] = self.guests[name].counter()
        self.screen.say(f"{', '.join(GUESTS)} booted and serve TCP after {time.monotonic() - begin:.1f} s")
        self.streams = {name: self.lab.stream(name, 100) for name in GUESTS}
        try:
            self.follow("calm", lambda: max(self.load_lines()[1].values()) < CALM, 12)
        except Failed:
            pass  # a busy machine; the story goes on

    def act_hot(self):
        self.screen.act(f"h1 gets hot: {', '.join(HOT_GUESTS)} each burn {BURN_PERCENT} % of a core")
        self._burn(BURN_PERCENT)
        # Probes cost the guest time, so only the one that would move is probed: the plan says which.
        plan = self.follow("a plan to relieve h1", self._planned, 90, self._verdict)
        self.pingers[plan["vm"]] = self.lab.pinger(plan["vm"])
        return self.follow("the optimizer's move", self._optimizer_job, 60, self._verdict)

    def _burn(self, percent):
        self.burn, self.burning_since = percent, time.monotonic()
        for name in HOT_GUESTS:
            self.guests[name].load(f"cpu {percent}")

    def _planned(self):
        if time.monotonic() - self.burning_since > BURN_STEP_S and self.burn + BURN_STEP <= 100:
            self._burn(self.burn + BURN_STEP)
            self.screen.say(f"this machine is busy, so the guests get less: they ask for {self.burn} % now")
        moves = self.lab.cli("optimizer", "plan").json["moves"]
        job = self._optimizer_job()
        return moves[0] if moves else {"vm": job["target"]} if job else None

    def _verdict(self):
        status = self.lab.cli("optimizer", "status").json
        verdicts = [f"{host['name']}: {host['verdict']}" for host in status["hosts"] if host["verdict"] != "balanced"]
        return [f"   {self.screen.dim('optimizer: ' + ('; '.join(verdicts) or status['verdict']))}"]

    def _optimizer_job(self):
        jobs = [job for job in self.lab.job_list() if job["actor"] == "optimizer" and job["kind"] == "vm-migrate"]
        return jobs[-1] if jobs else None

    def act_move(self, job):
        self.screen.act(f"The optimizer decides: {job['target']} moves")
        self.screen.say(f"why: {job['reason']}")
        if job["target"] not in self.pingers:
            self.pingers[job["target"]] = self.lab.pinger(job["target"])
        job = self.lab.job_wait(job["id"], 60)
        self._show_move(job, rounds=True)

    def _show_move(self, job, rounds=False):
        name, record = job["target"], job["migration"]
        if job["state"] != "succeeded":
            self.check(False, f"job {job['id']}, {name}: {job['state']}: {(job['error'] or {}).get('message', '')}")
            return
        self.moves += 1
        if rounds:
            rows = [["round", " pages", " zero", " memory", " on the wire", " took"]]
            rows += [[str(r["number"]), f" {r['pages']}", f" {r['zero_pages']}", f" {r['raw_bytes'] / 2**20:.1f} MiB",
                      f" {r['wire_bytes'] / 2**20:.1f} MiB", f" {r['duration_us'] / 1000:.1f} ms"] for r in record["rounds"]]
            self.screen.table(rows)
        time.sleep(0.3)  # lets the prober see the guest after the move, too
        seen = self.pingers[name].report()
        self.blackouts.append(seen["blackout_ms"])
        self.engine_blackouts.append(record["blackout_us"] / 1000)
        verified = ", RAM identical" if record["source_hash"] and record["source_hash"] == record["destination_hash"] else ""
        self.screen.say(f"{name}: {record['from_host']} -> {record['to_host']} in {record['total_us'] / 1e6:.2f} s, "
                        f"{record['wire_bytes'] / 2**20:.1f} MiB for {record['raw_bytes'] / 2**20:.0f}{verified}; dark for "
                        f"{self.screen.bold('%.1f ms' % seen['blackout_ms'])} as the 1 kHz prober saw it "
                        f"({record['blackout_us'] / 1000:.1f} ms by the engine)")

    def act_same_guest(self, name):
        self.screen.act(f"The same guest goes on: {name}")
        guest = self.guests[name]
        counter, uptime = guest.counter(), guest.uptime_ms()
        self.check(guest.boot() == self.boots[name], f"not booted anew, up for {uptime / 1000:.0f} s")
        self.check(counter == self.counters[name] + 1, f"its counter went from {self.counters[name]} to {counter}")
        self.counters[name] = counter
        stream = self.streams[name]
        self.check(stream.alive(), f"its TCP connection has carried {stream.last} numbers, none missing",
                   f"the TCP connection of {name} broke: {stream.problem}")

    def act_even(self):
        self.screen.act("The load evens out")
        self.follow("an even load", lambda: max(self.load_lines()[1].values()) < HIGH and not self._busy(), 60)
        lines, shares = self.load_lines()
        self.screen.block(lines)
        self.screen.settle()
        self.check(max(shares.values()) < HIGH, f"no host above {HIGH:.0%}")
        moves = self.lab.cli("optimizer", "plan").json["moves"]
        self.check(not moves, "the next plan is empty", f"the optimizer still wants to move {[m['vm'] for m in moves]}")

    def _busy(self):
        return [job for job in self.lab.job_list() if job["state"] in ("queued", "running", "cancelling")]

    def act_by_hand(self, name):
        self.screen.act(f"Again, by hand: drover vm migrate {name}")
        self.lab.cli("optimizer", "set", "--automatic", "off")
        self.pingers[name].report()
        for i in range(MOVES_BY_HAND):
            here = self.lab.vm(name)["owner"]
            target = "h3" if here != "h3" else "h2"
            self._show_move(self.lab.migrate(name, target))
        # Hashing all of RAM lengthens the blackout, so this one is not among the figures.
        here = self.lab.vm(name)["owner"]
        record = self.lab.migrate(name, "h3" if here != "h3" else "h2", "--verify")["migration"]
        self.pingers[name].report()
        self.moves += 1
        self.check(record["source_hash"] != "" and record["source_hash"] == record["destination_hash"],
                   f"once more with --verify: RAM identical on both sides at the switch ({record['source_hash'][:16]})")

    def act_leader(self, name):
        leader = self.lab.leader()
        self.screen.act(f"SIGKILL for the leader, {leader}")
        here = self.lab.vm(name)["owner"]
        move = self.lab.cli("vm", "migrate", name, "--to", "h3" if here != "h3" else "h2", "--bandwidth", "8M", "--async").json["id"]
        self.acknowledged = [move]
        for i in range(3):
            self.acknowledged.append(self._define(f"before-{i}"))
        self.screen.say(f"jobs {', '.join(str(job_id) for job_id in self.acknowledged)} are acknowledged; {name} is on its way")
        self.lab.controllers[leader].daemon.kill()
        begin = time.monotonic()
        status = self.lab.status()
        self.failover_s = time.monotonic() - begin
        self.check(self.failover_s < FAILOVER_S, f"the command line answers after {self.failover_s:.1f} s: {status['leader']} leads, "
                   f"term {status['term']}")
        self.acknowledged.append(self._define("after"))
        ends = {job_id: self.lab.job_wait(job_id, 60)["state"] for job_id in self.acknowledged}
        self.lost = lost = [job_id for job_id, state in ends.items() if state != "succeeded"]
        self.check(not lost, f"all {len(ends)} jobs succeeded, the unfinished migration among them",
                   f"jobs that did not succeed: {', '.join(f'{job_id} {ends[job_id]}' for job_id in lost)}")
        self.moves += ends[move] == "succeeded"
        self.lab.controllers[leader].daemon.start()
        until(lambda: self.lab.cli("cluster", "status", "--stale").json["leader"] == status["leader"], 10, "the old leader back")
        self.screen.say(f"{leader} is started again and follows")

    def _define(self, name):
        return self.lab.cli("vm", "create", name, "--memory", "64M", "--kernel", f"{self.lab.guest_directory}/vmlinux",
                            "--async").json["id"]

    def act_summary(self):
        self.screen.act("Summary")
        dark, engine = (statistics.median(values or [float("nan")]) for values in (self.blackouts, self.engine_blackouts))
        broken = [name for name, stream in self.streams.items() if not stream.alive()]
        wrong = [name for name in GUESTS if self.guests[name].counter() != self.counters[name] + 1]
        self.screen.table([
            ["guests moved while they served", f" {self.moves}"],
            ["blackout seen from outside, median", f" {dark:.1f} ms"],
            ["blackout seen from outside, longest", f" {max(self.blackouts, default=float('nan')):.1f} ms"],
            ["guest stopped, by the engine, median", f" {engine:.1f} ms"],
            ["TCP connections lost", f" {len(broken)} of {len(self.streams)}"],
            ["guests whose counter jumped", f" {len(wrong)}"],
            ["command line back after the leader's death", f" {self.failover_s:.1f} s"],
            ["acknowledged jobs that did not succeed", f" {len(self.lost)} of {len(self.acknowledged)}"],
            ["whole demo", f" {time.monotonic() - self.screen.begin:.0f} s"],
        ])
        if broken:
            self.failures.append(f"TCP connections lost: {', '.join(broken)}")
        if wrong:
            self.failures.append(f"counters not continuous: {', '.join(wrong)}")
        if dark > BLACKOUT_MS:
            busy = os.getloadavg()[0] / (os.cpu_count() or 1)
            self.screen.say(self.screen.warm(
                f"The median blackout is above the {BLACKOUT_MS} ms of a quiet machine. Load per processor: {busy:.1f}."))
            if self.accelerator == "tcg":
                self.screen.say(self.screen.dim("An emulated guest answers late: its code is translated anew where it arrives."))

    def run(self):
        self.act_cluster()
        self.act_guests()
        job = self.act_hot()
        self.act_move(job)
        name = job["target"]
        self.act_same_guest(name)
        self.act_even()
        self.act_by_hand(name)
        self.act_leader(name)
        self.act_summary()


def usage_of(lab):
    """Writes a script that runs the command line against the lab, and returns its path."""
    script = f"{lab.directory}/drover"
    with open(script, "w") as file:
        file.write(f"#!/bin/sh\nexec nsenter --net=/run/netns/{lab.fabric} {lab.bin}/drover \"$@\" --config {lab.config}\n")
    os.chmod(script, 0o755)
    return script


def stop():
    left = []
    for name in reaper.registered():
        if name.startswith(PREFIX + "-"):
            print(f"stopping {name}")
            left += reaper.clean(name)
    for thing in left:
        print(f"could not remove {thing}", file=sys.stderr)
    return 1 if left else 0


def interrupted(*_):
    raise KeyboardInterrupt


def tell(lab, screen, keep):
    """Runs the story; returns the exit status."""
    demo = Demo(lab, screen)
    try:
        demo.run()
    except (Failed, CliError, TimeoutError, RuntimeError, OSError) as error:
        demo.failures.append(str(error))
        for node in lab.nodes():
            if node.daemon.process and not node.daemon.alive():
                demo.failures.append(f"{node.name} ended: {node.daemon.log_tail(3).strip()}")
    screen.line()
    for failure in demo.failures:
        screen.line(screen.bad(f"FAILED: {failure}"))
    if not demo.failures:
        screen.line(screen.good("Everything shown above was checked and holds."))
    if keep:
        script = usage_of(lab)
        lab.cli("optimizer", "set", "--automatic", "on", check=False)
        lab.forget_connections()
        lab.leave()
        screen.line(f"The cluster stays up. Use it:\n   {script} host list\n   {script} vm list --watch\n"
                    f"   {script} vm migrate web --to h3\n   {script} help\n"
                    f"Logs and state: {lab.directory}. Stop it:\n   deploy/demo --stop")
    return 1 if demo.failures else 0


def main():
    parser = argparse.ArgumentParser(prog="deploy/demo", description="Shows Drover's main job on this machine.")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up afterwards")
    parser.add_argument("--stop", action="store_true", help="stop what --keep left up")
    parser.add_argument("--build", default=f"{TOP}/build/release", help=argparse.SUPPRESS)
    parser.add_argument("--guest", default=f"{TOP}/build/guest", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stop:
        return stop()
    screen = Screen()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        with Lab(options.build, options.guest, cores=1.0, lease_ms=3000, controller_keys=CONTROLLER_KEYS, prefix=PREFIX) as lab:
            return tell(lab, screen, options.keep)
    except KeyboardInterrupt:
        screen.line("\ninterrupted; everything is cleaned up")
        return 130


if __name__ == "__main__":
    sys.exit(main())
