"""The migration engine by itself, with the guest's disk: nothing is shared between the two hosts."""
import json
import os
import signal
import subprocess

from bare import Side, move
from harness import MIGRATION, case
from lab.program import until

MEMORY_MIB = 192
HELD = ("limits", "bandwidth = 1M")  # so that it is not over before it is struck


def with_disk(path, form):
    return ["-blockdev", json.dumps({"driver": form, "node-name": "disk0", "discard": "unmap",
                                     "file": {"driver": "file", "filename": path, "discard": "unmap"}}),
            "-device", "virtio-blk-pci,id=vdisk0,drive=disk0"]


@case(needs=MIGRATION, own_lab=True)
def engine_alone_moves_disks(run):
    """Nothing is shared: the disk goes the same way as memory, out of one format into the other, while the guest writes."""
    with run.new_lab(hosts=2, controllers=0) as lab:
        disks = {"h1": (f"{lab.hosts['h1'].disks}/a.qcow2", "qcow2"), "h2": (f"{lab.hosts['h2'].disks}/b.raw", "raw")}
        for path, form in disks.values():
            subprocess.run(["qemu-img", "create", "-q", "-f", form, path, "64M"], check=True)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 20M 8M", disks["h1"][0]], check=True, capture_output=True)
        source = Side(lab, "h1", MEMORY_MIB, "disk:200,mem:500:16M", incoming=False, devices=with_disk(*disks["h1"]))
        guest = lab.guest_wait("bare")

        # What the guest writes waits for a destination that does nothing, but not for ever.
        keys = [("storage", "disks = 0")]
        destination = move(lab, source, "h2", MEMORY_MIB, "idle", keys=[*keys, HELD],
                           devices=with_disk(*disks["h2"]))
        until(lambda: any(job["offset"] for job in source.command("query-block-jobs")), 60, "the disk to be copied")
        destination.qemu.send_signal(signal.SIGSTOP)
        failed = source.event("done", "failed")
        assert "has done nothing for 10 s" in failed["message"] and source.engine.wait(60) == 1, failed
        destination.end()
        before = guest.verify("disk")
        until(lambda: guest.verify("disk") > before, 60, "the guest to write on")

        # Cut off while disks are copied: the guest writes on, to its own.
        destination = move(lab, source, "h2", MEMORY_MIB, "idle", keys=[*keys, HELD], devices=with_disk(*disks["h2"]))
        while source.event("phase")["phase"] != "disks":
            pass
        destination.engine.kill()
        failed = source.event("done", "failed")
        assert failed["event"] == "failed" and source.engine.wait(60) == 1, failed
        destination.end()
        assert guest.verify("disk") > 0
        before = guest.verify("disk")

        destination = move(lab, source, "h2", MEMORY_MIB, "idle", keys=keys, devices=with_disk(*disks["h2"]))
        done = source.event("done", "failed")
        assert done["event"] == "done", done
        record = done["record"]
        assert destination.event("done", "failed")["event"] == "done"
        assert record["source_hash"] == record["destination_hash"], record
        assert guest.verify("disk") >= before
        # What the guest had written when it left is there: the rest of the two is equal, too.
        guest.load("idle")
        source.end()
        assert guest.verify("disk") >= before
        allocated = os.stat(disks["h2"][0]).st_blocks * 512
        assert allocated < 32 << 20, f"{allocated >> 20} MiB for 24 MiB of data"
        run.note(f"{record['total_us'] / 1000:.0f} ms, blackout with hashing {record['blackout_us'] / 1000:.0f} ms")
        destination.end()
        found = subprocess.run(["qemu-io", "-f", "raw", "-c", "read -P 7 20M 8M", disks["h2"][0]], check=True,
                               capture_output=True, text=True).stdout
        assert "verification failed" not in found, found
