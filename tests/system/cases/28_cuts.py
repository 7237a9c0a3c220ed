"""A link that is cut at random moments of a migration, for as long as it takes: no guest is lost by it.

Cuts are drawn between 1 and 120 s, each order of magnitude as likely, and shortened by SCALE; nothing else is scaled, so the longest
still outlast the engine's patience with a silent peer (10 s). What is drawn for a cut depends on the seed and its number alone; a failure
names both. With --soak N there are N cuts, which go on where an earlier run stopped (soak.py).
"""
import random
import time

from crash import Severed, arm, disarm, go_on, wait_reached
from harness import MIGRATION, case
from lab import netns
from lab.program import until
from soak import Tally
from watched import Watched, ended, other_host, owner, settled, wait_phase

SCALE = 10
SEED = 1764
WRITER = "mem:2000:16M:80"
LINK = "8M"


def cut_once(lab, watched, number):
    """One migration with one cut. Returns what came of it, in words."""
    dice = random.Random(f"{SEED}/{number}")
    mode = ("precopy", "postcopy")[number % 2]
    source = owner(lab, "writer")
    target = other_host(lab, source)
    seconds = 120 ** dice.random() / SCALE
    port = f"mgmt-{dice.choice((source, target))}"
    job_id = lab.cli("vm", "migrate", "writer", "--to", target, "--mode", mode, "--bandwidth", LINK, "--max-downtime", 500, "--async").json["id"]
    until(lambda: lab.progress(job_id).get("phase") == mode or lab.job(job_id)["state"] != "running", 60, mode, interval=0.02)
    time.sleep(dice.random() * 2)  # the moment is what is random
    netns.ip_in(lab.fabric, [f"link set {port} down"])
    try:
        time.sleep(seconds)
    finally:
        netns.ip_in(lab.fabric, [f"link set {port} up"])
    job = lab.job_wait(job_id)
    lab.wait_hosts()
    now = settled(lab, "writer")
    assert now == (target if job["state"] == "succeeded" else source), (now, job)
    assert mode == "precopy" or job["state"] == "succeeded", job  # once handed over it ends there, however long it takes
    watched.check()
    assert not lab.crashes(), lab.crashes()
    return f"{mode} {job['state']}"


def watched_writer(lab):
    lab.vm_create("writer", run=WRITER, host="h1", memory=96 << 20)
    return Watched(lab, "writer")


def cut(lab, watched, number):
    try:
        return cut_once(lab, watched, number)
    except (AssertionError, TimeoutError) as error:
        again = f"echo '{{\"cuts\": {{\"link cuts\": {number}}}}}' >F; tests/system/run --soak {number + 1} --soak-state F soak_link_cuts"
        raise AssertionError(f"seed {SEED}, cut {number}: {error}; again: {again}") from error


@case(needs=MIGRATION)
def link_cut_in_both_phases(run):
    watched = watched_writer(run.lab)
    run.note("; ".join(cut(run.lab, watched, number) for number in range(2)))


@case(deadline=4 * 3600, needs=MIGRATION, soak=True)
def soak_link_cuts(run):
    tally, watched = Tally(run.options.soak_state, "cuts"), watched_writer(run.lab)
    while tally["link cuts"] < run.soak:
        tally.add(cut(run.lab, watched, tally["link cuts"]), "link cuts")
        print(f"    | 0 guests lost; {tally}", flush=True)
    run.note(f"0 guests lost; {tally}")


def stopped_at(lab, whose, point):
    """Begins a move of the writer by post-copy and returns it with the engine that has come to the point, stopped."""
    source = owner(lab, "writer")
    target = other_host(lab, source)
    node = lab.hosts[source if whose == "source" else target]
    arm(node, point, "pause")
    job_id = lab.cli("vm", "migrate", "writer", "--to", target, "--mode", "postcopy", "--bandwidth", LINK, "--async").json["id"]
    wait_reached(node, point)
    disarm(node)
    engine, = lab.programs(node.name, "drover-migrate")
    return job_id, source, target, engine


@case(needs=MIGRATION)
def link_cut_in_the_hand_over(run):
    """On its way there: nobody but the controllers can end it, and the guest goes on where it was. On its way back: it goes on where
    it was taken, and the move ends when the link is back."""
    lab = run.lab
    watched = watched_writer(lab)
    job_id, source, target, engine = stopped_at(lab, "source", "source.handed-over")
    with Severed(lab.hosts[source], lab.hosts[target]):
        go_on(engine)
        job = lab.job_wait(job_id)
        assert job["state"] == "failed" and "no answer" in job["error"]["message"], job
        assert settled(lab, "writer") == source
    watched.check()
    job_id, source, target, engine = stopped_at(lab, "destination", "record.after.owner")
    with Severed(lab.hosts[source], lab.hosts[target]):
        go_on(engine)
        wait_phase(lab, job_id, "unanswered")
    ended(lab, job_id, "succeeded")
    assert settled(lab, "writer") == target
    watched.check()
