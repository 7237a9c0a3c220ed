"""Where a benchmark's guests live: two hosts and the outside, each a network namespace.

    fabric (10.77.0.1) ──bridge── uplink a    a (10.78.0.1) ──mig── (10.78.0.2) b
                       └───────── uplink b

Guests' frames go through the fabric, migrations over `mig` alone, so that its counters are the bytes of a migration. `mig` is a veth
pair, shaped with tbf at both ends or left as fast as the machine is.
"""
import json
import os
import secrets
import subprocess

import paths  # noqa: F401
from lab import netns, reaper
from lab.guest import Guest, Pinger
from lab.program import until

GUEST_ADDRESS = "10.77.0.11"
ADDRESSES = {"a": "10.78.0.1", "b": "10.78.0.2"}
UNSHAPED = "unshaped"
RATE_UNITS = {"M": 10**6, "G": 10**9}
QUEUE_MS = 20          # as long as a packet may wait for the shaper; TCP's small queues keep it far below
BURST_S = 0.001
BURST_BYTES_MIN = 128 << 10  # two of the largest segments that the stack hands over in one piece


def link_bits(link):
    """Bits per second of a link by its name: 250M, 1G; None for an unshaped one."""
    if link == UNSHAPED:
        return None
    if link[-1:] not in RATE_UNITS or not link[:-1].isdigit() or int(link[:-1]) == 0:
        raise ValueError(f"{link} is not a link: {UNSHAPED}, 250M, 1G, 10G")
    return int(link[:-1]) * RATE_UNITS[link[-1]]


class Arena:
    """`disks` is a directory on a file system that does direct I/O, for the guests' disks."""

    def __init__(self, build, guest, disks):
        self.id = f"bench-{secrets.token_hex(8)}"
        self.build, self.guest = os.path.abspath(build), os.path.abspath(guest)
        self.shm = f"/dev/shm/{self.id}"
        self.disks = os.path.join(os.path.abspath(disks), self.id)
        self.namespaces = {side: f"{self.id}-{side}" for side in ("fabric", "a", "b")}
        self.link = UNSHAPED
        self.extras = {}  # what an engine keeps over its runs
        self._reaper = None

    def __enter__(self):
        self._reaper = reaper.Reaper(self.id)
        try:
            reaper.register(self.id, list(self.namespaces.values()), [])
            os.makedirs(os.path.dirname(self.disks), exist_ok=True)
            for directory in (self.shm, self.disks):
                reaper.make_directory(self.id, directory)
            self._make_network()
        except BaseException:
            self._reaper.clean()
            raise
        return self

    def __exit__(self, *_):
        self._reaper.clean()

    def _make_network(self):
        fabric, a, b = self.namespaces["fabric"], self.namespaces["a"], self.namespaces["b"]
        netns.ip([f"netns add {name}" for name in self.namespaces.values()] +
                 [f"link add mig netns {a} type veth peer name mig netns {b}"])
        netns.ip_in(fabric, ["link add guest type bridge forward_delay 0 mcast_snooping 0", "link set lo up",
                             "addr add 10.77.0.1/24 dev guest", "link set guest up"] +
                    [line for side in ("a", "b") for line in
                     (f"link add guest-{side} type veth peer name uplink netns {self.namespaces[side]}",
                      f"link set guest-{side} master guest up")])
        for side, address in ADDRESSES.items():
            netns.ip_in(self.namespaces[side],
                        ["link set lo up", f"addr add {address}/30 dev mig", "link set mig up",
                         "link add drover0 type bridge forward_delay 0 mcast_snooping 0", "link set drover0 up",
                         "link set uplink master drover0 up"])
            subprocess.run(["ip", "-n", self.namespaces[side], "tuntap", "add", "dev", "tap0", "mode", "tap", "vnet_hdr"],
                           check=True)
            netns.ip_in(self.namespaces[side], ["link set tap0 master drover0 up"])

    def shape(self, link):
        """Makes the migration link this fast, both ways."""
        if link == self.link:
            return
        bits = link_bits(link)
        for side in ADDRESSES:
            if bits is None:
                argv = ["tc", "-n", self.namespaces[side], "qdisc", "del", "dev", "mig", "root"]
            else:
                burst = max(BURST_BYTES_MIN, int(bits / 8 * BURST_S))
                argv = ["tc", "-n", self.namespaces[side], "qdisc", "replace", "dev", "mig", "root", "tbf",
                        "rate", f"{bits}bit", "burst", f"{burst}b", "latency", f"{QUEUE_MS}ms"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
            if done.returncode != 0:
                raise RuntimeError(f"cannot shape the link to {link}: {done.stderr.strip()}")
        self.link = link

    def migration_bytes(self):
        """Bytes that have gone over the migration link so far: a to b, b to a."""
        done = subprocess.run(["ip", "-n", self.namespaces["a"], "-s", "-j", "link", "show", "mig"], check=True,
                              capture_output=True, text=True, timeout=60)
        stats = json.loads(done.stdout)[0]["stats64"]
        return stats["tx"]["bytes"], stats["rx"]["bytes"]

    def connect_guest(self, timeout):
        """The guest's counter, as soon as it answers. One connection for the whole run: it has to survive the move."""
        fabric = self.namespaces["fabric"]
        return until(lambda: Guest(fabric, GUEST_ADDRESS, timeout=1), timeout, "guest", interval=0.1)

    def pinger(self, *options):
        return Pinger(f"{self.build}/bin/drover-pinger", self.namespaces["fabric"], GUEST_ADDRESS, *options)
