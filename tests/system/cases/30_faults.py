"""Everything that can die during a migration dies; afterwards one host runs the VM, the guest never noticed, nothing is left."""
import os
import signal

from crash import arm, disarm, go_on, kill_with_guardian, wait_reached
from harness import MIGRATION, case
from lab.program import until
from watched import PATIENT, Watched, begin_held_move, begin_slow_move, ended, owner, settled


def interrupted(run, harm, expect, *flags):
    """A migration from h1 to h2 with `harm(lab, job_id)` done to it; `expect` are the states the job may end in, `flags` those of
    the migration."""
    lab = run.lab
    lab.vm_create("victim", run="mem:500:16M", host="h1", disk=True)
    watched = Watched(lab, "victim")
    begin = begin_slow_move if "succeeded" in expect else begin_held_move
    job_id = begin(lab, "victim", "h2", *flags)
    harm(lab, job_id)
    job = lab.job_wait(job_id)
    host = settled(lab, "victim")
    watched.check()
    assert job["state"] in expect, f"job ended {job['state']}: {job['error']}"
    assert (job["state"] == "succeeded") == (host == "h2"), f"job {job['state']}, but the VM is on {host}"
    assert job["state"] != "failed" or job["error"]["message"], "the job failed without saying why"
    run.note(f"job {job['state']}, runs on {host}")
    # Nothing stands in the way of the next one.
    lab.migrate("victim", "h3", *PATIENT)
    watched.check()
    settled(lab, "victim")


def kill_program(lab, host, name):
    pids = lab.programs(host, name)
    assert len(pids) == 1, f"{name} on {host}: {pids}"
    os.kill(pids[0], signal.SIGKILL)


@case(needs=MIGRATION)
def cancel_midway(run):
    def harm(lab, job_id):
        lab.cli("job", "cancel", job_id)
    interrupted(run, harm, ("cancelled",))


@case(needs=MIGRATION)
def source_engine_killed(run):
    interrupted(run, lambda lab, _: kill_program(lab, "h1", "drover-migrate"), ("failed",))


@case(needs=MIGRATION)
def source_engine_killed_tracking_synchronously(run):
    """The guest's writes wait for the engine; its guardian lets them through."""
    interrupted(run, lambda lab, _: kill_program(lab, "h1", "drover-migrate"), ("failed",), "--tracker", "wp-sync")


@case(needs=MIGRATION)
def source_engine_killed_with_its_guardian(run):
    """Nobody is left to let the guest's writes through but the host's daemon."""
    interrupted(run, lambda lab, _: kill_with_guardian(lab, "h1"), ("failed",), "--tracker", "wp-sync")


@case(needs=MIGRATION)
def source_engine_killed_beside_qemus_own_migration(run):
    interrupted(run, lambda lab, _: kill_program(lab, "h1", "drover-migrate"), ("failed",), "--tracker", "qemu")


@case(needs=MIGRATION)
def destination_engine_killed(run):
    interrupted(run, lambda lab, _: kill_program(lab, "h2", "drover-migrate"), ("failed",))


@case(needs=MIGRATION)
def destination_qemu_killed_while_it_is_prepared(run):
    """The preparation is asked for once more, which must not hide why it failed."""
    lab = run.lab
    lab.vm_create("early", host="h1")
    watched = Watched(lab, "early")
    node = lab.hosts["h2"]
    arm(node, "hostd.prepare-spawned", "pause")
    job_id = lab.cli("vm", "migrate", "early", "--to", "h2", "--async").json["id"]
    wait_reached(node, "the incoming QEMU")
    kill_program(lab, "h2", "qemu-system-x86_64")
    disarm(node)
    go_on(node.daemon.pid)
    job = ended(lab, job_id, "failed")
    assert "QEMU" in job["error"]["message"], job["error"]
    assert settled(lab, "early") == "h1"
    watched.check()
    run.note(job["error"]["message"])


@case(needs=MIGRATION)
def destination_qemu_killed(run):
    interrupted(run, lambda lab, _: kill_program(lab, "h2", "qemu-system-x86_64"), ("failed",))


def restart_hosts(*names):
    def harm(lab, _):
        for name in names:
            lab.hosts[name].daemon.kill()
        for name in names:
            lab.hosts[name].daemon.start()
    return harm


@case(needs=MIGRATION)
def source_hostd_killed(run):
    interrupted(run, restart_hosts("h1"), ("succeeded", "failed"))


@case(needs=MIGRATION)
def destination_hostd_killed(run):
    interrupted(run, restart_hosts("h2"), ("succeeded", "failed"))


@case(needs=MIGRATION)
def both_hostds_killed(run):
    interrupted(run, restart_hosts("h1", "h2"), ("succeeded", "failed"))


@case(needs=MIGRATION)
def leader_killed_during_migration(run):
    def harm(lab, _):
        leader = lab.leader()
        lab.controllers[leader].daemon.kill()
        lab.leader()
        lab.controllers[leader].daemon.start()
    interrupted(run, harm, ("succeeded",))


@case(needs=MIGRATION)
def source_qemu_killed(run):
    """The guest itself dies: the move fails, nothing is left, and nobody has started a second one meanwhile."""
    lab = run.lab
    lab.vm_create("mortal", host="h1")
    vm_id = lab.vm("mortal")["id"]
    job_id = begin_held_move(lab, "mortal", "h2")
    kill_program(lab, "h1", "qemu-system-x86_64")
    ended(lab, job_id, "failed")
    until(lambda: sum(len(pids) for pids in lab.qemus(vm_id).values()) <= 1 and lab.residue("h2") == [], 60,
          "nothing left on the destination")
    assert owner(lab, "mortal") in ("h1", "")


@case(needs=MIGRATION)
def refused_before_the_first_byte(run):
    """What cannot work is said at once, names the cause and leaves the VM alone."""
    lab = run.lab
    lab.vm_create("stays", host="h1")
    watched = Watched(lab, "stays")
    for target, status, words in (("h1", 6, "h1"), ("nowhere", 3, "nowhere")):
        result = lab.cli("vm", "migrate", "stays", "--to", target, check=False)
        assert result.status in (1, 2, status), f"{target}: {result.status} {result.stderr}"
        assert words in result.stderr, result.stderr
    watched.check()
    settled(lab, "stays")
