"""Many moves under loads and trackers that take turns, each compared page by page. Goes on where an earlier run stopped (soak.py)."""
import hashlib

from harness import MIGRATION, case
from soak import Tally
from watched import Watched, other_host, owner

# Each once in turn. Those that leave the disk alone have its checksum compared over the move.
LOADS = {
    "idle": "idle",
    "storm": "mem:20000:48M:60",
    "reader": "read:100",
    "writer": "mem:500:16M,disk:50",
    "both": "mem:2000:32M,disk:30,read:30",
    "zipf": "mem:5000:64M:30:zipf",
    "freed": "mem:100:90M",  # shrinks to the next one's set: pages are reported free while it moves
    "small": "cpu:30,mem:200:8M",
}
TRACKERS = ("wp-async", "wp-sync")  # each for a turn of the loads
MEMORY_MIB = 256
DIFFERS = "with memory that differs"


def checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@case(deadline=24 * 3600, needs=MIGRATION, soak=True)
def soak_migrations(run):
    lab, tally = run.lab, Tally(run.options.soak_state, "moves")
    lab.vm_create("soaked", host="h1", memory=MEMORY_MIB << 20, disk="cache=none,aio=native", extra=["--balloon"])
    watched, image = Watched(lab, "soaked"), lab.disk("soaked")
    while tally["moves"] < run.soak:
        turn, place = divmod(tally["moves"], len(LOADS))
        load, spec = list(LOADS.items())[place]
        tracker = TRACKERS[turn % len(TRACKERS)]
        watched.guest.load("idle")
        watched.guest.load(spec)
        before = checksum(image) if "disk:" not in spec else None
        job = lab.migrate("soaked", other_host(lab, owner(lab, "soaked")), "--verify", "--max-downtime", 5000, "--tracker", tracker,
                          check=False)
        assert job.status == 0 or "RAM differs" in job.stderr, job.stderr
        record = job.json["migration"] if job.status == 0 else {"blackout_us": 0}
        same = job.status == 0 and record["source_hash"] == record["destination_hash"]
        tally.add("moves", f"by {tracker}", f"under load {load}", "with memory that is equal" if same else DIFFERS)
        tally.raise_to("ms of the longest blackout, hashing included", round(record["blackout_us"] / 1000))
        watched.check()
        watched.guest.verify("disk")
        watched.guest.verify("read")
        if before:
            assert checksum(image) == before, f"the disk changed while the guest moved under load {load}"
            tally.add("disk checksums equal")
    run.note(str(tally))
    assert tally[DIFFERS] == 0, tally
