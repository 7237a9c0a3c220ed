"""A guest under observation: what has to hold before, during and after anything that is done to its VM."""
from lab.program import until

# Held back so that there is time to interfere, and allowed a long blackout so that it ends all the same.
SLOW = ("--bandwidth", "4M", "--max-downtime", 5000)


class Watched:
    """Holds a counter connection and a number stream to a guest open. check() is the whole promise at once."""

    def __init__(self, lab, vm):
        self.lab, self.vm = lab, vm
        self.guest = lab.guest(vm)
        self.stream = lab.stream(vm)
        self.boot = self.guest.boot()
        self.counter = self.guest.counter()
        self.uptime = self.guest.uptime_ms()

    def check(self):
        """The same guest goes on: same boot, next number of the counter, growing uptime, both connections alive, memory intact."""
        counter, uptime = self.guest.counter(), self.guest.uptime_ms()
        assert counter == self.counter + 1, f"counter went from {self.counter} to {counter}"
        assert uptime > self.uptime, f"uptime went from {self.uptime} to {uptime}"
        assert self.guest.boot() == self.boot, "the guest was booted anew"
        self.counter, self.uptime = counter, uptime
        seen = self.stream.last
        until(lambda: self.stream.last > seen or self.stream.problem, 10, "numbers of the stream")
        assert self.stream.alive(), f"the stream broke: {self.stream.problem}"
        return self.guest.verify()


def owner(lab, vm):
    return lab.vm(vm)["owner"]


def other_host(lab, host):
    return next(name for name in sorted(lab.hosts) if name != host)


def begin_slow_move(lab, vm, to_host, *flags):
    """Starts a migration that is held back, waits until pages flow, and returns the job's id."""
    job_id = lab.cli("vm", "migrate", vm, "--to", to_host, *SLOW, "--async", *flags).json["id"]
    until(lambda: lab.job(job_id)["progress"]["phase"] == "precopy", 20, "pre-copy to begin")
    return job_id


def settled(lab, vm, timeout=30):
    """Waits until exactly one host runs the VM and nothing of it is left anywhere else; returns that host."""
    seen = {}

    def one_owner():
        info = lab.vm(vm)
        qemus = lab.qemus(info["id"])
        seen.update(state=info["state"], owner=info["owner"], hand_over=info["hand_over"], qemus=qemus,
                    residue={host: lab.residue(host) for host in lab.hosts if host != info["owner"]},
                    engines=lab.programs(info["owner"], "drover-migrate") if info["owner"] else [])
        return (info["state"] == "running" and list(qemus) == [info["owner"]] and len(qemus[info["owner"]]) == 1
                and not info["hand_over"] and not seen["engines"] and not any(seen["residue"].values()))
    try:
        until(one_owner, timeout, "one owner and nothing left behind", interval=0.2)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {seen}") from None
    return seen["owner"]
