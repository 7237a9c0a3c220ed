"""libvirt: a libvirtd on each side, told by virsh to move the guest with QEMU's own pre-copy as libvirt sets it up.

Two libvirtd on one machine need directories and a host name of their own: each lives in mount and UTS namespaces beside the network
namespace of its side. They are started once an arena, since they ask QEMU what it can do first; the arena's reaper ends them."""
import glob
import os
import shutil
import subprocess
import time
from xml.sax.saxutils import escape

import paths  # noqa: F401
from lab import netns
from lab.program import cpu_seconds, until

from arena import ADDRESSES
from failures import Endless, Failure
from qemu import GUEST_MAC, Process

DOMAIN = "guest"
START_S = 30
COMMAND_S = 60
POLL_S = 0.01
PRIVATE = {"run": "/run/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt", "etc": "/etc/libvirt", "log": "/var/log/libvirt"}
HOST_UUID = {"a": "4d1c2a60-0d6a-4a6b-9f0e-0000000000aa", "b": "4d1c2a60-0d6a-4a6b-9f0e-0000000000bb"}


class Daemon:
    """libvirtd of one side."""

    def __init__(self, arena, side):
        self.side, self.base = side, f"{arena.shm}/libvirt-{side}"
        for name in [*PRIVATE, "ram"]:
            os.makedirs(f"{self.base}/{name}")
        self.uri = f"qemu+unix:///system?socket={self.base}/run/libvirt-sock"
        with open(f"{self.base}/etc/libvirtd.conf", "w") as file:
            file.write(f'host_uuid = "{HOST_UUID[side]}"\nauth_unix_rw = "none"\nunix_sock_dir = "/run/libvirt"\n'
                       'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"\n')
        with open(f"{self.base}/etc/qemu.conf", "w") as file:
            file.write('user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n'
                       f'stdio_handler = "file"\nremember_owner = 0\nmemory_backing_dir = "{self.base}/ram"\n')
        mounts = "".join(f"mkdir -p {there} && mount --bind {self.base}/{name} {there} && " for name, there in PRIVATE.items())
        script = f"hostname bench-{side} && {mounts}exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/pid"
        with open(f"{self.base}/log/start.log", "wb") as log:
            self.process = subprocess.Popen(
                netns.command(arena.namespaces[side], ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until(lambda: self.virsh("version"), START_S, f"libvirtd of side {side}", interval=0.2)

    def virsh(self, *argv):
        """What it prints; RuntimeError when it fails."""
        try:
            done = subprocess.run(["virsh", "--quiet", "--connect", self.uri, *argv], capture_output=True, text=True, timeout=COMMAND_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"virsh {argv[0]} did not end") from None
        if done.returncode != 0:
            raise RuntimeError(f"virsh {argv[0]}: {done.stderr.strip()}")
        return done.stdout


class Domain(Process):
    """The guest's QEMU on one side, from when libvirt has made it."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon = daemon
        self._seen = (0.0, 0.0)

    @property
    def pid(self):
        """0 while there is none."""
        try:
            with open(f"{self.daemon.base}/run/qemu/{DOMAIN}.pid") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0

    @property
    def ram_file(self):
        found = glob.glob(f"{self.daemon.base}/ram/libvirt/qemu/*/*")
        return found[0] if found else ""

    def cpu_seconds(self):
        """As long as there is a process; afterwards what was seen last: libvirt ends the source by itself."""
        try:
            seen = super().cpu_seconds()
            self._seen = seen if self.pid else self._seen
        except OSError:
            pass
        return self._seen

    def vcpus(self):
        threads = []
        for comm in glob.glob(f"/proc/{self.pid}/task/*/comm"):
            with open(comm) as file:
                if file.read().startswith("CPU "):
                    threads.append(int(comm.split("/")[4]))
        return threads

    def serial(self):
        return f"{self.daemon.base}/log/serial"

    def close(self):
        try:
            self.daemon.virsh("destroy", DOMAIN)
        except RuntimeError:  # there is none
            pass


class Libvirt:
    name, family = "libvirt", "libvirt"

    def unavailable(self):
        missing = [program for program in ("libvirtd", "virsh") if not shutil.which(program)]
        return f"{' and '.join(missing)} not installed: apt-get install libvirt-daemon-system libvirt-clients" if missing else None

    def start(self, arena, side, machine, incoming):
        for each in ADDRESSES:
            if each not in arena.extras:
                arena.extras[each] = Daemon(arena, each)
        domain = Domain(arena.extras[side])
        if not incoming:
            path = f"{domain.daemon.base}/{DOMAIN}.xml"
            with open(path, "w") as file:
                file.write(definition(arena, machine))
            domain.daemon.virsh("create", path)
        return domain

    def move(self, arena, source, destination, max_downtime_ms, timeout, footprint):
        """The destination's QEMU begins within the move: how much of its memory is for moving cannot be told, and is left out."""
        del arena, footprint
        daemons = [source.daemon.process.pid, destination.daemon.process.pid]
        cpu = sum(cpu_seconds(pid) for pid in daemons)
        end = time.monotonic() + timeout
        log_path = f"{source.daemon.base}/log/move.log"
        with open(log_path, "wb") as log:
            mover = subprocess.Popen(["virsh", "--quiet", "--connect", source.daemon.uri, "migrate", "--live", "--unsafe", DOMAIN,
                                      destination.daemon.uri, f"tcp://{ADDRESSES['b']}"], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=log, start_new_session=True)
        try:
            told = False
            while mover.poll() is None:
                if time.monotonic() > end:
                    raise Endless(f"did not end within {timeout:.0f} s")
                told = told or self._limit(source, max_downtime_ms)
                source.cpu_seconds()
                time.sleep(POLL_S)  # virsh says nothing on the way
        finally:
            if mover.poll() is None:
                mover.kill()
                mover.wait()
        moved_at = time.monotonic()
        if mover.returncode != 0:
            with open(log_path, errors="replace") as log:
                raise Failure(log.read().strip())
        lines = destination.daemon.virsh("domjobinfo", DOMAIN, "--completed", "--rawstats").splitlines()
        said = {key: int(value) if value.strip().isdigit() else value.strip()
                for key, _, value in (line.partition(":") for line in lines) if value.strip()}
        return {"moved_at": moved_at, "reported_ms": float(said.get("downtime", 0)), "reported_total_s": said.get("time_elapsed", 0) / 1000,
                "rounds": said.get("memory_iteration", 0), "engine_cpu_s": sum(cpu_seconds(pid) for pid in daemons) - cpu,
                "classes": {key: value for key, value in said.items() if key.startswith("memory_") and isinstance(value, int)},
                "said": said}

    @staticmethod
    def _limit(source, max_downtime_ms):
        """libvirt takes the downtime limit only while it moves a guest."""
        try:
            source.daemon.virsh("migrate-setmaxdowntime", DOMAIN, str(max_downtime_ms))
            return True
        except RuntimeError:
            return False


def definition(arena, machine):
    disk = (f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' io='threads'/><source file='{machine.disk}'/>"
            "<target dev='vda' bus='virtio'/></disk>" if machine.disk else "")
    return f"""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{DOMAIN}</name><memory unit='b'>{machine.memory}</memory>
<memoryBacking><source type='file'/><access mode='shared'/><allocation mode='ondemand'/></memoryBacking><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{arena.guest}/vmlinux</kernel><initrd>{arena.guest}/{machine.image}</initrd>
<cmdline>{escape(machine.cmdline)}</cmdline></os><features><acpi/></features><cpu mode='maximum'/>
<clock offset='utc'><timer name='hpet' present='no'/></clock><on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disk}
<controller type='usb' model='none'/><memballoon model='none'/>
<interface type='ethernet'><mac address='{GUEST_MAC}'/><target dev='tap0' managed='no'/><model type='virtio'/><rom enabled='no'/></interface>
<serial type='file'><source path='/var/log/libvirt/serial'/></serial></devices>
<qemu:commandline><qemu:arg value='-machine'/><qemu:arg value='suppress-vmdesc=on'/></qemu:commandline></domain>
"""
