"""Every migration ends by itself: also where the guest writes faster than the link carries, whatever is to follow then."""
import os
import signal

from harness import MIGRATION, case
from lab.program import until
from watched import Watched, ended, owner, settled

WRITER = "mem:12000:12M:80"  # 48 MB/s
LINK = "8M"                  # bytes a second of a migration: a sixth of that, so that a guest on a busy machine is still too fast


def braked(run, host):
    """Threads of guests that somebody holds."""
    held = []
    for pid in run.lab.programs(host, "qemu-system-x86_64"):
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8") as file:
                    fields = dict(line.split(":", 1) for line in file.read().splitlines())
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            if fields["TracerPid"].strip() != "0" or fields["State"].strip()[0] in "tT":
                held.append(thread)
    return held


@case(needs=MIGRATION)
def ends_by_giving_up_or_postcopy(run):
    lab = run.lab
    lab.vm_create("writer", run=WRITER, host="h1", memory=96 << 20)
    watched = Watched(lab, "writer")
    job = lab.cli("vm", "migrate", "writer", "--to", "h2", "--bandwidth", LINK, "--max-rounds", 3, "--max-downtime", 10, check=False)
    assert job.status != 0 and "pages/s" in job.stderr and owner(lab, "writer") == "h1", job.stderr
    watched.check()
    job = lab.migrate("writer", "h2", "--bandwidth", LINK, "--max-downtime", 10, "--mode", "auto")
    assert job["state"] == "succeeded" and job["migration"]["mode"] == "hybrid", job
    assert job["migration"]["forecast"]["mode"] == "hybrid", job
    assert settled(lab, "writer") == "h2"
    watched.check()


@case(needs=MIGRATION)
def ends_by_slowing_the_guest_down(run):
    lab = run.lab
    lab.vm_create("writer", run=WRITER, host="h1", memory=96 << 20)
    watched = Watched(lab, "writer")
    slow = ("--bandwidth", LINK, "--on-no-convergence", "throttle")

    # Killed while it holds the guest back: the guest is free at once, and nobody had to do anything for it.
    job_id = lab.cli("vm", "migrate", "writer", "--to", "h2", *slow, "--max-downtime", 1, "--async").json["id"]
    until(lambda: braked(run, "h1"), 60, "the guest to be slowed down", interval=0.01)
    os.kill(lab.programs("h1", "drover-migrate")[0], signal.SIGKILL)
    until(lambda: not braked(run, "h1"), 60, "the guest to be free", interval=0.01)
    ended(lab, job_id, "failed")
    assert settled(lab, "writer") == "h1"
    watched.check()

    # This writer catches up in bursts on what it missed. All it writes would be 1500 ms of the link; what it may write is a fifth.
    record = lab.migrate("writer", "h2", *slow, "--max-downtime", 300)["migration"]
    assert settled(lab, "writer") == "h2" and not braked(run, "h2")
    watched.check()
    assert record["mode"] == "precopy" and 0 < record["throttle_percent"] < 100, record
    run.note(f"down to {record['throttle_percent']} % ({record['forecast']['throttle_percent']} % foretold) for "
             f"{int(record['throttled_us']) / 1e6:.1f} s, dark {int(record['blackout_us']) / 1000:.0f} ms")

    # No brake makes the switch itself shorter: where that is all that is allowed, post-copy follows if it may, and the policy is the VM's.
    lab.cli("vm", "set", "writer", "--migration-mode", "auto", "--on-no-convergence", "throttle", "--max-downtime", 1)
    record = lab.migrate("writer", "h1", "--bandwidth", LINK)["migration"]
    assert record["mode"] == "hybrid", record
    assert settled(lab, "writer") == "h1" and not braked(run, "h1")
    watched.check()
