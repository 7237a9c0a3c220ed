"""A link that is cut at random moments of a migration, for as long as it takes: no guest is lost by it.

Cuts are drawn between 1 and 120 s, each order of magnitude as likely, and shortened by SCALE; nothing else is scaled, so the longest
still outlast the engine's patience with a silent peer (10 s). A failure names the seed and the cut, which replay it.
"""
import random
import time

from harness import MIGRATION, case
from lab import netns
from lab.program import until
from watched import Watched, other_host, owner, settled

SCALE = 10
SEED = 1764
WRITER = "mem:2000:16M:80"
LINK = "8M"


def cut_once(lab, dice, watched, number):
    """One migration with one cut. Returns what came of it, in words."""
    mode = ("precopy", "postcopy")[number % 2]
    source = owner(lab, "writer")
    target = other_host(lab, source)
    seconds = 120 ** dice.random() / SCALE
    port = f"mgmt-{dice.choice((source, target))}"
    job_id = lab.cli("vm", "migrate", "writer", "--to", target, "--mode", mode, "--bandwidth", LINK, "--max-downtime", 500, "--async").json["id"]
    until(lambda: (lab.job(job_id)["progress"] or {}).get("phase") == mode or lab.job(job_id)["state"] != "running", 30, mode, interval=0.02)
    time.sleep(dice.random() * 2)  # the moment is what is random
    netns.ip_in(lab.fabric, [f"link set {port} down"])
    try:
        time.sleep(seconds)
    finally:
        netns.ip_in(lab.fabric, [f"link set {port} up"])
    job = lab.job_wait(job_id, 150)
    lab.wait_hosts(60)
    now = settled(lab, "writer", 60)
    assert now == (target if job["state"] == "succeeded" else source), (now, job)
    assert mode == "precopy" or job["state"] == "succeeded", job  # once handed over it ends there, however long it takes
    watched.check()
    return f"{mode} {job['state']}"


def cuts(run, count):
    lab = run.lab
    dice = random.Random(SEED)
    lab.vm_create("writer", run=WRITER, host="h1", memory=96 << 20)
    watched, outcomes = Watched(lab, "writer"), {}
    for number in range(count):
        try:
            outcome = cut_once(lab, dice, watched, number)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"seed {SEED}, cut {number + 1} of {count}: {error}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if count > 10:
            print(f"    | {number + 1} of {count} cuts: 0 lost; {outcomes}", flush=True)
    run.note(f"0 lost of {count}; " + ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items())))


@case(deadline=120, needs=MIGRATION)
def link_cut_in_both_phases(run):
    cuts(run, 2)


@case(deadline=4 * 3600, needs=MIGRATION, soak=True)
def soak_link_cuts(run):
    cuts(run, run.soak)
