"""What migrations may use of their hosts: a stated bandwidth, divided among those under way; CPU time; and no core that a guest is
pinned to."""
import glob
import os
import re

from harness import MIGRATION, case
from lab.program import until
from watched import PATIENT, Watched, ended

MiB = 1 << 20
BANDWIDTH = 4 * MiB
CPU_PERCENT = 30
WRITERS = ("left", "right")


def quotas(lab, host, what="bytes_per_s"):
    """By VM: what the log of its engine on this host says that it may use, the latest last."""
    found = {}
    for path in glob.glob(f"{lab.hosts[host].directory}/partitions/*/engine.log"):
        with open(path) as log:
            found[path.split("/")[-2]] = [int(text) for text in re.findall(rf"migration\.quota .*?{what}=(\d+)", log.read())]
    return found


def pin_first_vcpu(qemu, core):
    for thread in os.listdir(f"/proc/{qemu}/task"):
        with open(f"/proc/{qemu}/task/{thread}/comm") as name:
            if name.read().startswith("CPU 0/"):
                os.sched_setaffinity(int(thread), {core})
                return
    raise AssertionError("no virtual CPU")


@case(needs=MIGRATION, own_lab=True)
def migrations_share_what_their_hosts_leave_them(run):
    keys = [("migration", f"bandwidth = {BANDWIDTH}"), ("migration", f"cpu_percent = {CPU_PERCENT}")]
    with run.new_lab(hosts=2, controllers=1, host_keys=keys) as lab:
        lab.start()
        for name in WRITERS:
            lab.vm_create(name, run="mem:100:16M:100", host="h1", wait=False)
        watched = [Watched(lab, name) for name in WRITERS if lab.guest_wait(name)]
        ids = {name: lab.vm(name)["id"] for name in WRITERS}
        cores = os.sched_getaffinity(0)
        if len(cores) > 1:
            pin_first_vcpu(lab.qemus(ids["left"])["h1"][0], max(cores))

        first, second = (lab.cli("vm", "migrate", name, "--to", "h2", *PATIENT, "--async").json["id"] for name in WRITERS)
        until(lambda: all(quotas(lab, "h1").get(ids[name], [0])[-1] == BANDWIDTH // 2 for name in WRITERS), 60,
              "half of the bandwidth for each", 0.05)
        cpu = [quotas(lab, "h1", "millicores")[ids[name]][-1] for name in WRITERS]
        assert all(cpu) and sum(cpu) <= CPU_PERCENT * 10 * os.cpu_count(), cpu
        engines = lab.programs("h1", "drover-migrate")
        assert len(engines) == 2, engines
        for engine in engines if len(cores) > 1 else []:
            assert os.sched_getaffinity(engine) == cores - {max(cores)}, "an engine may run beside a pinned virtual CPU"

        # One ends: the other gets all of it.
        lab.cli("job", "cancel", first)
        until(lambda: quotas(lab, "h1").get(ids["right"], [0])[-1] == BANDWIDTH, 60, "all of the bandwidth for the other", 0.05)
        ended(lab, first, "cancelled")
        record = ended(lab, second, "succeeded")["migration"]
        assert record["wire_bytes"] * 1e6 / record["total_us"] <= BANDWIDTH * 1.05, record
        for guest in watched:
            guest.check()
