"""A guest under observation: what has to hold before, during and after anything that is done to its VM."""
from lab.program import until

# For what has to succeed: a busy machine may not come to the usual limit.
PATIENT = ("--max-downtime", 2000)
# Held back so that there is time to interfere, and allowed a long blackout so that it ends all the same.
SLOW = ("--bandwidth", "4M", "--max-downtime", 5000)
# Held back so that it does not end before it is interfered with, however long that takes.
HELD = ("--bandwidth", "1M", "--max-downtime", 1)


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
        """The same guest goes on: same boot, next number of the counter, no older uptime, both connections alive, memory intact."""
        counter, uptime = self.guest.counter(), self.guest.uptime_ms()
        assert counter == self.counter + 1, f"counter went from {self.counter} to {counter}"
        assert uptime >= self.uptime, f"uptime went from {self.uptime} to {uptime}"
        assert self.guest.boot() == self.boot, "the guest was booted anew"
        self.counter, self.uptime = counter, uptime
        seen = self.stream.last
        until(lambda: self.stream.last > seen or self.stream.problem, 60, "numbers of the stream")
        assert self.stream.alive(), f"the stream broke: {self.stream.problem}"
        return self.guest.verify()


def owner(lab, vm):
    return lab.vm(vm)["owner"]


def other_host(lab, host):
    return next(name for name in sorted(lab.hosts) if name != host)


def wait_phase(lab, job_id, *phases, interval=0.05):
    """Waits until a migration has come to one of these phases. One that has ended will not."""
    seen = {}

    def there():
        seen["job"] = lab.job(job_id)
        return (seen["job"]["progress"] or {}).get("phase") in phases or seen["job"]["state"] not in ("queued", "running")
    try:
        until(there, 60, " or ".join(phases), interval)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {seen}") from None
    assert seen["job"]["state"] in ("queued", "running"), f"it has ended before {' or '.join(phases)}: {seen['job']}"


def begin_slow_move(lab, vm, to_host, *flags, pace=SLOW):
    """Starts a migration that is held back, waits until pages flow, and returns the job's id."""
    job_id = lab.cli("vm", "migrate", vm, "--to", to_host, *pace, "--async", *flags).json["id"]
    wait_phase(lab, job_id, "precopy")
    return job_id


def begin_held_move(lab, vm, to_host, *flags):
    """The same for one that is to be ended."""
    return begin_slow_move(lab, vm, to_host, *flags, pace=HELD)


def ended(lab, job_id, *states):
    """Waits until the job has ended, which must be in one of these states; returns it."""
    job = lab.job_wait(job_id)
    assert job["state"] in states, f"job {job_id} ended {job['state']}, not {' or '.join(states)}: {job}"
    return job


def settled(lab, vm, timeout=60):
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
