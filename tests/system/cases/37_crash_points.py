"""SIGKILL of every process at every named step of a migration (base/crashpoint.c): always one owner, the guest never notices, and
nothing is left behind. A few points belong to every run; --crash-points all runs through the whole table, and fails where one of
its points is never reached."""
import os
import time

from crash import Supervisor, arm, disarm, known_points, reached, wait_reached
from harness import MIGRATION, case
from lab.program import until
from watched import SLOW, Watched, other_host, owner, settled

FAST = ()
POSTCOPY = ("--mode", "postcopy", "--bandwidth", "32M")

# A blow: (whose program, point, way of getting there, who dies when it is not that program).
ROUNDS = "connecting hello-sent precopy round-over switching stopped state-sent".split()
HAND_OVER = "handed-over hand-over-sent hand-over-answered farewell-sent done".split()
RECEIVING = "listening receiving welcomed state-received loading ready-sent".split()
STARTED = "hand-over-received started guest-started hand-over-answered".split()
END = "engine-ended outcome-before outcome-after".split()
SETTLE = "settle-before settle-after settle-cleaned".split()
REMOVE = "end-recorded end-released end-removed".split()


def blows():
    yield from (("source", f"source.{name}", "precopy", "") for name in ROUNDS + HAND_OVER)
    yield from (("destination", f"destination.{name}", "precopy", "") for name in RECEIVING + STARTED + ["done", "farewell-received"])
    for when in ("before", "after"):
        for whose, phase in (("source", "handed-over"), ("destination", "owner"), ("source", "taken")):
            yield whose, f"record.{when}.{phase}", "precopy", ""
        for whose in ("source", "destination"):
            yield whose, f"record.{when}.failed", "cancel", ""
    yield from (("source", f"source.{name}", "cancel", "") for name in ("failing", "failed"))
    yield "destination", "destination.failed", "cancel", ""
    yield "source", "source.doubt", "doubt", ""

    # With post-copy, whatever the source does: its pages are still there. The destination until the guest runs.
    yield from (("source", f"source.{name}", "postcopy", "") for name in
                ["precopy", "postcopy-asked", "switching", "state-sent", "postcopy", "all-here"] + HAND_OVER)
    for whose, phase in (("source", "handed-over"), ("source", "taken"), ("destination", "owner")):
        yield from ((whose, f"record.{when}.{phase}", "postcopy", "") for when in ("before", "after"))
    yield from (("destination", f"destination.{name}", "postcopy", "") for name in
                ["postcopy-armed", "stale-named", "loading", "postcopy", "done", "farewell-received"] + STARTED)
    yield from ((whose, f"hostd.{name}", "postcopy", "") for whose in ("source", "destination") for name in END[1:])

    yield from (("destination", f"hostd.{name}", "precopy", "") for name in
                ["prepare-received", "prepare-recorded", "prepare-spawned", "prepare-listening", "engine-recorded"] + END[1:] + SETTLE)
    yield from (("source", f"hostd.{name}", "precopy", "") for name in
                ["start-received", "start-recorded", "start-launched", "engine-recorded"] + END + REMOVE)
    yield from (("destination", f"hostd.{name}", "cancel", "") for name in END + REMOVE)
    yield from (("source", f"hostd.{name}", "cancel", "") for name in END + ["guest-resumed"] + SETTLE)
    yield from (("source", f"hostd.{name}", "doubt", "") for name in ("resolve-saved", "resolve-resumed"))
    yield "destination", "hostd.fence-received", "held-start", ""
    yield "destination", "hostd.fence-recorded", "held-prepare", ""

    for step, what in (("preflight", "called answered"), ("queue", ""), ("prepare", "called answered"), ("allow", ""),
                       ("move", "called answered"),
                       ("finish", "called answered")):
        yield from (("leader", f"controller.{step}.{name}", "precopy", "")
                    for name in ["entered", *what.split(), "proposed", "applied"])
    yield "leader", "controller.outcome-told", "precopy", ""
    yield from (("leader", f"controller.undo.{name}", "cancel", "") for name in ("entered", "called", "answered", "proposed", "applied"))

    yield from (("source", f"source.{name}", "precopy", "companion") for name in ROUNDS + HAND_OVER)
    yield from (("destination", f"destination.{name}", "precopy", "companion") for name in RECEIVING + STARTED + ["done"])
    yield "destination", "destination.postcopy", "postcopy", "companion"


# Once the guest is the destination's and pages are missing, it cannot go on without that engine: the named risk of post-copy.
LOST = {(name, "postcopy") for name in ("record.after.owner", "destination.started", "destination.guest-started",
                                        "destination.hand-over-answered", "destination.postcopy")}

USUAL = [("source", "record.before.handed-over", "precopy", ""), ("source", "record.after.handed-over", "precopy", ""),
         ("destination", "destination.hand-over-received", "precopy", ""), ("destination", "record.after.owner", "precopy", ""),
         ("destination", "destination.loading", "precopy", "companion"), ("destination", "hostd.settle-before", "precopy", ""),
         ("source", "hostd.outcome-after", "cancel", ""), ("leader", "controller.move.proposed", "precopy", ""),
         ("source", "source.postcopy", "postcopy", "")]


def chosen(which):
    every = list(blows())
    if not which:
        return USUAL
    if which == "all":
        return every
    if "/" in which:
        share, of = (int(part) for part in which.split("/"))
        return every[share - 1::of]
    return [blow for blow in every if blow[1].startswith(which)]


class Struck:
    """A VM that is moved again and again while programs die."""

    def __init__(self, lab, supervisor):
        self.lab, self.supervisor = lab, supervisor
        lab.vm_create("struck", run="mem:500:16M", host="h1", disk=True)
        self.watched = Watched(lab, "struck")
        self.id = lab.vm("struck")["id"]

    def node(self, whose, here, there):
        return self.lab.controllers[self.lab.leader()] if whose == "leader" else self.lab.hosts[here if whose == "source" else there]

    def begin(self, there, flags):
        """Asks for the move and returns the job's id, also where the leader died over the question."""
        before = {job["id"] for job in self.lab.job_list()}
        self.lab.cli("vm", "migrate", "struck", "--to", there, *flags, "--async", check=False)
        return until(lambda: next((job["id"] for job in self.lab.job_list() if job["id"] not in before), None), 20, "the job")

    def phase(self, job_id):
        return (self.lab.job(job_id)["progress"] or {}).get("phase")

    def strike(self, whose, point, way, victim):
        """One blow; returns the job's state, and the seconds from the blow until all was in order again."""
        lab = self.lab
        here = owner(lab, "struck")
        there = other_host(lab, here)
        node = self.node(whose, here, there)
        ways = {"precopy": self.plain, "postcopy": self.plain, "cancel": self.cancelled, "doubt": self.doubted,
                "held-start": self.held, "held-prepare": self.held}
        try:
            job_id = ways[way](node, point, victim, way, here, there)
            begin = time.monotonic()
            job = lab.job_wait(job_id, 90)
            return job["state"], self.settle(job, victim or (point, way) in LOST) - begin
        finally:
            for each in lab.nodes():
                disarm(each)
            self.supervisor.held.clear()

    # ---- ways

    def plain(self, node, point, victim, way, _, there):
        arm(node, point, victim)
        job_id = self.begin(there, POSTCOPY if way == "postcopy" else FAST)
        wait_reached(node, point)
        return job_id

    def cancelled(self, node, point, victim, _way, _here, there):
        job_id = self.begin(there, SLOW)
        until(lambda: self.phase(job_id) == "precopy", 20, "pre-copy to begin")
        arm(node, point, victim)
        self.lab.cli("job", "cancel", job_id, check=False)
        wait_reached(node, point)
        return job_id

    def doubted(self, node, point, victim, _way, _here, there):
        """The destination's engine dies before it has taken the guest, and so the source's is left in doubt."""
        far = self.lab.hosts[there]
        arm(far, "destination.hand-over-received")
        arm(node, point, victim)
        job_id = self.begin(there, FAST)
        wait_reached(far, "the hand-over")
        wait_reached(node, point)
        return job_id

    def held(self, node, point, victim, way, here, there):
        """A host's daemon dies over its order and stays away until the job is cancelled, so that the fence finds the destination
        before the move (or before the preparation) has begun."""
        name = here if way == "held-start" else there
        host = self.lab.hosts[name]
        self.supervisor.held.add(name)
        arm(host, "hostd.start-received" if way == "held-start" else "hostd.prepare-received")
        job_id = self.begin(there, FAST)
        wait_reached(host, "the order")
        until(lambda: not host.daemon.alive(), 5, "the daemon's end")
        disarm(host)
        arm(node, point, victim)
        self.lab.cli("job", "cancel", job_id, check=False)
        if node is not host:
            wait_reached(node, point)
        self.supervisor.held.clear()
        wait_reached(node, point)
        return job_id

    # ---- afterwards

    def settle(self, job, mortal):
        """One owner and the same guest; or, where the guest itself had to go, no owner and nothing left of it. Returns when it was so."""
        if mortal and not self.alive():
            return self.buried(job)
        host = settled(self.lab, "struck", 45)
        assert job["state"] in ("succeeded", "failed", "cancelled"), job
        assert (job["state"] == "succeeded") == (host == job["migration"]["to_host"] if job["migration"] else False), (job, host)
        directory = f"{self.lab.hosts[host].directory}/partitions/{self.id}"
        until(lambda: not [name for name in os.listdir(directory) if name.startswith("eng")], 10, "the engine's files to go", 0.2)
        in_order = time.monotonic()
        self.watched.check()
        return in_order

    def alive(self):
        """Some QEMU of the VM, once only those are left that stay."""
        def decided():
            info = self.lab.vm("struck")
            qemus = self.lab.qemus(self.id)
            return "lost" if not info["owner"] and not qemus else "lives" if list(qemus) == [info["owner"]] and info["state"] == "running" else None
        return until(decided, 45, "the VM to be running or stopped", 0.2) == "lives"

    def buried(self, job):
        """Nobody owns it, the job says why, and it can be started again."""
        lab = self.lab

        def gone():
            info = lab.vm("struck")
            return not info["owner"] and not lab.qemus(self.id) and not any(lab.residue(host) for host in lab.hosts)
        until(gone, 45, "the VM to be stopped and nothing left", 0.2)
        in_order = time.monotonic()
        assert job["state"] == "succeeded" or job["error"]["message"], job
        lab.forget_connections()
        lab.cli("vm", "start", "struck")
        lab.guest_wait("struck").close()
        self.watched = Watched(lab, "struck")
        return in_order


@case(deadline=3600, needs=MIGRATION)
def crash_points(run):
    lab = run.lab
    table = set(known_points(lab))
    listed = {blow[1] for blow in blows()}
    assert table == listed, f"points without a blow: {sorted(table - listed)}; blows without a point: {sorted(listed - table)}"
    which = chosen(run.options.crash_points)
    seconds, ends, failures = [(0, ("none",))], {}, []
    with Supervisor(lab) as supervisor:
        struck = Struck(lab, supervisor)
        for blow in which:
            try:
                state, took = struck.strike(*blow)
            except Exception as error:
                failures.append(f"{' '.join(blow)}: {error}")
                state, took = "FAILED", 0
                lab.forget_connections()
                lab.vm_delete("struck")
                struck = Struck(lab, supervisor)
            ends[state] = ends.get(state, 0) + 1
            seconds.append((took, blow))
            if run.options.crash_points:
                print(f"    | {' '.join(blow):<60} {state:<10} {took:5.1f} s", flush=True)
    for node in lab.nodes():
        with open(node.daemon.log, errors="replace") as log:
            assert "crashpoint.unlisted" not in log.read(), f"{node.name} came to a point that is not in the table; its log names it"
    assert not failures, f"{len(failures)} of {len(which)} blows:\n" + "\n".join(failures)
    seconds.sort(reverse=True)
    run.note(f"{len(which)} blows, {ends}; in order again after {seconds[len(seconds) // 2][0]:.1f} s, at most "
             f"{seconds[0][0]:.1f} s ({' '.join(seconds[0][1])})")
