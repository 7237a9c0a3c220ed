"""The main job: a hot host is noticed, and a guest is moved off it without anybody asking."""
from harness import MIGRATION, case
from lab.lab import MiB
from lab.program import until
from watched import Watched

NAMES = ("hot1", "hot2", "hot3")


@case(needs=MIGRATION, own_lab=True)
def optimizer_moves_a_guest_off_a_hot_host(run):
    """By memory, of which guests use the same however busy the machine is; where it is not, the CPU is too much for one host, too."""
    with run.new_lab(memory=600 * MiB) as lab:
        lab.start()
        for name in NAMES:
            lab.vm_create(name, run="cpu:45", host="h1", memory=190 * MiB, wait=False)
        watched = [Watched(lab, name) for name in NAMES if lab.guest_wait(name)]
        lab.cli("optimizer", "set", "--automatic", "on")
        jobs = until(lambda: [job for job in lab.job_list() if job["kind"] == "vm-migrate" and job["actor"] == "optimizer"],
                     120, "the optimizer to move a guest", interval=0.5)
        assert jobs[0]["reason"], "the optimizer gave no reason"
        run.note(jobs[0]["reason"])
        until(lambda: all(job["state"] not in ("queued", "running") for job in lab.job_list()), 60, "its jobs to end", 0.3)
        for job in lab.job_list():
            if job["actor"] == "optimizer":
                assert job["state"] == "succeeded", job
        until(lambda: len({vm["owner"] for vm in lab.vm_list()}) >= 2, 60, "guests on several hosts")
        for guest in watched:
            guest.check()
        # The second plan on a cluster that does not change any more is empty.
        until(lambda: not lab.cli("optimizer", "plan").json["moves"], 60, "an empty plan", 0.5)


@case()
def optimizer_leaves_a_balanced_cluster_alone(run):
    lab = run.lab
    for name, host in (("x", "h1"), ("y", "h2"), ("z", "h3")):
        lab.vm_create(name, host=host)
    plan = until(lambda: next((plan for plan in [lab.cli("optimizer", "plan").json] if plan["moves"] == []), None), 60,
                 "a plan without moves")  # starting was work
    assert plan["verdict"], plan
