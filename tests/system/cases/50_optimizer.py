"""The main job: a hot host is noticed, and a guest is moved off it without anybody asking."""
from harness import MIGRATION, case
from lab.program import until
from watched import Watched


@case(deadline=300, needs=MIGRATION)
def optimizer_moves_a_guest_off_a_hot_host(run):
    lab = run.lab
    for name in ("hot1", "hot2", "hot3"):
        lab.vm_create(name, run="cpu:45", host="h1", wait=False)
    watched = [Watched(lab, name) for name in ("hot1", "hot2", "hot3") if lab.guest_wait(name)]
    lab.cli("optimizer", "set", "--automatic", "on")
    try:
        jobs = until(lambda: [job for job in lab.job_list() if job["kind"] == "vm-migrate" and job["actor"] == "optimizer"],
                     90, "the optimizer to move a guest", interval=0.5)
        assert jobs[0]["reason"], "the optimizer gave no reason"
        run.note(jobs[0]["reason"])
        until(lambda: all(job["state"] not in ("queued", "running") for job in lab.job_list()), 60, "its jobs to end", 0.3)
        for job in lab.job_list():
            if job["actor"] == "optimizer":
                assert job["state"] == "succeeded", job
        until(lambda: len({vm["owner"] for vm in lab.vm_list()}) >= 2, 10, "guests on several hosts")
        for guest in watched:
            guest.check()
        # The second plan on a cluster that does not change any more is empty.
        until(lambda: not lab.cli("optimizer", "plan").json["moves"], 30, "an empty plan", 0.5)
    finally:
        lab.cli("optimizer", "set", "--automatic", "off")


@case(deadline=120)
def optimizer_leaves_a_balanced_cluster_alone(run):
    lab = run.lab
    for name, host in (("x", "h1"), ("y", "h2"), ("z", "h3")):
        lab.vm_create(name, host=host, wait=False)
    plan = lab.cli("optimizer", "plan").json
    assert plan["moves"] == [] and plan["verdict"], plan
