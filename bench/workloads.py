"""What the guest does while it moves. Each workload is a specification for deploy/guest (drover.run=) and says what can be checked
afterwards: memory always, the disk's blocks and the store's values where it has them."""
from dataclasses import dataclass

PAGE = 4096


@dataclass(frozen=True)
class Workload:
    name: str
    run: str                   # loads of the guest
    checked_pages: int         # of memory, after the move
    checks: tuple = ()         # further things to verify: "disk", "store"
    quiet: str = ""            # a load to set before the check, so that it ends in time
    image: str = "initramfs.cpio"
    disk: bool = False
    work: str = ""             # what the guest counts as work; "": nothing


def memory_spec(rate, working_set, random_percent=30, order="random"):
    return f"mem:{rate}:{working_set >> 10}K:{random_percent}:{order}"


def writer(order, rate, working_set, random_percent=30, suffix=""):
    return Workload(f"{order}-{rate}{suffix}", memory_spec(rate, working_set, random_percent, order), working_set // PAGE,
                    work="pages/s")


def find(name, working_set):
    """A workload by its name: idle, cpu, redis-RATE, disk-RATE, ORDER-RATE, ORDER-RATE-incompressible (order: random, seq, zipf).
    ValueError when there is none. Every one keeps a pattern in memory that is checked, those that write none, too."""
    kind, _, rest = name.partition("-")
    rate, _, suffix = rest.partition("-")
    still = memory_spec(0, working_set)
    if name == "idle":
        return Workload(name, still, working_set // PAGE)
    if name == "cpu":
        return Workload(name, f"cpu:100,{still}", working_set // PAGE, quiet="cpu:0", work="loops/s")
    if not rate.isdigit() or suffix not in ("", "incompressible"):
        raise ValueError(f"no such workload: {name}")
    rate = int(rate)
    if kind == "disk" and not suffix:
        return Workload(name, f"disk:{rate},{still}", working_set // PAGE, ("disk",), disk=True, work="blocks/s")
    if kind == "redis" and not suffix:
        calm = working_set // 4
        return Workload(name, f"store:{rate}:{working_set // 8 // PAGE},{memory_spec(0, calm)}", calm // PAGE, ("store",), image="initramfs-redis.cpio",
                        work="operations/s")
    if kind in ("random", "seq", "zipf"):
        return writer(kind, rate, working_set, 100 if suffix else 30, f"-{suffix}" if suffix else "")
    raise ValueError(f"no such workload: {name}")
