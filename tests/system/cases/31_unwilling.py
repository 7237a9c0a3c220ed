"""A QEMU that is silent, hangs, refuses or dies just when its host is to have its guest go on: a guest is not ended for being unwilling
to say that it runs."""
import json
import os
import signal
import socket

from crash import HeldDisk, HeldThread, arm, disarm, go_on, wait_reached
from harness import MIGRATION, case
from lab.program import until
from watched import PATIENT, Watched, begin_held_move, ended, settled

MIGRATION_THREADS = ("mig/src/main", "live_migration")  # of QEMU 10 and of older ones


def kill_engine(lab, host):
    engine, = lab.programs(host, "drover-migrate")
    os.kill(engine, signal.SIGKILL)
    return engine


def told(lab, job_id, *words):
    """The move has ended, and the user has been told what is known and what can be done."""
    job = ended(lab, job_id, "failed")
    for word in ("has not been seen to run it", "vm stop --force", *words):
        assert word in job["error"]["message"], job["error"]


@case(needs=MIGRATION)
def silent_qemu_is_asked_on_until_it_dies(run):
    lab = run.lab
    lab.vm_create("mute", run="mem:500:16M", host="h1")
    watched = Watched(lab, "mute")
    vm_id = lab.vm("mute")["id"]
    qemu, = lab.programs("h1", "qemu-system-x86_64")

    job_id = begin_held_move(lab, "mute", "h2")
    os.kill(qemu, signal.SIGSTOP)
    kill_engine(lab, "h1")
    told(lab, job_id)
    until(lambda: lab.qemus(vm_id) == {"h1": [qemu]}, 60, "nothing on the destination")
    os.kill(qemu, signal.SIGCONT)
    assert settled(lab, "mute") == "h1"
    watched.check()

    job_id = begin_held_move(lab, "mute", "h2")
    os.kill(qemu, signal.SIGSTOP)
    engine = kill_engine(lab, "h1")
    until(lambda: engine not in lab.programs("h1", "drover-migrate") and not lab.programs("h1", "drover-migrate"), 60, "it to be asked")
    os.kill(qemu, signal.SIGKILL)
    job = ended(lab, job_id, "failed")
    assert job["error"]["message"], job
    until(lambda: not lab.qemus(vm_id) and not lab.vm("mute")["owner"], 60, "the end of the VM")
    lab.forget_connections()
    lab.cli("vm", "start", "mute", "--host", "h1")


def stop_guest(node, vm_id):
    """Has QEMU stop the guest, over the monitor of the engine, which is dead."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(f"{node.directory}/partitions/{vm_id}/qmp-engine.sock")
        lines = monitor.makefile("rw")
        for command in ("qmp_capabilities", "stop"):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            while "return" not in json.loads(lines.readline()):
                pass


@case(needs=MIGRATION)
def hanging_migration_is_told_and_ends(run):
    """QEMU answers, but does not come out of the migration that is called off, and the guest stands still."""
    lab = run.lab
    lab.vm_create("hung", run="mem:500:16M", host="h1")
    watched = Watched(lab, "hung")
    job_id = begin_held_move(lab, "hung", "h2", "--tracker", "qemu")
    qemu, = lab.programs("h1", "qemu-system-x86_64")
    with HeldThread(qemu, *MIGRATION_THREADS):
        kill_engine(lab, "h1")
        stop_guest(lab.hosts["h1"], lab.vm("hung")["id"])
        told(lab, job_id, "cancelling")
    assert settled(lab, "hung") == "h1"
    watched.check()
    lab.migrate("hung", "h2", *PATIENT)
    watched.check()


@case(needs=MIGRATION)
def guest_that_is_refused_goes_on_where_it_was(run):
    """The destination's QEMU cannot open the disk: the guest, which has not run there, is given back, by pre-copy and by post-copy. Where
    its own QEMU cannot have it back either, it is asked on and on, and the guest goes on as soon as it can."""
    lab = run.lab
    lab.vm_create("locked", run="mem:500:16M", host="h1", disk=True)
    watched = Watched(lab, "locked")
    disk = lab.vm("locked")["spec"]["disks"][0]["path"]
    source, far = lab.hosts["h1"], lab.hosts["h2"]
    qemu, = lab.programs("h1", "qemu-system-x86_64")

    arm(far, "destination.returning", "pause")
    with HeldDisk(disk):
        job_id = lab.cli("vm", "migrate", "locked", "--to", "h2", *PATIENT, "--async").json["id"]
        wait_reached(far, "the refusal")
    disarm(far)
    engines = lab.programs("h2", "drover-migrate")
    for engine in engines:
        os.mkdir(f"{far.directory}/partitions/{lab.vm('locked')['id']}/engine.record.{engine}.tmp")  # no new record can be written
    go_on(*engines)
    job = ended(lab, job_id, "failed")
    assert "lock" in job["error"]["message"], job
    assert settled(lab, "locked") == "h1"
    watched.check()

    arm(source, "source.failing")
    with HeldDisk(disk):
        job_id = lab.cli("vm", "migrate", "locked", "--to", "h2", "--mode", "postcopy", "--async").json["id"]
        wait_reached(source, "the guest to be given back")
        disarm(source)
        told(lab, job_id, "lock")
        until(lambda: lab.qemus(lab.vm("locked")["id"]) == {"h1": [qemu]}, 60, "nothing on the destination")
    assert settled(lab, "locked") == "h1"
    watched.check()
    lab.migrate("locked", "h2", *PATIENT)
    watched.check()
