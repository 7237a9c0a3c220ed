"""Disks that move to another file while the guest writes to them."""
import json
import os
import shutil
import subprocess

from harness import MIGRATION, case
from lab.program import until
from watched import HELD, PATIENT, ended, settled, wait_phase

MiB = 1 << 20
SIZE, FILLED = 64 * MiB, 20 * MiB


def image_tool(*arguments):
    return subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True).stdout


def make_disk(lab, name):
    """A raw disk whose first 16 MiB the guest will write to; data behind that, then a hole."""
    path = f"{lab.directory}/disks/{name}.raw"
    with open(path, "wb") as file:
        file.truncate(SIZE)
        file.seek(16 * MiB)
        file.write(os.urandom(FILLED - 16 * MiB))
    return path


def guest_on(lab, name, disk, load="disk:200", host="h1"):
    lab.vm_create(name, run=load, host=host, extra=("--disk", disk))
    return lab.guest(name)


def disk_of(lab, name):
    return lab.vm(name)["spec"]["disks"][0]


def move(lab, name, to, *flags, **options):
    return lab.cli("vm", "move-storage", name, "--to", to, *flags, **options)


def files(directory):
    return sorted(os.listdir(directory))


def allocated(path):
    return os.stat(path).st_blocks * 512


@case()
def storage_moves_while_the_guest_writes(run):
    lab = run.lab
    own = lab.hosts["h1"].disks
    old = make_disk(lab, "web")
    guest = guest_on(lab, "web", old)
    # Into a directory, sparse as it was; then into the other format; then what stands alone again.
    for to, flags, path, form in ((f"{own}/", (), f"{own}/web.raw", "raw"),
                                  (f"{own}/web.qcow2", ("--format", "qcow2"), f"{own}/web.qcow2", "qcow2"),
                                  (f"{own}/again.qcow2", (), f"{own}/again.qcow2", "qcow2")):
        before = disk_of(lab, "web")["path"]
        job = move(lab, "web", to, *flags).json
        assert job["state"] == "succeeded", job
        now = disk_of(lab, "web")
        assert (now["path"], now["format"]) == (path, form), now
        assert not os.path.exists(before), f"{before} is left"
        assert allocated(path) < 30 * MiB, f"{allocated(path) >> 20} MiB of room for {FILLED >> 20} MiB of data"
        assert guest.verify("disk") > 0
    assert files(own) == ["again.qcow2"], files(own)
    # A quiet guest's old file, kept, is what the new one is.
    guest.load("idle")
    blocks = guest.verify("disk")
    move(lab, "web", f"{own}/last.raw", "--format", "raw", "--keep")
    assert guest.verify("disk") == blocks
    pause = [line for line in open(lab.hosts["h1"].daemon.log) if "event=storage.ended" in line]
    run.note(f"{blocks} blocks; stood still {', '.join(line.split('pause_us=')[1].split()[0] for line in pause)} us")
    lab.cli("vm", "stop", "web", "--force")
    image_tool("compare", "-f", "qcow2", "-F", "raw", f"{own}/again.qcow2", f"{own}/last.raw")
    # It starts from where its definition says.
    lab.cli("vm", "start", "web", "--host", "h1")
    lab.guest_wait("web").close()
    lab.vm_delete("web")
    for name in files(own):
        os.unlink(f"{own}/{name}")


def begin_slow_move(lab, name, to, *flags):
    """Starts a move that takes seconds, and waits until QEMU copies."""
    job_id = move(lab, name, to, "--bandwidth", "2M", "--async", *flags).json["id"]
    until(lambda: lab.progress(job_id)["raw_bytes"] > 0, 60, "the copying to begin")
    return job_id


@case()
def storage_moves_that_are_struck(run):
    lab = run.lab
    own = lab.hosts["h1"].disks
    old = make_disk(lab, "struck")
    guest = guest_on(lab, "struck", old, "disk:50")
    # Refused before anything is made.
    for to, word in (("/var/tmp/elsewhere.raw", "storage.directory"), (f"{own}/../keys/x.raw", "'..'"), (old, "exists"),
                     (f"{own}/none/x.raw", "No such file")):
        refused = move(lab, "struck", to, check=False, form=None)
        assert refused.status != 0 and word in refused.stderr, refused.stderr
    assert disk_of(lab, "struck")["path"] == old and files(own) == []

    job_id = begin_slow_move(lab, "struck", f"{own}/")
    lab.cli("job", "cancel", job_id)
    ended(lab, job_id, "cancelled")
    assert disk_of(lab, "struck")["path"] == old and files(own) == []
    assert guest.verify("disk") > 0

    # The daemon and the leader may go and come back: QEMU copies by itself.
    job_id = begin_slow_move(lab, "struck", f"{own}/")
    lab.hosts["h1"].daemon.kill()
    leader = lab.controllers[lab.leader()].daemon
    leader.kill()
    lab.hosts["h1"].daemon.start()
    lab.leader()
    leader.start()
    job = lab.job_wait(job_id)
    assert job["state"] == "succeeded", job
    assert disk_of(lab, "struck")["path"] == f"{own}/struck.raw" and files(own) == ["struck.raw"], files(own)
    assert not os.path.exists(old) and guest.verify("disk") > 0

    # QEMU takes the guest with it; the definition names the file that has everything, and the VM starts from it.
    job_id = begin_slow_move(lab, "struck", f"{lab.directory}/disks/")
    os.kill(lab.qemus()["h1"][0], 9)
    job = lab.job_wait(job_id)
    assert job["state"] == "failed", job
    assert disk_of(lab, "struck")["path"] == f"{own}/struck.raw" and files(own) == ["struck.raw"]
    assert not os.path.exists(old) and not [name for name in files(f"{lab.directory}/disks") if "partial" in name]
    until(lambda: not lab.vm("struck")["owner"], 60, "the VM to be known as stopped")
    lab.cli("vm", "start", "struck", "--host", "h1")
    lab.guest_wait("struck").close()
    lab.vm_delete("struck")
    os.unlink(f"{own}/struck.raw")


@case()
def a_directory_made_anew_keeps_no_job_for_ever(run):
    """The guest goes on with the file that it has; where nobody can know which that was, the job says so, and somebody decides."""
    lab = run.lab
    node, old, new = lab.hosts["h1"], make_disk(lab, "anew"), f"{lab.hosts['h1'].disks}/fast"
    guest = guest_on(lab, "anew", old, "disk:50")

    def make_anew(aside):
        os.rename(new, f"{new}-{aside}")
        os.mkdir(new)

    # While the guest runs its host knows.
    os.mkdir(new)
    job_id = begin_slow_move(lab, "anew", f"{new}/")
    make_anew("first")
    job = lab.job_wait(job_id)
    assert job["state"] == "failed" and "No such file" in job["error"]["message"], job
    assert disk_of(lab, "anew")["path"] == old and files(new) == [] and guest.verify("disk") > 0

    # It is dead, and its host has lost what it had written down.
    job_id = begin_slow_move(lab, "anew", f"{new}/")
    node.daemon.kill()
    os.kill(lab.qemus()["h1"][0], 9)
    make_anew("second")
    shutil.rmtree(f"{node.directory}/partitions")
    node.daemon.start()
    way_out = f"drover job cancel {job_id} --disk FILE"
    until(lambda: way_out in lab.job(job_id).get("waiting", ""), 60, "the job to say what it waits for")
    for verb in (("list",), ("show", job_id)):
        assert way_out in lab.cli("job", *verb, form=None).stdout
    refused = lab.cli("job", "cancel", job_id, "--disk", "/elsewhere", check=False, form=None)
    assert refused.status != 0 and old in refused.stderr, refused
    lab.cli("job", "cancel", job_id, "--disk", old)
    assert lab.job(job_id)["state"] == "cancelled" and disk_of(lab, "anew")["path"] == old
    assert [name for name in files(f"{new}-second") if name.endswith(".partial")], "something was removed"
    until(lambda: not lab.vm("anew")["owner"], 60, "the VM to be known as stopped")
    lab.cli("vm", "start", "anew", "--host", "h1")  # also finds the tap again that no record names
    lab.guest_wait("anew").close()
    lab.vm_delete("anew")
    os.unlink(old)
    for name in files(node.disks):
        shutil.rmtree(f"{node.disks}/{name}")


@case(needs=MIGRATION)
def migrates_with_its_disks(run):
    """Nothing is shared: the definition names the destination's file from the moment the destination owns the VM."""
    lab = run.lab
    old = f"{lab.hosts['h1'].disks}/nomad.raw"
    os.rename(make_disk(lab, "nomad"), old)
    guest = guest_on(lab, "nomad", old, "disk:100,mem:500:16M")
    there, here = lab.hosts["h2"].disks, lab.hosts["h1"].disks

    # Cancelled while disks are copied, then cut off: the guest stays with its own, and nothing is left there.
    for strike in ("cancel", "kill"):
        job_id = lab.cli("vm", "migrate", "nomad", "--to", "h2", "--with-storage", "--storage-to", there, *HELD,
                         "--async").json["id"]
        wait_phase(lab, job_id, "disks", "precopy")
        if strike == "cancel":
            lab.cli("job", "cancel", job_id)
        else:
            os.kill(lab.programs("h2", "drover-migrate")[0], 9)
        ended(lab, job_id, "cancelled", "failed")
        settled(lab, "nomad")
        assert disk_of(lab, "nomad")["path"] == old and files(here) == ["nomad.raw"]
        until(lambda: files(there) == [], 60, f"nothing left in {there}")
        assert guest.verify("disk") > 0 and guest.verify() > 0

    job = lab.migrate("nomad", "h2", "--with-storage", "--storage-to", there, "--verify", *PATIENT)
    assert job["state"] == "succeeded", job
    settled(lab, "nomad")
    assert disk_of(lab, "nomad")["path"] == f"{there}/nomad.raw" and files(there) == ["nomad.raw"] and files(here) == []
    assert guest.verify("disk") > 0 and guest.verify() > 0
    assert allocated(f"{there}/nomad.raw") < 30 * MiB
    assert FILLED - 16 * MiB <= job["migration"]["disk_bytes"] < SIZE and job["migration"]["disk_us"] > 0, job["migration"]
    run.note(f"{job['migration']['total_us'] / 1000:.0f} ms, blackout {job['migration']['blackout_us'] / 1000:.0f} ms")
    # And back, the old file kept this time; the quiet guest's two files are equal.
    guest.load("idle")
    blocks = guest.verify("disk")
    lab.migrate("nomad", "h1", "--with-storage", "--storage-to", here, "--keep-source", *PATIENT)
    assert guest.verify("disk") == blocks
    lab.vm_delete("nomad")
    image_tool("compare", "-f", "raw", "-F", "raw", f"{there}/nomad.raw", f"{here}/nomad.raw")
    os.unlink(f"{there}/nomad.raw")
    os.unlink(f"{here}/nomad.raw")


def backing_of(path):
    return json.loads(image_tool("info", "-U", "--output=json", path)).get("full-backing-filename")


@case(needs=MIGRATION)
def disks_with_a_base_move(run):
    """A thin disk stays thin where it is asked to; to another host, which may not reach the base, it goes whole."""
    lab = run.lab
    here, there, base = lab.hosts["h1"].disks, lab.hosts["h2"].disks, f"{lab.directory}/disks/base.qcow2"
    raw = make_disk(lab, "base")
    image_tool("convert", "-f", "raw", "-O", "qcow2", raw, base)
    os.unlink(raw)
    image_tool("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", f"{here}/thin.qcow2")
    guest = guest_on(lab, "thin", f"{here}/thin.qcow2,format=qcow2", "disk:100")

    job = move(lab, "thin", f"{here}/still.qcow2", "--shallow").json
    assert job["state"] == "succeeded", job
    assert files(here) == ["still.qcow2"] and backing_of(f"{here}/still.qcow2") == base
    assert guest.verify("disk") > 0

    guest.load("idle")
    blocks = guest.verify("disk")
    lab.migrate("thin", "h2", "--with-storage", "--storage-to", there, "--keep-source", *PATIENT)
    settled(lab, "thin")
    assert disk_of(lab, "thin")["path"] == f"{there}/still.qcow2" and backing_of(f"{there}/still.qcow2") is None
    assert guest.verify("disk") == blocks
    lab.vm_delete("thin")
    image_tool("compare", "-f", "qcow2", "-F", "qcow2", f"{here}/still.qcow2", f"{there}/still.qcow2")
    for path in (base, f"{here}/still.qcow2", f"{there}/still.qcow2"):
        os.unlink(path)


@case(needs=MIGRATION)
def a_guest_goes_on_when_its_full_storage_has_room_again(run):
    """QEMU stops a guest whose storage is full: everybody who looks sees why, and nobody has to do anything but make room."""
    lab = run.lab
    small = f"{lab.directory}/disks/small"
    os.makedirs(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        node = lab.hosts["h1"]
        node.daemon.stop()  # one that pretends to have booted has mounts of its own, made when it starts
        node.daemon.start()
        lab.wait_hosts()
        with open(f"{small}/web.raw", "wb") as file:
            file.truncate(SIZE)
        guest_on(lab, "full", f"{small}/web.raw", "idle").tell("load disk:400")  # not before it answers: it soon will not
        halted = until(lambda: lab.vm("full")["halted"], 60, "the guest to stand still")
        assert f"the storage of its disk {small}/web.raw is full" == halted, halted
        for flags in (("--to", "h2"), ("--to", "h2", "--dry-run")):
            refused = lab.cli("vm", "migrate", "full", *flags, check=False, form=None)
            assert refused.status != 0 and "is full" in refused.stderr, refused
        node.daemon.kill()  # one that did not see it happen knows too
        node.daemon.start()
        until(lambda: lab.vm("full")["halted"] == halted, 60, "the reason to be known again")
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        until(lambda: not lab.vm("full")["halted"] and lab.vm("full")["state"] == "running", 60, "the guest to go on")
        assert lab.guest("full").verify("disk") > 0
        lab.vm_delete("full")
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
