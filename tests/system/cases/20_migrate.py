"""Moving running guests: every load, many times, and the promise of the time they are dark."""
import statistics

from harness import MIGRATION, TRACKERS, case
from watched import Watched, other_host, owner, settled

LOADS = {"idle": "idle", "cpu": "cpu:50", "memory": "mem:5000:64M", "disk": "disk:50"}


def move_under(run, load):
    lab = run.lab
    lab.vm_create("mover", run=LOADS[load], host="h1", disk=True)
    watched, pinger = Watched(lab, "mover"), lab.pinger("mover")
    pinger.report()
    for tracker in TRACKERS:
        target = other_host(lab, owner(lab, "mover"))
        job = lab.migrate("mover", target, "--verify", "--tracker", tracker)
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
        # 0 where nobody told it in time; else the pinger heard the guest then or later, give or take a busy machine.
        assert network / 1000 < seen["blackout_ms"] + 1000, (seen, record)
        run.note(f"{tracker}: dark {seen['blackout_ms']:.0f} ms, engine says {record['blackout_us'] / 1000:.0f}, and "
                 f"{network / 1000:.1f} until the network heard it")
        settled(lab, "mover", 10)
    pinger.stop()


@case(deadline=120, needs=MIGRATION)
def migrate_idle_verified(run):
    move_under(run, "idle")


@case(deadline=120, needs=MIGRATION)
def migrate_under_cpu_load_verified(run):
    move_under(run, "cpu")


@case(deadline=120, needs=MIGRATION)
def migrate_under_memory_load_verified(run):
    move_under(run, "memory")


@case(deadline=120, needs=MIGRATION)
def migrate_under_disk_load_verified(run):
    move_under(run, "disk")


def back_and_forth(run, times):
    lab = run.lab
    lab.vm_create("shuttle", run="cpu:10,mem:1000:32M,disk:10", host="h1", disk=True)
    watched, pinger = Watched(lab, "shuttle"), lab.pinger("shuttle")
    pinger.report()
    dark, engine, total = [], [], []
    for i in range(times):
        job = lab.migrate("shuttle", "h2" if i % 2 == 0 else "h1")
        dark.append(pinger.report()["blackout_ms"])
        engine.append(job["migration"]["blackout_us"] / 1000)
        total.append(job["migration"]["total_us"] / 1000)
        watched.check()
    watched.guest.verify("disk")
    pinger.stop()
    settled(lab, "shuttle", 10)
    run.note(f"{times} moves: dark p50 {statistics.median(dark):.1f} max {max(dark):.0f} ms, engine p50 "
             f"{statistics.median(engine):.1f} ms, total p50 {statistics.median(total):.0f} ms; no connection lost")


@case(deadline=300, needs=MIGRATION)
def migrate_20_times_back_and_forth(run):
    back_and_forth(run, 20)


@case(deadline=120, needs=MIGRATION)
def clock_is_right_after_moves(run):
    """Without setting it forward it would be late by all blackouts together. How exact that is depends on how busy the machine
    is, and so do they."""
    lab = run.lab
    lab.vm_create("clock", host="h1")
    guest = lab.guest("clock")
    before, complaints = guest.clock_ahead_ms(), guest.complaints()
    dark, forward = 0, []
    for flags in (("precopy",), ("precopy", "--verify"), ("precopy",), ("postcopy",), ("hybrid",)):
        record = lab.migrate("clock", other_host(lab, owner(lab, "clock")), "--mode", *flags)["migration"]
        assert record["clock_forward_us"] > 0 and not record["clock_left"], record
        assert "--verify" not in flags or record["clock_forward_us"] > record["blackout_us"] / 2, record  # the hashing counts, too
        dark += record["blackout_us"] / 1000
        forward.append(record["clock_forward_us"] / 1000)
    late = before - guest.clock_ahead_ms()
    run.note(f"clock late by {late:.1f} ms after 5 moves, dark for {dark:.0f} ms in all and set forward by {sum(forward):.0f}")
    assert abs(late) < max(10, dark / 3), late
    assert guest.complaints() == complaints, guest.complaints()
    record = lab.migrate("clock", other_host(lab, owner(lab, "clock")), "--tracker", "qemu")["migration"]
    assert not record["clock_forward_us"] and record["clock_left"], record
    settled(lab, "clock", 10)


@case(deadline=120, needs=MIGRATION)
def migrate_to_where_placement_decides(run):
    lab = run.lab
    lab.vm_create("placed", host="h1")
    watched = Watched(lab, "placed")
    lab.cli("vm", "migrate", "placed")
    assert owner(lab, "placed") in ("h2", "h3")
    watched.check()


@case(deadline=180, needs=MIGRATION)
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
