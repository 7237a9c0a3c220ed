"""The demonstration behind deploy/demo: the main job, told as it happens. Every figure shown is read from the cluster or measured from
outside; every check that fails is named at the end and makes the exit status 1."""
import argparse
import os
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lab import netns, reaper
from lab.lab import Lab
from lab.program import until

HOT = ("web", "db")         # on h1; each burns BURN percent of a core once the host is to be hot
CALM = {"mail": "h2", "wiki": "h3"}
BURN = 38
QUIET_MOVES = 7
LIMIT_BLACKOUT_MS = 15
LIMIT_FAILOVER_S = 3.0
OPTIMIZER = [("optimizer", "hold_s = 8"), ("optimizer", "settle_s = 5")]


class Screen:
    """Plain lines; colour only on a terminal."""

    def __init__(self):
        self.colour = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.begin = time.monotonic()

    def paint(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def line(self, text=""):
        print(text, flush=True)

    def title(self, text):
        self.line()
        self.line(self.paint("1", f"== {text}") + self.paint("2", f"  [{time.monotonic() - self.begin:.0f} s]"))

    def command(self, *words):
        self.line(self.paint("36", "$ drover " + " ".join(words)))

    def bar(self, share, width=20):
        full = max(0, min(width, round(share * width)))
        code = "31" if share > 0.8 else "33" if share > 0.6 else "32"
        return "[" + self.paint(code, "#" * full) + "." * (width - full) + "]"


class Checks:
    def __init__(self):
        self.rows = []

    def add(self, what, value, good):
        self.rows.append((what, value, bool(good)))

    def failed(self):
        return [what for what, _, good in self.rows if not good]


class Demo:
    def __init__(self, lab, screen):
        self.lab, self.screen, self.checks = lab, screen, Checks()
        self.guests, self.streams, self.pingers = {}, {}, {}

    # ---- looking

    def utilization(self):
        """{host: share of its CPU}, as the cluster reports it."""
        return {host["name"]: host["load"]["cpu_cores"] / host["facts"]["capacity"]["cpu_cores"]
                for host in self.lab.host_list() if host["load"] and host["facts"]}

    def show_load(self):
        shares = self.utilization()
        owners = {}
        for vm in self.lab.vm_list():
            owners.setdefault(vm["owner"], []).append(vm["spec"]["name"])
        cells = [f"{name} {self.screen.bar(share)} {share * 100:3.0f} % {' '.join(sorted(owners.get(name, []))):<12}"
                 for name, share in sorted(shares.items())]
        self.screen.line("  " + "  ".join(cells))
        return shares

    def watch_load(self, over, timeout, what):
        """Shows the load each second until over(shares) is true; returns that."""
        def look():
            shares = self.show_load()
            return over(shares)
        return until(look, timeout, what, interval=1.0)

    # ---- the story

    def bring_up(self):
        self.screen.title("Three controllers, three hosts, four guests")
        self.lab.start()
        status = self.lab.status()
        self.screen.line(f"  {status['leader']} leads in term {status['term']}; {status['hosts_up']} hosts up, "
                         f"each with {self.lab.cores:.0f} core and {self.lab.memory >> 20} MiB for guests")
        for name in HOT:
            self.lab.vm_create(name, host="h1", wait=False)
        for name, host in CALM.items():
            self.lab.vm_create(name, host=host, wait=False)
        for name in HOT + tuple(CALM):
            self.guests[name] = self.lab.guest_wait(name, timeout=90)
            self.screen.line(f"  {name}: Linux is up on {self.lab.vm(name)['owner']}, answers at {self.lab.address(name)}")
        self.screen.command("optimizer", "set", "--automatic", "on")
        self.lab.cli("optimizer", "set", "--automatic", "on")

    def make_hot(self):
        self.screen.title(f"h1 becomes hot: {' and '.join(HOT)} burn {BURN} % of a core each")
        for name in HOT:
            self.streams[name] = self.lab.stream(name)
            self.pingers[name] = self.lab.pinger(name)
            self.guests[name].load(f"cpu {BURN}")
        self.before = {name: (self.guests[name].uptime_ms(), self.guests[name].counter()) for name in HOT}

        def decided(_):
            jobs = [job for job in self.lab.job_list() if job["kind"] == "vm-migrate" and job["actor"] == "optimizer"]
            return jobs[-1] if jobs else None
        return self.watch_load(decided, 90, "the optimizer to act")

    def follow_move(self, job):
        name = job["target"]
        self.screen.title(f"The optimizer acts: job {job['id']} moves {name}")
        self.screen.line(f"  because {job['reason']}")
        self.screen.command("job", "watch", str(job["id"]))
        watch = subprocess.Popen(netns.command(self.lab.fabric, [f"{self.lab.bin}/drover", "job", "watch", str(job["id"]),
                                                                 "--config", self.lab.config]),
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in watch.stdout:
            self.screen.line("  " + line.rstrip())
        watch.wait()
        job = self.lab.job_wait(job["id"])
        self.checks.add("the optimizer moved a guest off the hot host", f"{name}: {job['state']}",
                        job["state"] == "succeeded" and self.lab.vm(name)["owner"] != "h1")
        seen = self.pingers[name].report()
        self.screen.line(f"  seen from outside at 1 kHz: dark for {seen['blackout_ms']:.1f} ms "
                         f"(the engine says {job['migration']['blackout_us'] / 1000:.1f} ms)")
        return name

    def check_alive(self, name):
        uptime, counter = self.before[name]
        now_uptime, now_counter = self.guests[name].uptime_ms(), self.guests[name].counter()
        same = now_uptime > uptime and now_counter > counter
        self.screen.line(f"  the same guest: up {uptime / 1000:.0f} s -> {now_uptime / 1000:.0f} s, counter {counter} -> "
                         f"{now_counter}, TCP connection {'alive' if self.streams[name].alive() else 'lost'}")
        self.checks.add(f"{name} went on: uptime, counter and TCP connection", "yes" if same else "no",
                        same and self.streams[name].alive())

    def even_out(self):
        self.screen.title("Load evens out")
        try:
            shares = self.watch_load(lambda s: s if max(s.values()) < 0.8 else None, 40, "no hot host")
            self.checks.add("no host is hot any more", f"{max(shares.values()) * 100:.0f} % at most", True)
        except TimeoutError as error:
            self.checks.add("no host is hot any more", str(error), False)
        plan = self.lab.cli("optimizer", "plan").json
        self.screen.line(f"  a second plan: {plan['verdict']}")

    def quiet_moves(self, name):
        self.screen.title(f"{QUIET_MOVES} moves of {name} while it is quiet: blackout seen from outside")
        for guest in HOT:
            self.guests[guest].load("off")
        self.lab.cli("optimizer", "set", "--automatic", "off")
        until(lambda: max(self.utilization().values()) < 0.4, 60, "the cluster to calm down", 0.5)
        seen = []
        for number in range(QUIET_MOVES):
            target = next(h for h in ("h2", "h3", "h1") if h != self.lab.vm(name)["owner"])
            self.pingers[name].report()
            migration = self.lab.migrate(name, target)["migration"]
            outside = self.pingers[name].report()["blackout_ms"]
            seen.append(outside)
            self.screen.line(f"  to {target}: {migration['total_us'] / 1000:4.0f} ms in all, {len(migration['rounds'])} rounds, "
                             f"{migration['wire_bytes'] / 1e6:5.1f} MB on the wire for {migration['raw_bytes'] / 1e6:5.1f} MB; "
                             f"dark {outside:.1f} ms (engine: {migration['blackout_us'] / 1000:.1f} ms)")
        median = statistics.median(seen)
        self.checks.add(f"blackout, median of {QUIET_MOVES} quiet moves", f"{median:.1f} ms (limit {LIMIT_BLACKOUT_MS})",
                        median <= LIMIT_BLACKOUT_MS)
        target = next(h for h in ("h2", "h3") if h != self.lab.vm(name)["owner"])
        record = self.lab.migrate(name, target, "--verify")["migration"]
        same = record["source_hash"] and record["source_hash"] == record["destination_hash"]
        self.screen.line(f"  with --verify: all RAM hashed on both sides: {record['source_hash']}, {'identical' if same else 'DIFFERENT'}")
        self.checks.add("RAM identical on both sides (--verify)", "yes" if same else "no", same)

    def kill_leader(self, name):
        leader = self.lab.leader()
        self.screen.title(f"SIGKILL for the leader, {leader}, in the middle of a job")
        known = {job["id"] for job in self.lab.job_list()}
        target = next(h for h in ("h1", "h2", "h3") if h != self.lab.vm(name)["owner"])
        self.screen.command("vm", "migrate", name, "--to", target, "--async")
        job = self.lab.migrate(name, target, "--async")
        self.lab.controllers[leader].daemon.kill()
        begin = time.monotonic()
        status = self.lab.status()
        took = time.monotonic() - begin
        self.screen.line(f"  {leader} is gone; {took:.2f} s later the command line has its answer from {status['answered_by']}, "
                         f"which leads in term {status['term']}")
        self.checks.add("the command line answers after SIGKILL of the leader",
                        f"{took:.2f} s (limit {LIMIT_FAILOVER_S:.0f})", took <= LIMIT_FAILOVER_S and status["leader"] != leader)
        job = self.lab.job_wait(job["id"])
        self.screen.line(f"  job {job['id']}, begun under {leader}, ended: {job['state']}; {name} runs on {self.lab.vm(name)['owner']}")
        missing = known - {other["id"] for other in self.lab.job_list()}
        self.checks.add("no acknowledged job was lost, the unfinished one went on", job["state"],
                        job["state"] == "succeeded" and not missing)
        self.lab.controllers[leader].daemon.start()

    def play(self):
        self.bring_up()
        name = self.follow_move(self.make_hot())
        self.check_alive(name)
        self.even_out()
        self.quiet_moves(name)
        self.kill_leader(name)
        for guest in HOT:
            self.check_alive(guest)

    def summary(self):
        self.screen.title("Summary")
        width = max(len(what) for what, _, _ in self.checks.rows)
        for what, value, good in self.checks.rows:
            mark = self.screen.paint("32", "ok    ") if good else self.screen.paint("31", "FAILED")
            self.screen.line(f"  {mark} {what:<{width}}  {value}")


def stop_kept(screen):
    kept = [name for name in reaper.registered() if name.startswith("demo-")]
    for name in kept:
        left = reaper.clean(name)
        screen.line(f"{name}: ended" + "".join(f"\n  could not remove {thing}" for thing in left))
    if not kept:
        screen.line("no cluster of the demo is up")
    return 0


def explain_kept(lab, screen):
    screen.title("The cluster stays up")
    screen.line(f"  nsenter --net=/run/netns/{lab.fabric} {lab.bin}/drover cluster status --config {lab.config}")
    screen.line("  or, for a shell in which `drover` just works:")
    screen.line(f"  nsenter --net=/run/netns/{lab.fabric} env PATH={lab.bin}:$PATH DROVER_CONFIG={lab.config} bash")
    screen.line("  Then try: drover host list; drover vm list; drover vm migrate web --verify; drover vm console web")
    screen.line(f"  Logs: {lab.directory}/*.log. End it with: deploy/demo --stop")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build")
    parser.add_argument("--guest")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--stop", action="store_true")
    options = parser.parse_args()
    screen = Screen()
    if options.stop:
        return stop_kept(screen)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Lab(options.build, options.guest, controller_keys=OPTIMIZER, prefix="demo") as lab:
        demo = Demo(lab, screen)
        try:
            demo.play()
        except KeyboardInterrupt:
            screen.line("\ninterrupted; cleaning up")
            return 130
        except (RuntimeError, OSError, LookupError) as error:
            demo.checks.add("the demo came to its end", str(error)[:300], False)
        demo.summary()
        failed = demo.checks.failed()
        if options.keep:
            explain_kept(lab, screen)
            lab.forget_connections()
            lab.leave()
    if failed:
        screen.line(f"\nfailed: {'; '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
