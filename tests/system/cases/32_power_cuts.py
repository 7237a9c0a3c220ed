"""A host loses its power in the middle of a move, and comes back knowing nothing, or only what was on its disk; or only the destination's
engine is lost."""
from crash import arm, disarm, wait_reached
from harness import MIGRATION, case
from lab.program import until
from walk import POSTCOPY
from watched import PATIENT, Watched, begin_held_move, ended, settled


def cut(lab, host, disk=False):
    lab.cut_power(host, disk)
    lab.hosts[host].daemon.start()


def move_to_point(lab, there, host, point, *flags, victim="pause"):
    """A move during which a host's program comes to that point, and stops there or dies; the job's id."""
    node = lab.hosts[host]
    arm(node, point, victim)
    job_id = lab.cli("vm", "migrate", "cut", "--to", there, *(flags or PATIENT), "--async").json["id"]
    wait_reached(node, point)
    disarm(node)
    return job_id


def nobodys(lab):
    """Nobody runs it, everybody knows, and nothing is left of it."""
    vm_id = lab.vm("cut")["id"]
    lab.forget_connections()
    seen = {}

    def over():
        info = lab.vm("cut")
        seen.update(owner=info["owner"], hand_over=info["hand_over"], qemus=lab.qemus(vm_id),
                    residue=lab.residue("h1") + lab.residue("h2"))
        return not any(seen.values())
    try:
        until(over, 60, "the end of the VM")
    except TimeoutError:
        raise AssertionError(f"not over: {seen}") from None


@case(needs=MIGRATION)
def power_cut_before_the_hand_over(run):
    lab = run.lab
    lab.vm_create("cut", run="mem:500:16M", host="h1")
    watched = Watched(lab, "cut")
    job_id = begin_held_move(lab, "cut", "h2")
    cut(lab, "h2")
    ended(lab, job_id, "failed")
    assert settled(lab, "cut") == "h1"
    watched.check()

    lab.wait_hosts()
    job_id = begin_held_move(lab, "cut", "h2")
    cut(lab, "h1", disk=True)  # and the guest with it
    ended(lab, job_id, "failed")
    nobodys(lab)


@case(needs=MIGRATION)
def power_cut_after_the_hand_over(run):
    lab = run.lab
    lab.vm_create("cut", run="mem:500:16M", host="h1")
    watched = Watched(lab, "cut")

    # The destination's engine dies before it has taken the guest: the source, which would ask on for good, is told.
    job_id = move_to_point(lab, "h2", "h2", "destination.hand-over-received", *POSTCOPY, victim="")
    ended(lab, job_id, "failed")
    assert settled(lab, "cut") == "h1"
    watched.check()

    # The source's host, once the guest runs elsewhere.
    job_id = move_to_point(lab, "h2", "h1", "source.hand-over-answered")
    cut(lab, "h1")
    ended(lab, job_id, "succeeded")
    assert settled(lab, "cut") == "h2"
    watched.check()

    # The destination's, which may have run it: the source's older memory on a disk that has moved on would harm it.
    lab.wait_hosts()
    job_id = move_to_point(lab, "h1", "h1", "destination.hand-over-received")
    cut(lab, "h1", disk=True)
    job = ended(lab, job_id, "failed")
    assert "start it again" in job["error"]["message"], job
    nobodys(lab)
