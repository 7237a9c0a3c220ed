"""The early verdict: how a migration would go, before it begins, and what came of it."""
import os
import signal

from crash import kill_with_guardian
from harness import MIGRATION, case
from lab.program import until
from watched import PATIENT, Watched, settled

WRITER = "mem:20000:48M:80"  # 80 MB/s
LINK = "8M"


@case(needs=MIGRATION)
def forecast_alone_and_kept(run):
    lab = run.lab
    lab.vm_create("writer", run=WRITER, host="h1", memory=192 << 20)
    watched = Watched(lab, "writer")

    def foretold(*flags):
        return lab.cli("vm", "migrate", "writer", "--to", "h2", "--dry-run", *flags).json["migration"]["forecast"]

    stuck = foretold("--bandwidth", LINK)
    assert stuck["mode"] == "none" and "given up" in stuck["why"] and stuck["link"] == "limit", stuck
    assert len(stuck["curve"]) >= 8 and int(stuck["curve"][-1]["us"]) > 2000000, stuck
    assert foretold("--bandwidth", LINK, "--mode", "auto")["mode"] == "hybrid"
    slowed = foretold("--bandwidth", LINK, "--on-no-convergence", "throttle")
    assert slowed["mode"] == "throttle" and 0 < slowed["throttle_percent"] < 100, slowed
    assert foretold("--max-downtime", 5000)["mode"] == "precopy"
    # Nothing has moved, and nothing is left.
    assert settled(lab, "writer") == "h1"
    watched.check()

    job = lab.migrate("writer", "h2", "--max-downtime", 5000)
    forecast, record = job["migration"]["forecast"], job["migration"]
    assert forecast["mode"] == record["mode"] == "precopy" and int(forecast["wire_bytes"]) > 0, job
    watched.check()
    settled(lab, "writer")
    run.note("; ".join(f"{name} {int(record[key]) / 1000:.0f} of {int(forecast[key]) / 1000:.0f} {unit} foretold" for name, key, unit in (
        ("total", "total_us", "ms"), ("dark", "blackout_us", "ms"), ("wire", "wire_bytes", "kB"))))


@case(needs=MIGRATION)
def forecast_killed_with_its_guardian(run):
    """Nobody is left to let the guest's writes through but the host's daemon, or the next one."""
    lab = run.lab
    lab.vm_create("watched", run="mem:500:16M", host="h1")
    watched = Watched(lab, "watched")
    daemon = lab.hosts["h1"].daemon

    def strike(kill):
        job_id = lab.cli("vm", "migrate", "watched", "--to", "h2", "--dry-run", "--tracker", "wp-sync", "--async").json["id"]
        until(lambda: lab.guardians("h1"), 60, "the guest to be watched", interval=0.005)
        engine, = lab.programs("h1", "drover-migrate")
        os.kill(engine, signal.SIGSTOP)  # else it may be done before it is struck
        lab.cli("job", "cancel", job_id, "--async")  # else it is made anew, which would free the guest, too
        kill()
        lab.job_wait(job_id)
    strike(lambda: kill_with_guardian(lab, "h1"))
    watched.check()

    def kill_all_three():
        os.kill(daemon.pid, signal.SIGSTOP)
        kill_with_guardian(lab, "h1")
        daemon.kill()
        daemon.start()
    strike(kill_all_three)
    lab.wait_hosts()
    watched.check()
    assert settled(lab, "watched") == "h1"
    lab.migrate("watched", "h2", *PATIENT)  # what watched it stands in nobody's way
    watched.check()
