"""Exact under every writer: what leaves no trace in page tables must arrive all the same."""
import contextlib
import json
import os
import threading

from bare import Side, move
from harness import MIGRATION, case
from lab.program import until

MEMORY_MIB = 192
BALLOON = ("-device", "virtio-balloon-pci,free-page-reporting=on,id=balloon")
BLKIO = "/sys/fs/cgroup/blkio"


def direct_disk(lab):
    """QEMU's options for a disk that is read past the page cache, by the kernel's own asynchronous I/O."""
    image = f"{lab.directory}/disks/bare.raw"
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    file = {"driver": "file", "filename": image, "node-name": "file", "aio": "native", "cache": {"direct": True}}
    node = {"driver": "raw", "file": "file", "node-name": "disk", "cache": {"direct": True}}
    return ("-blockdev", json.dumps(file), "-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=disk")


@contextlib.contextmanager
def slow_reads(lab, bytes_per_s):
    """Yields a function that has a QEMU read from its disk no faster than that: the kernel then holds requests back after it has
    pinned their pages, for 100 ms and more. Without the controller disks are as fast as they are."""
    group, device = f"{BLKIO}/{lab.id}", os.stat(lab.directory).st_dev
    usable = os.path.isdir(BLKIO)
    if usable:
        os.mkdir(group)
        with open(f"{group}/blkio.throttle.read_bps_device", "w") as file:
            file.write(f"{os.major(device)}:{os.minor(device)} {bytes_per_s}")

    def slow_down(side):
        for thread in os.listdir(f"/proc/{side.qemu.pid}/task") if usable else ():
            with open(f"{group}/tasks", "w") as file:
                file.write(thread)
    try:
        yield slow_down
    finally:
        if usable:
            os.rmdir(group)


def moved(source, destination, before_end=lambda: None):
    record = source.event("done", "failed")
    before_end()
    assert record["event"] == "done", record
    record = record["record"]
    assert record["source_hash"] and record["source_hash"] == record["destination_hash"], record
    assert destination.event("done", "failed")["event"] == "done"
    source.engine.wait(10)
    source.end()
    return record


def let_go(side):
    """Has the balloon give the guest all of its memory back: the move may have ended at any of its sizes."""
    side.command("balloon", value=MEMORY_MIB << 20)
    until(lambda: side.command("query-balloon")["actual"] == MEMORY_MIB << 20, 20, "the balloon let go")


@case(deadline=120, needs=MIGRATION, own_lab=True)
def direct_io_leaves_nothing_behind(run):
    """Reads under way while their pages are scanned and sent; without the drain barrier this fails at the first move."""
    with run.new_lab(hosts=2, controllers=0) as lab, slow_reads(lab, 6 << 20) as slow_down:
        load, disk = "read:400", direct_disk(lab)
        side = Side(lab, "h1", MEMORY_MIB, load, incoming=False, devices=disk)
        guest, rounds = lab.guest_wait("bare"), []
        for host in ("h2", "h1"):
            slow_down(side)
            destination = move(lab, side, host, MEMORY_MIB, load, devices=disk)
            rounds.append(len(moved(side, destination)["rounds"]))
            side = destination
            assert guest.verify("read") == 4 * 12 * 64 and guest.counter()
        side.end()
        run.note(f"rounds {rounds}")


@case(deadline=120, needs=MIGRATION, own_lab=True)
def balloon_leaves_nothing_behind(run):
    """The guest frees memory, and takes it back, while it moves: by its balloon, and by reporting free pages."""
    with run.new_lab(hosts=2, controllers=0) as lab:
        load, sizes = "mem:500:32M", (100, MEMORY_MIB, 120, 150, MEMORY_MIB)
        side = Side(lab, "h1", MEMORY_MIB, load, incoming=False, devices=BALLOON)
        guest, left = lab.guest_wait("bare"), []
        for host in ("h2", "h1"):
            let_go(side)
            guest.load("mem:500:90M")
            guest.load(load)  # 58 MiB are free again, and are reported within 2 s
            destination = move(lab, side, host, MEMORY_MIB, load, devices=BALLOON)
            over = threading.Event()

            def breathe(side=side, over=over):
                for size in sizes:
                    side.command("balloon", value=size << 20)
                    if over.wait(0.05):
                        break
            breathing = threading.Thread(target=breathe)
            breathing.start()
            moved(side, destination, lambda: (over.set(), breathing.join()))
            side = destination
            left.append(os.stat(side.ram).st_blocks * 512 >> 20)
            assert guest.verify() == 32 * 256 and guest.counter()
        side.end()
        run.note(f"allocated after the moves {left} MiB of {MEMORY_MIB}")
