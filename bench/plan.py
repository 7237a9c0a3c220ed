"""Which runs there are, and in which order. Pure.

A group is a workload on a link with the engines that are compared on it. Its runs go ABBA: every engine once, then every engine once in
the opposite order, and so on, so that a slow minute of the machine hurts all alike."""
import fnmatch
from dataclasses import dataclass

import engines
from arena import link_bits

MOVES, MAP, LINK = "moves", "map", "link"
COMPARED = tuple(name for name in engines.NAMES if name != "drover-auto")
FEW = ("drover-precopy", "drover-hybrid", "drover-postcopy", "qemu-precopy", "qemu-multifd-zstd", "qemu-postcopy")
PAIR = ("drover-precopy", "qemu-precopy")
MAP_ENGINES = ("drover-auto", "drover-precopy", "qemu-precopy", "qemu-auto-converge", "qemu-postcopy")
LINKS = ("unshaped", "10G", "1G")
PAGE_BITS = 4096 * 8


@dataclass(frozen=True)
class Task:
    suite: str
    workload: str
    link: str
    engine: str
    number: int

    @property
    def cell(self):
        return f"{self.suite}/{self.workload}/{self.link}/{self.engine}"


@dataclass(frozen=True)
class Group:
    suite: str
    workload: str
    link: str
    engines: tuple
    runs: int

    def tasks(self):
        for number in range(self.runs):
            for engine in self.engines if number % 2 == 0 else reversed(self.engines):
                yield Task(self.suite, self.workload, self.link, engine, number)


def map_groups(links, factors, names, runs):
    """Writers of pages that do not compress, at `factors` of what each link carries."""
    return [Group(MAP, f"random-{round(link_bits(link) * factor / PAGE_BITS / 10) * 10}-incompressible", link, tuple(names), runs)
            for link in links for factor in factors]


def map_factor(workload, link):
    """The share of the link that a writer of the map writes, back from its name."""
    return round(int(workload.split("-")[1]) * PAGE_BITS / link_bits(link), 2)


QUICK = [
    Group(MOVES, "random-5000", "unshaped", COMPARED, 2),
    Group(MOVES, "idle", "unshaped", PAIR, 1),
    Group(MOVES, "cpu", "unshaped", PAIR, 1),
    Group(MOVES, "zipf-20000", "1G", FEW, 1),
    Group(MOVES, "redis-300", "unshaped", PAIR, 1),
    Group(MOVES, "disk-500", "unshaped", PAIR, 1),
    *map_groups(("250M",), (0.25, 2), ("drover-auto", "qemu-precopy"), 1),
    Group(LINK, "stream", "unshaped", ("iperf3", "drover-encrypted", "drover-plain"), 1),
]

# Ours alone, to see that each cell ends by itself.
ENDS = map_groups(("100M", "250M", "1G"), (0, 0.25, 0.5, 1, 2), ("drover-auto",), 1)

FULL_WORKLOADS = (
    "idle", "cpu", "random-1000", "random-5000", "random-20000", "random-50000", "random-5000-incompressible",
    "seq-5000", "seq-20000", "seq-50000", "zipf-5000", "zipf-20000", "zipf-50000", "redis-300", "disk-500")

FULL = [
    *(Group(MOVES, workload, link, COMPARED, 10) for link in LINKS for workload in FULL_WORKLOADS),
    *map_groups(("100M", "250M", "500M", "1G"), (0.1, 0.25, 0.5, 0.9, 1.2, 2), MAP_ENGINES, 3),
    Group(LINK, "stream", "unshaped", ("iperf3", "drover-encrypted", "drover-plain"), 10),
]


def tasks(groups, only=(), runs=None):
    """All runs in order. `only` are patterns for cells (suite/workload/link/engine); `runs` replaces each group's number."""
    found = []
    for group in groups:
        if runs:
            group = Group(group.suite, group.workload, group.link, group.engines, runs)
        found += [task for task in group.tasks() if not only or any(fnmatch.fnmatch(task.cell, one) for one in only)]
    return found
