"""Anything but the guest is struck at random moments of a migration. 37_crash_points.py strikes at chosen ones."""
import os
import random
import signal
import time

from harness import MIGRATION, case
from watched import SLOW, Watched, other_host, owner, settled


def settle_after(lab, watched, job_id, what):
    """The promise after any blow: the job has ended as the VM's place says, one owner, nothing left, the same guest."""
    job = lab.job_wait(job_id)
    host = settled(lab, watched.vm)
    try:
        watched.check()
    except Exception as error:
        raise AssertionError(f"{what}: job {job['state']}, VM on {host}: {error}") from error
    assert job["state"] in ("succeeded", "failed"), f"{what}: job {job['state']}"
    return job


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
