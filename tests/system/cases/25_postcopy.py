"""Post-copy: guests that write faster than the link carries move all the same, and a lost connection loses nothing."""
import glob
import os
import signal

from harness import MIGRATION, case
from lab import netns
from lab.program import until
from watched import Watched, ended, owner, settled, wait_phase

WRITER = "mem:20000:48M:80"  # 80 MB/s, most of which does not compress
LINK = "16M"                 # bytes a second of a migration


def moved_by_postcopy(run, watched, target, *flags):
    job = run.lab.migrate("writer", target, "--bandwidth", LINK, *flags)
    record = job["migration"]
    assert job["state"] == "succeeded" and owner(run.lab, "writer") == target
    assert int(record["stale_pages"]) > 0 and int(record["postcopy_us"]) > 0, record
    assert watched.check() >= 48 * 256
    settled(run.lab, "writer")
    run.note(f"{record['mode']}: dark {int(record['blackout_us']) / 1000:.0f} ms, {record['stale_pages']} pages after the switch, "
             f"{record['demanded_pages']} waited for, {record['page_wait_p50_us']} us typical")
    return record


@case(needs=MIGRATION)
def postcopy_moves_what_writes_faster_than_the_link(run):
    run.lab.vm_create("writer", run=WRITER, host="h1", memory=192 << 20, disk=True)
    watched = Watched(run.lab, "writer")
    assert moved_by_postcopy(run, watched, "h2", "--mode", "hybrid")["mode"] == "hybrid"
    # What came by post-copy leaves again, either way.
    assert moved_by_postcopy(run, watched, "h3", "--mode", "postcopy")["mode"] == "postcopy"
    job = run.lab.migrate("writer", "h1", "--max-downtime", "10000")
    assert job["migration"]["mode"] == "precopy"
    watched.check()


@case(needs=MIGRATION)
def auto_ends_by_postcopy_where_precopy_cannot(run):
    run.lab.vm_create("writer", run=WRITER, host="h1", memory=192 << 20)
    watched = Watched(run.lab, "writer")
    refused = run.lab.cli("vm", "migrate", "writer", "--to", "h2", "--bandwidth", "8M", "--max-rounds", 2, "--max-downtime", 10, check=False)
    assert refused.status != 0 and "pages/s" in refused.stderr and owner(run.lab, "writer") == "h1", refused.stderr
    watched.check()
    assert moved_by_postcopy(run, watched, "h2", "--mode", "auto", "--max-downtime", 10)["mode"] == "hybrid"


def begun(run):
    lab = run.lab
    lab.vm_create("writer", run=WRITER, host="h1", memory=192 << 20)
    watched = Watched(lab, "writer")
    job_id = lab.cli("vm", "migrate", "writer", "--to", "h2", "--mode", "postcopy", "--bandwidth", "4M", "--async").json["id"]
    wait_phase(lab, job_id, "postcopy", interval=0.02)
    return watched, job_id


@case(needs=MIGRATION)
def postcopy_cannot_be_cancelled(run):
    watched, job_id = begun(run)
    run.lab.cli("job", "cancel", job_id, check=False)
    ended(run.lab, job_id, "succeeded")
    assert settled(run.lab, "writer") == "h2"
    watched.check()


@case(needs=MIGRATION)
def source_engine_killed_in_postcopy(run):
    """Its host starts it again: the pages are still there."""
    watched, job_id = begun(run)
    engines = run.lab.programs("h1", "drover-migrate")
    assert len(engines) == 1, engines
    os.kill(engines[0], signal.SIGKILL)
    job = run.lab.job_wait(job_id)
    assert job["state"] == "succeeded" and int(job["migration"]["resumes"]) >= 1, job
    assert settled(run.lab, "writer") == "h2"
    watched.check()


@case(needs=MIGRATION)
def source_qemu_and_engines_killed_in_postcopy(run):
    """What the guest still needs is in the RAM file: it is sent without a QEMU, over a restart of hostd, and by an engine that has to
    be tried several times because something is in its way."""
    lab = run.lab
    watched, job_id = begun(run)
    source = lab.hosts["h1"]

    def seen(event):
        with open(source.daemon.log, errors="replace") as log:
            return log.read().count(f"event={event} ")
    os.kill(lab.qemus(lab.vm("writer")["id"])["h1"][0], signal.SIGKILL)
    until(lambda: seen("guest.lost"), 60, "hostd to notice")
    source.daemon.kill()
    source.daemon.start()
    engine, = lab.programs("h1", "drover-migrate")
    control, = glob.glob(f"{source.directory}/partitions/*/eng.sock")
    os.unlink(control)
    os.mkdir(control)  # no engine can listen here
    os.kill(engine, signal.SIGKILL)
    until(lambda: seen("migration.resumed") >= 6, 60, "the engine to be tried again and again")
    os.rmdir(control)
    job = lab.job_wait(job_id)
    assert job["state"] == "succeeded", job
    assert settled(lab, "writer") == "h2"
    watched.check()


@case(needs=MIGRATION)
def destination_engine_killed_in_postcopy(run):
    """The pages that are missing cannot come any more: the VM fails, and the job says why."""
    lab = run.lab
    _, job_id = begun(run)
    os.kill(lab.programs("h2", "drover-migrate")[0], signal.SIGKILL)
    job = lab.job_wait(job_id)
    assert job["state"] == "failed" and "lost" in job["error"]["message"], job
    until(lambda: not lab.vm("writer")["owner"] and not lab.qemus(), 60, "nobody to run it")


@case(needs=MIGRATION)
def whole_guest_whose_record_cannot_be_written(run):
    """All pages are there, but the destination cannot write that down: it tries on, and the guest lives."""
    lab = run.lab
    watched, job_id = begun(run)
    engine, = lab.programs("h2", "drover-migrate")
    record, = glob.glob(f"{lab.hosts['h2'].directory}/partitions/*/engine.record")
    obstacle = f"{record}.{engine}.tmp"
    os.mkdir(obstacle)
    until(lambda: any("record.unwritten" in text for text in engine_logs(lab.hosts["h2"])), 60, "the record to be wanted")
    os.rmdir(obstacle)
    ended(lab, job_id, "succeeded")
    assert settled(lab, "writer") == "h2"
    watched.check()


@case(needs=MIGRATION)
def both_hostds_killed_in_postcopy(run):
    watched, job_id = begun(run)
    for host in ("h1", "h2"):
        run.lab.hosts[host].daemon.kill()
        run.lab.hosts[host].daemon.start()
    ended(run.lab, job_id, "succeeded")
    assert settled(run.lab, "writer") == "h2"
    watched.check()


def engine_logs(host):
    for path in glob.glob(f"{host.directory}/partitions/*/engine.log"):
        try:
            with open(path, encoding="utf-8") as file:
                yield file.read()
        except FileNotFoundError:  # the migration has just ended
            continue


@case(needs=MIGRATION)
def postcopy_waits_for_a_lost_link(run):
    """The source is cut off from everybody, the controllers too."""
    watched, job_id = begun(run)
    namespace = run.lab.hosts["h1"].namespace
    netns.ip_in(namespace, ["link set mgmt down"])
    try:
        until(lambda: any("push.lost" in text for text in engine_logs(run.lab.hosts["h1"])), 60, "the source to notice")
    finally:
        netns.ip_in(namespace, ["link set mgmt up"])
    job = run.lab.job_wait(job_id)
    assert job["state"] == "succeeded" and int(job["migration"]["resumes"]) >= 1, job
    assert settled(run.lab, "writer") == "h2"
    watched.check()
