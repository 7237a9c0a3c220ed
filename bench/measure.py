"""One run: a fresh guest, one move, every figure, and the check of what the guest holds. The result always says how it ended:

    intact         moved, and all that the guest keeps is as it must be
    damaged        moved, and it is not (or the guest does not answer any more)
    gave-up        the engine did not move it
    endless        the move did not end within its time
    did-not-start  there was no guest to move, but the same guest runs without what the engine puts into its QEMU
    void           there was no guest to move either way: a fault of the instrument, not counted
"""
import subprocess
import time

import paths  # noqa: F401
from lab.program import until

import trace
from arena import GUEST_ADDRESS
from failures import Endless, Failure
from qemu import Direct, Machine
from watch import Beats, Footprint, machine_busy_s, ours_s

BOOT_TIMEOUT_S = 120
BEAT_TIMEOUT_S = 10
SETTLE_MIN_S = 1.0   # the guest is watched this long after it has moved ...
DISK_BYTES = 64 << 20
INTACT, DAMAGED, GAVE_UP, ENDLESS, NOT_STARTED, VOID = "intact", "damaged", "gave-up", "endless", "did-not-start", "void"
FAULTS = (RuntimeError, OSError, ValueError, subprocess.SubprocessError)


class Terms:
    """What is the same for all runs of a comparison."""

    def __init__(self, memory, max_downtime_ms, timeout_s, baseline_s, settle_max_s):
        self.memory, self.max_downtime_ms, self.timeout_s = memory, max_downtime_ms, timeout_s
        self.baseline_s, self.settle_max_s = baseline_s, settle_max_s


def run(arena, engine, workload, link, terms):
    result = {"outcome": VOID, "error": None}
    closers = []
    try:
        arena.shape(link)
        disk = make_disk(arena) if workload.disk else None
    except FAULTS as error:
        result["error"] = f"no arena: {error}"
        return result
    machine = Machine(terms.memory, f"console=ttyS0 quiet drover.ip={GUEST_ADDRESS}/24 drover.run={workload.run}", workload.image, disk)
    try:
        source, guest = start(arena, engine, machine, workload, closers)
        destination = engine.start(arena, "b", machine, incoming=True)
        closers.append(destination)
        pinger, beats = watch(arena, closers)
        footprint = Footprint()
        closers.append(footprint)
        counter, boot = guest.counter(), guest.boot()
        baseline = watch_baseline(source, beats, terms)
        result.update(vcpu_share=baseline["vcpu_share"], service_share=baseline["service_share"])
    except FAULTS as error:
        close(closers)
        lacking = why_no_guest(arena, machine, workload)
        result.update(outcome=VOID if lacking else NOT_STARTED,
                      error=f"no guest to move: {error}" + (f"; nor without the engine: {lacking}" if lacking else ""))
        return result
    try:
        moved = move(arena, engine, source, destination, terms, pinger, footprint, baseline, result)
        settle(beats, moved, terms, result)
        look_at_traces(pinger, beats, moved, baseline, result)
        check(guest, workload, counter, boot)
        result["outcome"] = INTACT
    except Endless as error:
        result.update(outcome=ENDLESS, error=str(error))
    except Failure as error:
        result.update(outcome=GAVE_UP, error=str(error))
    except FAULTS as error:
        said = destination.last_words()
        result.update(outcome=DAMAGED if result.get("moved") else GAVE_UP,
                      error=f"{error}" + (f"; last on its console: {said}" if said else ""))
    finally:
        close(closers)
    return result


def start(arena, engine, machine, workload, closers):
    """The guest at work, and a connection to it."""
    source = engine.start(arena, "a", machine, incoming=False)
    closers.append(source)
    guest = arena.connect_guest(BOOT_TIMEOUT_S)
    closers.append(guest)
    if guest.ask("load") != workload.run:
        raise RuntimeError(f"the guest does not do {workload.run}: {source.last_words()}")
    return source, guest


def watch(arena, closers):
    pinger = arena.pinger()
    closers.append(pinger)
    beats = Beats(arena.namespaces["fabric"], GUEST_ADDRESS)
    closers.append(beats)
    return pinger, beats


def why_no_guest(arena, machine, workload):
    """Starts the guest in a QEMU without an engine's additions, and watches it as for a move. Why that fails; None: it runs."""
    closers = []
    try:
        start(arena, Direct(), machine, workload, closers)
        pinger, beats = watch(arena, closers)
        until(lambda: beats.samples and pinger.report()["received"], BEAT_TIMEOUT_S, "the guest to be heard")
        return None
    except FAULTS as error:
        return str(error)
    finally:
        close(closers)


def close(things):
    for thing in reversed(things):
        try:
            thing.close()
        except (OSError, ValueError, subprocess.SubprocessError):  # its process is gone already
            pass


def make_disk(arena):
    path = f"{arena.disks}/disk.raw"
    with open(path, "wb") as file:
        file.truncate(DISK_BYTES)
    return path


def watch_baseline(source, beats, terms):
    """How the guest fares before the move. QEMU's other threads serve it, too (the prober's packets, say), which is no cost of moving."""
    begin = time.monotonic()
    whole, vcpus = source.cpu_seconds()
    time.sleep(terms.baseline_s)  # the length of a measurement, not a wait for something
    end = time.monotonic()
    whole_after, vcpus_after = source.cpu_seconds()
    if not beats.samples:
        raise RuntimeError("the guest does not beat")
    return {"begin": begin, "end": end, "service_share": (whole_after - whole - vcpus_after + vcpus) / (end - begin),
            "vcpu_share": (vcpus_after - vcpus) / (end - begin)}


def move(arena, engine, source, destination, terms, pinger, footprint, baseline, result):
    """The move itself, and the figures that end with it. Returns (order, moved_at)."""
    for qemu in (source, destination):
        if qemu.pid:
            footprint.add(qemu.pid)
    allocated = source.ram_allocated()
    wire, cpu = arena.migration_bytes(), [qemu.cpu_seconds() for qemu in (source, destination)]
    pinger.report()
    busy, ours = machine_busy_s(), ours_s(arena.namespaces.values())
    order = time.monotonic()
    said = engine.move(arena, source, destination, terms.max_downtime_ms, terms.timeout_s, footprint)
    elapsed = time.monotonic() - order
    result["moved"] = True
    gone_s = 0.0 if source.pid else source.cpu_seconds()[0]  # of a source that its engine has ended
    foreign_s = machine_busy_s() - busy - ours_s(arena.namespaces.values()) - gone_s + ours
    cpu_after = [qemu.cpu_seconds() for qemu in (source, destination)]
    there, back = (after - before for after, before in zip(arena.migration_bytes(), wire))
    service = sum(after[0] - after[1] - before[0] + before[1] for after, before in zip(cpu_after, cpu))
    moving_cpu_s = max(0.0, service + said["engine_cpu_s"] - baseline["service_share"] * elapsed)
    spare = max(0, destination.ram_allocated() - max(allocated, source.ram_allocated()))
    result["foreign_cores"] = max(0.0, foreign_s / elapsed)
    result.update(total_s=said["moved_at"] - order, reported_ms=said["reported_ms"],
                  reported_total_s=said["reported_total_s"], rounds=said["rounds"],
                  wire_mb=(there + back) / 1e6, wire_back_mb=back / 1e6, classes=said["classes"], allocated_mb=allocated / 1e6,
                  cpu_s=moving_cpu_s, cpu_s_per_gib=moving_cpu_s / (allocated / 2**30),
                  vcpu_s=sum(after[1] - before[1] for after, before in zip(cpu_after, cpu)), engine_cpu_s=said["engine_cpu_s"],
                  extra_ram_mb=(footprint.peak() + spare) / 1e6, said=said["said"])
    return order, said["moved_at"]


def settle(beats, moved, terms, result):
    """Goes on watching until the guest works as before, or for as long as the terms allow."""
    order, moved_at = moved
    end = moved_at + terms.settle_max_s
    time.sleep(SETTLE_MIN_S)  # part of what is measured
    while time.monotonic() < end:
        now, samples = time.monotonic(), list(beats.samples)
        rate = trace.rate_before(samples, order - terms.baseline_s, order)
        silence = trace.longest_gap(samples, order, now)
        if rate <= 0 or trace.recovered_at(samples, silence[1], now, rate) is not None:
            break
        time.sleep(0.1)
    result["watched_s"] = time.monotonic() - moved_at


def look_at_traces(pinger, beats, moved, baseline, result):
    order, _ = moved
    end = time.monotonic()
    seen, samples = pinger.report(), list(beats.samples)
    dark = trace.longest_gap(samples, order, end)
    result.update(blackout_ms=seen["blackout_ms"], heard_ms=(dark[1] - dark[0]) * 1000,
                  dark_sum_ms=sum(span["length_ms"] for span in seen["spans"]), dark_spans=seen["span_count"],
                  pings_lost=seen["lost"], unreported_ms=seen["blackout_ms"] - result["reported_ms"])
    work = trace.disturbance(samples, baseline["begin"], order, dark[1], end)
    if work:
        result.update(work)
        result["timeline"] = trace.timeline(samples, order, baseline["begin"], end, work["rate_before"])


def check(guest, workload, counter, boot):
    """RuntimeError or OSError when the guest is not the one that left, or does not hold what it must."""
    if guest.counter() != counter + 1 or guest.boot() != boot:
        raise RuntimeError("the guest is not the one that left")
    if workload.quiet:
        guest.load(workload.quiet)
    pages = guest.verify()
    if pages != workload.checked_pages:
        raise RuntimeError(f"the guest checked {pages} pages, not {workload.checked_pages}")
    for what in workload.checks:
        if guest.verify(what) == 0:
            raise RuntimeError(f"nothing to check: the load has not used its {what}")
