"""Engines struck at chosen points of the hand-over, where one owner is hardest to keep. The points are the phases that engines announce
on their control sockets (migrate/README.md); what is struck there may already be a step further, which must not matter."""
import json
import os
import random
import signal
import socket
import time

from harness import MIGRATION, case
from lab.program import until
from watched import SLOW, Watched, other_host, owner, settled

POINTS = [  # whose phase, which one, what is killed then
    ("source", "switching", "source"),
    ("source", "switching", "destination"),
    ("source", "handed-over", "source"),
    ("source", "handed-over", "destination"),
    ("destination", "loading", "source"),
    ("destination", "started", "source"),
    ("destination", "started", "destination"),
]


class Engine:
    """The engine of a VM's migration on one host: its process, and a connection to its control socket."""

    def __init__(self, lab, host, vm_id):
        self.pid = until(lambda: next(iter(lab.programs(host, "drover-migrate")), None), 15, f"an engine on {host}", 0.01)
        path = f"{lab.hosts[host].directory}/partitions/{vm_id}/eng.sock"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        until(lambda: self.socket.connect(path) is None, 10, f"the control socket of the engine on {host}", 0.01)

    def wait_phase(self, phase):
        """False when the engine has ended without it."""
        for line in self.socket.makefile("rb"):
            event = json.loads(line)
            if event["event"] == "phase" and event["phase"] == phase:
                return True
            if event["event"] in ("done", "failed"):
                return False
        return False

    def kill(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self):
        self.socket.close()


def settle_after(lab, watched, job_id, what):
    """The promise after any blow: the job has ended as the VM's place says, one owner, nothing left, the same guest."""
    job = lab.job_wait(job_id, 90)
    host = settled(lab, watched.vm, 45)
    try:
        watched.check()
    except Exception as error:
        raise AssertionError(f"{what}: job {job['state']}, VM on {host}: {error}") from error
    assert job["state"] in ("succeeded", "failed"), f"{what}: job {job['state']}"
    return job


@case(deadline=240, needs=MIGRATION)
def engines_struck_at_the_hand_over(run):
    lab = run.lab
    lab.vm_create("struck", run="mem:500:16M", host="h1", disk=True)
    watched = Watched(lab, "struck")
    vm_id = lab.vm("struck")["id"]
    moved = 0
    for side, phase, victim in POINTS:
        here = owner(lab, "struck")
        there = other_host(lab, here)
        job_id = lab.cli("vm", "migrate", "struck", "--to", there, "--bandwidth", "16M", "--max-downtime", 1000,
                         "--async").json["id"]
        engines = {"destination": Engine(lab, there, vm_id), "source": Engine(lab, here, vm_id)}
        assert engines[side].wait_phase(phase), f"{side} never came to {phase}"
        engines[victim].kill()
        for engine in engines.values():
            engine.close()
        job = settle_after(lab, watched, job_id, f"{victim} killed when the {side} was {phase}")
        assert (job["state"] == "succeeded") == (owner(lab, "struck") == there), job
        moved += job["state"] == "succeeded"
    run.note(f"{len(POINTS)} blows, {moved} moves succeeded all the same")


@case(deadline=7200, needs=MIGRATION, soak=True)
def soak_random_blows(run):
    """Anything but the guest is killed at any moment of a migration, N times."""
    lab = run.lab
    seed = int(time.time())
    rng = random.Random(seed)
    print(f"    | soak_random_blows: seed {seed}", flush=True)
    lab.vm_create("hardy", run="mem:500:16M,disk:20", host="h1", disk=True)
    watched = Watched(lab, "hardy")
    ends = {"succeeded": 0, "failed": 0}
    for _ in range(run.soak):
        here = owner(lab, "hardy")
        there = other_host(lab, here)
        job_id = lab.cli("vm", "migrate", "hardy", "--to", there, *SLOW, "--async").json["id"]
        time.sleep(rng.uniform(0, 9))  # the moment is what is random here
        victim = rng.choice(("source engine", "destination engine", "destination QEMU", "source hostd", "destination hostd", "leader"))
        strike(lab, victim, here, there)
        job = settle_after(lab, watched, job_id, f"{victim} killed, {here} to {there}")
        ends[job["state"]] += 1
        watched.guest.verify("disk")
    run.note(f"{run.soak} blows, {ends}")


def strike(lab, victim, here, there):
    side, what = (victim.split() + [""])[:2]
    host = here if side == "source" else there
    if victim == "leader":
        node = lab.controllers[lab.leader()]
    elif what == "hostd":
        node = lab.hosts[host]
    else:
        # The QEMU that has the guest must live: on the destination only one that has not started yet may be struck.
        if what == "QEMU" and owner(lab, "hardy") == there:
            return
        for pid in lab.programs(host, "qemu-system-x86_64" if what == "QEMU" else "drover-migrate"):
            os.kill(pid, signal.SIGKILL)
        return
    node.daemon.kill()
    node.daemon.start()
