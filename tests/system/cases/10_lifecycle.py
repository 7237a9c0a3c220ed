"""Creating, starting, stopping and deleting VMs."""
import os
import signal
import subprocess

from harness import case
from lab.lab import MiB
from lab.program import until
from watched import settled


@case()
def vm_create_start_stop_delete(run):
    lab = run.lab
    lab.vm_create("plain", disk=True, start=False)
    vm = lab.vm("plain")
    assert vm["desired"] == "stopped" and lab.qemus(vm["id"]) == {}, vm
    lab.cli("vm", "start", "plain", "--host", "h2")
    guest = lab.guest_wait("plain")
    assert settled(lab, "plain") == "h2"
    assert list(lab.qemus(vm["id"])) == ["h2"]
    boot = guest.boot()

    # The guest is asked first: it says on its console that it powers off.
    lab.cli("vm", "stop", "plain")
    assert lab.qemus(vm["id"]) == {}
    assert lab.residue("h2") == [], lab.residue("h2")
    assert lab.vm("plain")["desired"] == "stopped"

    lab.cli("vm", "start", "plain", "--host", "h3")
    assert lab.guest_wait("plain").boot() != boot
    lab.cli("vm", "stop", "plain", "--force")
    lab.cli("vm", "delete", "plain")
    assert "plain" not in [vm["spec"]["name"] for vm in lab.vm_list()]
    assert lab.residue("h3") == [], lab.residue("h3")


@case()
def guest_that_powers_off_stops(run):
    lab = run.lab
    lab.vm_create("leaves", host="h1")
    vm_id = lab.vm("leaves")["id"]
    until(lambda: "drover-guest: ready" in lab.cli("vm", "console", "leaves", "--log", form=None).stdout, 60, "its first words")
    lab.guest("leaves").tell("poweroff")
    until(lambda: lab.qemus(vm_id) == {} and lab.residue("h1") == [], 60, "the partition to end")
    until(lambda: lab.vm("leaves")["state"] in ("stopped", "none"), 60, "the stop to be known")
    end = until(lambda: lab.vm("leaves").get("last_end"), 60, "how it ended")
    assert (end["why"], end["host"]) == ("the guest shut down", "h1") and int(end["at_ms"]) > 0, end

    lab.cli("vm", "start", "leaves", "--host", "h2")
    os.kill(lab.qemus(vm_id)["h2"][0], signal.SIGKILL)
    end = until(lambda: [e for e in [lab.vm("leaves").get("last_end")] if e and e["host"] == "h2"], 60, "how it ended again")[0]
    assert "signal 9" in end["why"], end
    leader = lab.leader()
    lab.controllers[leader].daemon.kill()  # the log has it, not the leader's memory
    assert "QEMU was ended by signal 9" in lab.cli("vm", "show", "leaves", form=None).stdout
    lab.controllers[leader].daemon.start()


@case()
def console_reaches_the_guests_shell(run):
    lab = run.lab
    lab.vm_create("talks", host="h2")
    with lab.console("talks") as console:
        console.type("echo drover-$((6*7))\n")
        console.expect("drover-42")


@case()
def placement_spreads_new_vms(run):
    lab = run.lab
    for name in ("a", "b", "c"):
        lab.vm_create(name, wait=False)
    owners = {lab.vm(name)["owner"] for name in ("a", "b", "c")}
    assert len(owners) >= 2, f"all on {owners}"


@case()
def guests_are_not_promised_memory_that_is_not_there(run):
    """Where the file system of the RAM files is full, a guest that touches its memory is killed by SIGBUS."""
    lab = run.lab
    directory = lab.hosts["h2"].memory_directory
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=224m", "tmpfs", directory], check=True)
    try:
        lab.vm_create("first", host="h2", memory=128 * MiB)
        lab.vm_create("second", host="h2", memory=128 * MiB, start=False)
        refused = lab.cli("vm", "start", "second", "--host", "h2", check=False)
        assert refused.status != 0 and "remount" in refused.stderr, refused
        subprocess.run(["mount", "-o", "remount,size=300m", directory], check=True)
        lab.cli("vm", "start", "second", "--host", "h2")
        for name in ("first", "second"):
            lab.cli("vm", "stop", name, "--force")
            lab.cli("vm", "delete", name)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
