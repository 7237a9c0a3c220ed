"""The walk through the crash points: each blow kills one program at one named step of one way of moving a VM, and afterwards there
must be one owner, the same guest, and nothing left behind.

A blow ends as a result, whatever happens; after one that failed the next begins in a new lab. Results are lines of a file, so that a
walk that was stopped goes on where it stood, and shares of it can run side by side."""
import collections
import json
import os
import signal
import time

from blows import may_end_guest
from crash import HeldDisk, Severed, Supervisor, arm, disarm, go_on, hit_at, kill_with_guardian, reached, unlisted_points, wait_reached
from lab.program import until
from victims import Nomad, Victim, Visitor
from watched import HELD, PATIENT, other_host, owner

MiB = 1 << 20
IN_ORDER_S = 60  # a blow whose traces are still there then has failed
GRACE_S = 30  # a point may come after its job's end
POSTCOPY = ("--mode", "postcopy", "--bandwidth", "32M")
DRY_RUN = ("--dry-run", "--tracker", "wp-sync")

Result = collections.namedtuple("Result", "blow reached job owner left seconds problem")


def kind_of(blow):
    return Nomad if "storage" in blow.way else Visitor if "visit" in blow.way else Victim


class Stage:
    """A lab with its supervisor and one victim, for as long as every blow ends in order."""

    def __init__(self, lab):
        self.lab = lab
        self.supervisor = Supervisor(lab).__enter__()
        self.victim = None
        self.hosts_keep = False

    def close(self):
        self.supervisor.__exit__()

    def enter(self, kind):
        """Has that victim on stage, and no other."""
        if type(self.victim) is kind:
            return
        self.leave()
        if kind.keeps:
            self.have_hosts_keep()
        self.victim = kind(self.lab)

    def have_hosts_keep(self):
        """What a guest leaves on a host, from now on."""
        if self.hosts_keep:
            return
        self.hosts_keep = True
        for node in self.lab.hosts.values():
            with open(node.config, "a") as file:
                file.write(f"[reuse]\nmax_bytes = {1024 * MiB}\n")
            self.supervisor.held.add(node.name)
            node.daemon.stop()
            node.daemon.start()
            self.supervisor.held.remove(node.name)
        self.lab.wait_hosts()

    def leave(self):
        if self.victim:
            self.lab.forget_connections()
            self.lab.vm_delete(self.victim.name)
            for path in self.victim.disks():
                os.unlink(path)
        self.victim = None


class Act:
    """One blow."""

    def __init__(self, stage, blow):
        self.stage, self.lab, self.blow = stage, stage.lab, blow
        stage.enter(kind_of(blow))
        self.victim = stage.victim
        self.here = owner(self.lab, self.victim.name)
        self.there = other_host(self.lab, self.here)
        self.leader = self.lab.controllers[self.lab.leader()]
        self.job_id = None
        self.killed_at = None
        self.lost = False  # the guest had to go
        self.severed = None  # the link that was cut, until all is in order

    @property
    def node(self):
        """The one whose program comes to the point."""
        return self.leader if self.blow.whose == "leader" else self.host(self.blow.whose)

    def host(self, whose):
        return self.lab.hosts[self.here if whose == "source" else self.there]

    def run(self):
        """The result; whatever goes wrong is in it."""
        left, problem, seconds, end = [], "", None, None
        try:
            WAYS[self.blow.way](self)
            left, seconds = self.settle()
            end = self.job()
            if not left:
                self.judge(end)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            was_reached = self.killed_at is not None or reached(self.node)
            for each in self.lab.nodes():
                disarm(each)
            if self.severed:
                self.severed.__exit__()
            self.stage.supervisor.held.clear()
        unlisted, crashes = unlisted_points(self.lab), self.lab.crashes()
        if crashes:
            problem = f"{problem or 'a program has crashed by itself'}; {crashes}"
        elif not problem and (left or unlisted):
            problem = "left behind" if left else f"points that are not in the table: {unlisted}"
        return Result(str(self.blow), was_reached, end["state"] if end else "", self.owner_now(), left, seconds, problem)

    def owner_now(self):
        """Who has it; `lost`: the guest had to go with what was killed, and nobody had it until it was started again."""
        if self.lost:
            return "lost"
        try:
            return owner(self.lab, self.victim.name) or "nobody"
        except Exception:
            return "?"

    def job(self):
        return self.lab.job(self.job_id)

    def over(self):
        return self.job()["state"] in ("succeeded", "failed", "cancelled")

    # ---- the ways

    def ask(self, *words):
        """Asks for something and keeps the job's id, also where the leader died over the question."""
        before = {job["id"] for job in self.lab.job_list()}
        self.lab.cli(*words, "--async", check=False)
        self.job_id = until(lambda: min((job["id"] for job in self.lab.job_list() if job["id"] not in before), default=None), 60, "the job")

    def move(self, *flags):
        self.ask("vm", "migrate", self.victim.name, "--to", self.there, *(() if "--max-downtime" in flags else PATIENT), *flags)

    def move_disk(self, *flags):
        shared, own = f"{self.lab.directory}/disks", self.host("source").disks
        now = os.path.dirname(self.lab.vm(self.victim.name)["spec"]["disks"][0]["path"])
        self.disk_to = shared if now == own else own
        self.ask("vm", "move-storage", self.victim.name, "--to", f"{self.disk_to}/", *flags)

    def cancel(self):
        self.lab.cli("job", "cancel", self.job_id, "--async", check=False)

    def arm(self):
        arm(self.node, self.blow.point, self.blow.victim)

    def strike(self):
        """Waits for the blow; where the job ends without it, it will not come."""
        ended = [None]

        def come():
            if reached(self.node):
                return True
            if ended[0] is None and self.over():
                ended[0] = time.monotonic()
            return ended[0] is not None and time.monotonic() > ended[0] + GRACE_S
        until(come, 60, f"{self.blow.point} to be reached", 0.02)
        assert reached(self.node), f"not reached; the job is {self.job()['state']}"
        self.killed_at = hit_at(self.node)

    def phase(self):
        return (self.job()["progress"] or {}).get("phase")

    def go(self, begin, *flags):
        self.arm()
        begin(*flags)
        self.strike()

    def go_and_cancel(self, begin, under_way, *flags):
        begin(*flags)
        until(under_way, 60, "the job to be under way")
        self.arm()
        self.cancel()
        self.strike()

    def doubted(self):
        """The destination's engine dies before it has taken the guest, and so the source's is left in doubt."""
        far = self.host("destination")
        arm(far, "destination.hand-over-received")
        self.arm()
        self.move()
        wait_reached(far, "the hand-over")
        self.strike()

    def cut(self, held, point, *mode):
        """The hosts do not hear each other from that point of a move on, which the program of the host `held` comes to."""
        node = self.host(held)
        arm(node, point, "pause")
        self.move(*mode)
        wait_reached(node, point)
        disarm(node)
        self.severed = Severed(self.host("source"), self.host("destination")).__enter__()
        self.arm()
        go_on(*self.lab.programs(node.name, "drover-migrate"))
        self.strike()

    def gone(self, cancelled):
        """The destination's engine dies before it has taken a guest that waits for pages."""
        far = self.host("destination")
        arm(far, "destination.hand-over-received")
        self.arm()
        self.move(*POSTCOPY)
        wait_reached(far, "the hand-over")
        if cancelled:
            self.cancel()
        self.strike()

    def refused(self, *mode):
        """The destination's QEMU cannot open the disk, so that the guest is given back; what comes after that on the source can."""
        far, late = self.host("destination"), self.blow.whose != "destination"
        with HeldDisk(self.victim.disks()[0]):
            if late:
                arm(far, "destination.returning", "pause")
            else:
                self.arm()
            self.move(*mode)
            if late:
                wait_reached(far, "the refusal")
                self.arm()
            else:
                self.strike()
        if late:
            disarm(far)
            go_on(*self.lab.programs(far.name, "drover-migrate"))
            self.strike()

    def refused_alone(self):
        """The destination's QEMU cannot open the disk as yet, and the source's engine is no more when the guest is offered back."""
        with HeldDisk(self.victim.disks()[0]):
            self.arm()
            self.move()
            self.strike()

    def given_back(self):
        """The destination's engine dies between its record and the guest's start, with pages missing."""
        far = self.host("destination")
        arm(far, "destination.owner", "pause")
        self.move(*POSTCOPY)
        wait_reached(far, "the record")
        disarm(far)
        self.arm()
        for pid in self.lab.programs(far.name, "drover-migrate"):
            os.kill(pid, signal.SIGKILL)
        self.strike()

    def let_go(self):
        """The source's engine and its guardian die at once, so that a third has to let the guest's writes through."""
        self.move("--tracker", "wp-sync", *HELD)
        until(lambda: self.phase() == "precopy", 60, "the job to be under way")
        self.arm()
        kill_with_guardian(self.lab, self.here)
        self.strike()

    def forecast(self):
        """As let_go(), in a dry run that nobody waits for any more: it would be made again, and the second one would free the guest."""
        self.move(*DRY_RUN)
        until(lambda: self.lab.guardians(self.here), 60, "the guest to be watched")
        self.cancel()
        self.arm()
        kill_with_guardian(self.lab, self.here)
        self.strike()

    def visit_return(self):
        """Moves it, waits until what it held is kept, and strikes on the way back."""
        self.lab.migrate(self.victim.name, self.there, *PATIENT)
        key = f"{self.host('source').directory}/visits/{self.victim.id}.key"
        until(lambda: os.path.exists(key) and not self.victim.disorder(False), 60, "what is kept of the guest")
        self.here, self.there = self.there, self.here
        self.go(self.move)

    def held(self, whose, order):
        """A host's daemon dies over its order and stays away until the job is cancelled, so that the fence finds the destination
        before the move (or before the preparation) has begun."""
        host = self.host(whose)
        self.stage.supervisor.held.add(host.name)
        arm(host, order)
        self.move()
        wait_reached(host, "the order")
        until(lambda: not host.daemon.alive(), 60, "the daemon's end")
        disarm(host)
        self.arm()
        self.cancel()
        if self.node is not host:
            wait_reached(self.node, self.blow.point)
        self.stage.supervisor.held.clear()
        self.strike()

    def evacuation(self):
        self.ask("host", "evacuate", self.here)

    # ---- afterwards

    def settle(self):
        """Waits until all is in order; returns what is not, and the seconds from the blow until it was."""
        mortal = may_end_guest(self.blow)
        seen = [["nothing was seen"]]

        def in_order():
            seen[0] = self.victim.disorder(mortal)
            if not seen[0] and not self.over():
                seen[0] = ["the job is not over"]
            return not seen[0]
        try:
            until(in_order, IN_ORDER_S, "order", 0.05)
        except TimeoutError:
            return seen[0], None
        if not self.lab.qemus(self.victim.id):
            seconds = time.time() - self.killed_at
            self.lost = True
            self.victim.born_again()
            return [], seconds
        self.victim.watched.guest.uptime_ms()  # it answers
        seconds = time.time() - self.killed_at
        self.victim.check()
        return [], seconds

    def judge(self, job):
        """The job says what has happened."""
        now = owner(self.lab, self.victim.name)
        succeeded = job["state"] == "succeeded"
        assert succeeded or job["error"]["message"], job
        if self.blow.way.startswith("evacuate"):
            self.lab.cli("host", "set", self.here, "--maintenance", "off")
            assert not succeeded or now != self.here, f"the job succeeded, but {now} still has the VM"
        elif self.blow.way.startswith("move-storage"):
            moved = os.path.dirname(self.victim.disks()[0]) == self.disk_to
            assert succeeded == moved, f"the job {job['state']}, but the disk is {self.victim.disks()}"
        elif self.blow.way.startswith("dry-run"):
            assert self.lost or now == self.here, f"{now} has the VM, and nobody moved it"
        elif not may_end_guest(self.blow):
            assert succeeded == (now == self.there), f"the job {job['state']}, but {now} has the VM"


WAYS = {
    "precopy": lambda act: act.go(act.move),
    "postcopy": lambda act: act.go(act.move, *POSTCOPY),
    "cancel": lambda act: act.go_and_cancel(act.move, lambda: act.phase() == "precopy", *HELD),
    "doubt": Act.doubted,
    "cut": lambda act: act.cut("source", "source.handed-over", *POSTCOPY),
    "cut-precopy": lambda act: act.cut("source", "source.handed-over"),
    "gone": lambda act: act.gone(False),
    "gone-cancel": lambda act: act.gone(True),
    "refused": Act.refused,
    "refused-postcopy": lambda act: act.refused(*POSTCOPY),
    "refused-alone": Act.refused_alone,
    "given-back": Act.given_back,
    "let-go": Act.let_go,
    "dry-run": lambda act: act.go(act.move, *DRY_RUN),
    "dry-run-cancel": Act.forecast,
    "visit": lambda act: act.go(act.move),
    "visit-return": Act.visit_return,
    "held-start": lambda act: act.held("source", "hostd.start-received"),
    "held-prepare": lambda act: act.held("destination", "hostd.prepare-received"),
    "with-storage": lambda act: act.go(act.move, "--with-storage", "--storage-to", act.host("destination").disks),
    "with-storage-cancel": lambda act: act.go_and_cancel(act.move, lambda: act.phase() in ("disks", "precopy"), "--with-storage",
                                                         "--storage-to", act.host("destination").disks, *HELD),
    "move-storage": lambda act: act.go(act.move_disk),
    "move-storage-cancel": lambda act: act.go_and_cancel(act.move_disk, lambda: act.job()["progress"]["raw_bytes"] > 0,
                                                         "--bandwidth", "2M"),
    "evacuate": lambda act: act.go(act.evacuation),
    "evacuate-cancel": lambda act: act.go_and_cancel(
        act.evacuation, lambda: any(job.get("parent_id") == act.job_id for job in act.lab.job_list())),
}


# ---- a walk

def load(path):
    """Results that are there already, by blow."""
    if not path or not os.path.exists(path):
        return {}
    with open(path) as file:
        lines = [line for line in file if line.endswith("}\n")]  # one may have been cut off with its writer
    return {result.blow: result for result in (Result(**json.loads(line)) for line in lines)}


def keep(path, result):
    if path:
        with open(path, "a") as file:
            file.write(json.dumps(result._asdict()) + "\n")


def line_of(result):
    verdict = "FAILED" if result.problem else result.job
    seconds = "-" if result.seconds is None else f"{result.seconds:.1f}"
    return (f"{result.blow:<66} {'yes' if result.reached else 'NO':<7} {verdict:<10} {result.owner:<6} {seconds:>5}  "
            f"{'; '.join(result.left) or '-'}{' | ' + result.problem if result.problem else ''}")


HEADING = f"{'whose point way companion':<66} {'reached':<7} {'job':<10} {'owner':<6} {'s':>5}  left behind | problem"


def walk(run, blows, path="", tell=print):
    """Strikes every blow that the file does not know; returns the results of all, in order."""
    done = load(path)
    stage = None
    try:
        kinds = (Victim, Nomad, Visitor)
        for blow in sorted((blow for blow in blows if str(blow) not in done), key=lambda blow: kinds.index(kind_of(blow))):
            stage = stage or Stage(run.lab)
            try:
                result = Act(stage, blow).run()
            except Exception as error:  # of the stage itself
                result = Result(str(blow), False, "", "?", [], None, f"{type(error).__name__}: {error}")
            done[str(blow)] = result
            keep(path, result)
            tell(line_of(result))
            if result.problem:
                stage.close()
                stage = None
                run.renew_lab(str(blow).replace(" ", "_"))
        if stage:
            stage.leave()
    finally:
        if stage:
            stage.close()
    return [done[str(blow)] for blow in blows]
