"""Moving running guests: every load, many times, and the promise of the time they are dark."""
import statistics
import time

from crash import arm, disarm, go_on, wait_reached
from harness import MIGRATION, TRACKERS, case
from watched import PATIENT, Watched, ended, other_host, owner, settled

LOADS = {"idle": "idle", "cpu": "cpu:50", "memory": "mem:5000:64M", "disk": "disk:50"}


def move_under(run, load):
    lab = run.lab
    lab.vm_create("mover", run=LOADS[load], host="h1", disk=True)
    watched, pinger = Watched(lab, "mover"), lab.pinger("mover")
    pinger.report()
    for tracker in TRACKERS:
        target = other_host(lab, owner(lab, "mover"))
        begun = time.monotonic()
        job = lab.migrate("mover", target, "--verify", "--tracker", tracker, *PATIENT)
        took_us = (time.monotonic() - begun) * 1e6
        seen = pinger.report()
        record = job["migration"]
        assert job["state"] == "succeeded" and owner(lab, "mover") == target
        assert record["source_hash"] and record["source_hash"] == record["destination_hash"], record
        assert record["rounds"], "no rounds recorded"
        assert record["tracker"] == tracker, record
        pages = watched.check()
        assert load != "memory" or pages >= 64 * 256, f"only {pages} pages checked"
        if load == "disk":
            assert watched.guest.verify("disk") > 0
        network = record["network_blackout_us"]
        assert 0 < record["blackout_us"] < took_us and 0 <= network < took_us, record  # 0 where nobody told it in time
        run.note(f"{tracker}: dark {seen['blackout_ms']:.0f} ms, engine says {record['blackout_us'] / 1000:.0f}, and "
                 f"{network / 1000:.1f} until the network heard it")
        settled(lab, "mover")
    pinger.stop()


@case(needs=MIGRATION)
def migrate_idle_verified(run):
    move_under(run, "idle")


@case(needs=MIGRATION)
def migrate_under_cpu_load_verified(run):
    move_under(run, "cpu")


@case(needs=MIGRATION)
def migrate_under_memory_load_verified(run):
    move_under(run, "memory")


@case(needs=MIGRATION)
def migrate_under_disk_load_verified(run):
    move_under(run, "disk")


def back_and_forth(run, times):
    lab = run.lab
    lab.vm_create("shuttle", run="cpu:10,mem:1000:32M,disk:10", host="h1", disk=True)
    watched, pinger = Watched(lab, "shuttle"), lab.pinger("shuttle")
    pinger.report()
    dark, engine, total = [], [], []
    for i in range(times):
        job = lab.migrate("shuttle", "h2" if i % 2 == 0 else "h1", *PATIENT)
        dark.append(pinger.report()["blackout_ms"])
        engine.append(job["migration"]["blackout_us"] / 1000)
        total.append(job["migration"]["total_us"] / 1000)
        watched.check()
    watched.guest.verify("disk")
    pinger.stop()
    settled(lab, "shuttle")
    run.note(f"{times} moves: dark p50 {statistics.median(dark):.1f} max {max(dark):.0f} ms, engine p50 "
             f"{statistics.median(engine):.1f} ms, total p50 {statistics.median(total):.0f} ms; no connection lost")


@case(needs=MIGRATION)
def migrate_20_times_back_and_forth(run):
    back_and_forth(run, 20)


DARK_S = 1.5  # of each move, far more than a busy machine can be late by


def move_in_the_dark(lab, vm, *flags):
    """A move whose engine stands still for a while when the guest has stopped; returns the record and the microseconds of that."""
    source = owner(lab, vm)
    node = lab.hosts[source]
    arm(node, "source.stopped", "pause")
    job_id = lab.cli("vm", "migrate", vm, "--to", other_host(lab, source), *flags, "--async").json["id"]
    wait_reached(node, "the guest's stop")
    begun = time.monotonic()
    engine, = lab.programs(source, "drover-migrate")
    time.sleep(DARK_S)  # it is how long that takes that is tested
    dark_us = (time.monotonic() - begun) * 1e6
    disarm(node)
    go_on(engine)
    record = ended(lab, job_id, "succeeded")["migration"]
    settled(lab, vm)
    return record, dark_us


@case(needs=MIGRATION)
def clock_is_right_after_moves(run):
    """Without setting it forward it would be late by every blackout. Where the machine is too busy for the hosts to tell each other the
    time, it is left alone, and the record says so: another move shows what this one did not."""
    lab = run.lab
    lab.vm_create("clock", host="h1")
    guest = lab.guest("clock")
    complaints = guest.complaints()
    for flags in (("precopy",), ("precopy", "--verify"), ("postcopy",), ("hybrid",)):
        for _ in range(5):
            before = guest.clock_ahead_ms()
            record, dark_us = move_in_the_dark(lab, "clock", "--mode", *flags)
            late_ms, left = before - guest.clock_ahead_ms(), record["clock_left"]
            assert not left or "does not say when" in left, record
            assert left or (record["clock_forward_us"] >= dark_us and abs(late_ms) < dark_us / 2000), (late_ms, dark_us, record)
            # What it stood still besides is the hashing, or most of it: that counts, too.
            if not left and ("--verify" not in flags or abs(late_ms) < (record["blackout_us"] - dark_us) / 2000):
                break
        else:
            raise AssertionError(f"{flags}: {late_ms} ms late after {dark_us} us in the dark, five times: {record}")
        run.note(f"{' '.join(flags)}: late by {late_ms:.1f} ms after {record['blackout_us'] / 1000:.0f}")
    assert guest.complaints() == complaints, guest.complaints()
    record = lab.migrate("clock", other_host(lab, owner(lab, "clock")), "--tracker", "qemu", *PATIENT)["migration"]
    assert not record["clock_forward_us"] and record["clock_left"], record
    settled(lab, "clock")


@case(needs=MIGRATION)
def migrate_to_where_placement_decides(run):
    lab = run.lab
    lab.vm_create("placed", host="h1")
    watched = Watched(lab, "placed")
    lab.cli("vm", "migrate", "placed")
    assert owner(lab, "placed") in ("h2", "h3")
    watched.check()


@case(needs=MIGRATION)
def several_migrations_at_once(run):
    lab = run.lab
    guests = {}
    for name, host in (("left", "h1"), ("right", "h2")):
        lab.vm_create(name, host=host)
        guests[name] = Watched(lab, name)
    jobs = [lab.cli("vm", "migrate", name, "--to", host, "--async").json["id"]
            for name, host in (("left", "h2"), ("right", "h1"))]
    for job_id in jobs:
        job = lab.job_wait(job_id)
        assert job["state"] == "succeeded", job
    for name, host in (("left", "h2"), ("right", "h1")):
        guests[name].check()
        assert owner(lab, name) == host
