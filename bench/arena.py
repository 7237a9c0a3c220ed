"""Where a benchmark's guests live: two hosts and the outside, each a network namespace.

    fabric (10.77.0.1) ──bridge── uplink a    a (10.78.0.1) ──mig── (10.78.0.2) b
                       └───────── uplink b

Guests' frames go through the fabric, migrations over `mig` alone, so that its counters are the bytes of a migration.
"""
import json
import os
import secrets
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "deploy"))

from lab import netns, reaper  # noqa: E402
from lab.guest import Guest, Pinger  # noqa: E402
from lab.program import cpu_seconds, until  # noqa: E402

GUEST_ADDRESS = "10.77.0.11"
GUEST_MAC = "52:54:00:77:00:0b"


class Qmp:
    """QEMU's monitor, one command at a time; events are kept until somebody waits for them."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        until(lambda: self.socket.connect(path) or True, 15, f"QEMU's monitor {path}", interval=0.01)
        self.reader = self.socket.makefile("rb")
        self.events = []
        self._read(10)
        self.command("qmp_capabilities")

    def _read(self, timeout):
        self.socket.settimeout(timeout)
        line = self.reader.readline()
        if not line:
            raise ConnectionError("QEMU has ended")
        return json.loads(line)

    def command(self, name, timeout=30, **arguments):
        message = {"execute": name}
        if arguments:
            message["arguments"] = arguments
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._read(timeout)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def wait(self, matches, timeout):
        """The first event that matches; TimeoutError when none comes."""
        end = time.monotonic() + timeout
        while True:
            for event in self.events:
                if matches(event):
                    self.events.remove(event)
                    return event
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no such event within {timeout} s")
            try:
                self.events.append(self._read(left))
            except socket.timeout:
                raise TimeoutError(f"no such event within {timeout} s") from None

    def close(self):
        self.reader.close()
        self.socket.close()


class Qemu:
    """One QEMU on one side."""

    def __init__(self, arena, side, memory, cmdline, shim=None, incoming=()):
        self.side = side
        self.directory = f"{arena.shm}/{side}"
        os.makedirs(self.directory, exist_ok=True)
        self.ram_file = f"{self.directory}/ram"
        self.ram_bytes = memory
        self.qmp_path = f"{self.directory}/qmp"
        self.engine_qmp = f"{self.directory}/qmp-engine"
        self.log = f"{self.directory}/qemu.log"
        argv = ["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none",
                "-machine", "q35,memory-backend=ram", "-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max", "-smp", "1",
                "-m", f"size={memory}B",
                "-object", f"memory-backend-file,id=ram,size={memory},mem-path={self.ram_file},share=on,prealloc=off",
                "-kernel", f"{arena.guest}/vmlinux", "-initrd", f"{arena.guest}/initramfs.cpio", "-append", cmdline,
                "-chardev", f"socket,id=qmp,path={self.qmp_path},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
                "-chardev", f"socket,id=qmp-engine,path={self.engine_qmp},server=on,wait=off",
                "-mon", "chardev=qmp-engine,mode=control",
                "-chardev", f"file,id=serial,path={self.directory}/serial", "-serial", "chardev:serial",
                "-device", "virtio-rng-pci",
                "-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off",
                "-device", f"virtio-net-pci,netdev=net0,mac={GUEST_MAC},romfile=", *incoming]
        # env(1) comes last, so that the library is loaded into QEMU alone; every program here replaces itself by the next.
        command = netns.command(arena.namespaces[side], (["env", f"LD_PRELOAD={shim}"] if shim else []) + argv)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        try:
            self.qmp = Qmp(self.qmp_path)
        except (TimeoutError, ConnectionError):
            self.process.kill()
            self.process.wait()
            with open(self.log, errors="replace") as log:
                raise RuntimeError(f"QEMU did not start: {log.read()[-500:]}") from None

    @property
    def pid(self):
        return self.process.pid

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def close(self):
        self.qmp.close()
        self.process.kill()
        self.process.wait()
        for name in os.listdir(self.directory):
            os.unlink(os.path.join(self.directory, name))


class Arena:
    def __init__(self, build, guest):
        self.id = f"bench-{secrets.token_hex(2)}"
        self.build, self.guest = os.path.abspath(build), os.path.abspath(guest)
        self.shm = f"/dev/shm/{self.id}"
        self.namespaces = {side: f"{self.id}-{side}" for side in ("fabric", "a", "b")}
        self._reaper = None

    def __enter__(self):
        self._reaper = reaper.Reaper(self.id)
        try:
            reaper.register(self.id, list(self.namespaces.values()), [self.shm])
            os.makedirs(self.shm, mode=0o700)
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
        for side, address in (("a", "10.78.0.1"), ("b", "10.78.0.2")):
            netns.ip_in(self.namespaces[side],
                        ["link set lo up", f"addr add {address}/30 dev mig", "link set mig up",
                         "link add drover0 type bridge forward_delay 0 mcast_snooping 0", "link set drover0 up",
                         "link set uplink master drover0 up"])
            subprocess.run(["ip", "-n", self.namespaces[side], "tuntap", "add", "dev", "tap0", "mode", "tap", "vnet_hdr"],
                           check=True)
            netns.ip_in(self.namespaces[side], ["link set tap0 master drover0 up"])

    def migration_bytes(self):
        """Bytes that went over the migration link so far, both ways."""
        done = subprocess.run(["ip", "-n", self.namespaces["a"], "-s", "-j", "link", "show", "mig"], check=True,
                              capture_output=True, text=True)
        stats = json.loads(done.stdout)[0]["stats64"]
        return stats["rx"]["bytes"] + stats["tx"]["bytes"]

    def connect_guest(self, timeout):
        """The guest's counter, as soon as it answers. One connection for the whole run: it has to survive the move."""
        fabric = self.namespaces["fabric"]
        return until(lambda: Guest(fabric, GUEST_ADDRESS, timeout=1), timeout, "guest", interval=0.1)

    def pinger(self):
        return Pinger(f"{self.build}/bin/drover-pinger", self.namespaces["fabric"], GUEST_ADDRESS)
