"""QEMU on one side of the arena: its command line, its monitor, and what /proc says of it."""
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass

import paths  # noqa: F401
from lab import netns
from lab.program import TICKS, cpu_seconds, until

GUEST_MAC = "52:54:00:77:00:0b"
MACHINE = "q35,hpet=off,suppress-vmdesc=on"  # as hostd has it


class Qmp:
    """QEMU's monitor, one command at a time; events are kept until somebody waits for them."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        until(lambda: self.socket.connect(path) or True, 60, f"QEMU's monitor {path}", interval=0.01)
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
                raise TimeoutError(f"no such event within {timeout:.0f} s")
            try:
                self.events.append(self._read(left))
            except socket.timeout:
                raise TimeoutError(f"no such event within {timeout:.0f} s") from None

    def close(self):
        self.reader.close()
        self.socket.close()


@dataclass(frozen=True)
class Machine:
    """What a guest is made of: `image` is an initramfs among deploy/guest's output, or None where `kernel` is a file that needs none;
    `disk` a raw file, or None; `kind` QEMU's machine and its options."""
    memory: int
    cmdline: str
    image: str | None
    disk: str | None = None
    kernel: str | None = None
    kind: str = MACHINE


class Process:
    """What can be seen of a QEMU, whoever has started it. `pid` is 0 while there is none."""

    def __init__(self):
        self._vcpus = None

    def cpu_seconds(self):
        """Of the whole process, and of its virtual CPUs alone."""
        if not self.pid:
            return 0.0, 0.0
        if self._vcpus is None:
            self._vcpus = self.vcpus()
        return cpu_seconds(self.pid), sum(_thread_seconds(self.pid, thread) for thread in self._vcpus)

    def ram_allocated(self):
        """Bytes of the RAM file that exist."""
        return os.stat(self.ram_file).st_blocks * 512 if os.path.exists(self.ram_file) else 0

    def last_words(self):
        try:
            with open(self.serial(), errors="replace") as file:
                lines = [line.strip() for line in file.read().splitlines() if line.strip()]
        except FileNotFoundError:
            lines = []
        return " | ".join(lines[-3:])


class Qemu(Process):
    """A QEMU that we start ourselves."""

    def __init__(self, arena, side, machine, shim=None, incoming=()):
        super().__init__()
        self.side = side
        self.directory = f"{arena.shm}/{side}"
        os.makedirs(self.directory, exist_ok=True)
        self.ram_file = f"{self.directory}/ram"
        self.ram_bytes = memory = machine.memory
        self.qmp_path = f"{self.directory}/qmp"
        self.engine_qmp = f"{self.directory}/qmp-engine"
        argv = ["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none",
                "-machine", f"{machine.kind},memory-backend=ram", "-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max", "-smp", "1",
                "-m", f"size={memory}B",
                "-object", f"memory-backend-file,id=ram,size={memory},mem-path={self.ram_file},share=on,prealloc=off",
                "-kernel", machine.kernel or f"{arena.guest}/vmlinux",
                "-chardev", f"socket,id=qmp,path={self.qmp_path},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
                "-chardev", f"socket,id=qmp-engine,path={self.engine_qmp},server=on,wait=off",
                "-mon", "chardev=qmp-engine,mode=control",
                "-chardev", f"file,id=serial,path={self.directory}/serial", "-serial", "chardev:serial",
                "-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off",
                "-device", f"virtio-net-pci,netdev=net0,mac={GUEST_MAC},romfile="]
        if machine.image:
            argv += ["-initrd", f"{arena.guest}/{machine.image}", "-append", machine.cmdline]
        if machine.disk:
            argv += ["-blockdev", json.dumps({"driver": "raw", "node-name": "disk0", "cache": {"direct": True},
                                              "file": {"driver": "file", "filename": machine.disk, "aio": "threads",
                                                       "cache": {"direct": True}}}),
                     "-device", "virtio-blk-pci,drive=disk0"]
        # env(1) comes last, so that the library is loaded into QEMU alone; every program here replaces itself by the next.
        command = netns.command(arena.namespaces[side],
                                (["env", f"LD_PRELOAD={shim}"] if shim else []) + argv + list(incoming))
        log_path = f"{self.directory}/qemu.log"
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        try:
            self.qmp = Qmp(self.qmp_path)
        except (TimeoutError, OSError, RuntimeError) as error:
            self.process.kill()
            self.process.wait()
            with open(log_path, errors="replace") as log:
                raise RuntimeError(f"QEMU did not start: {log.read()[-500:].strip() or error}") from None

    @property
    def pid(self):
        return self.process.pid

    def vcpus(self):
        return [cpu["thread-id"] for cpu in self.qmp.command("query-cpus-fast")]

    def serial(self):
        return f"{self.directory}/serial"

    def close(self):
        self.qmp.close()
        self.process.kill()
        self.process.wait()
        for name in os.listdir(self.directory):
            os.unlink(os.path.join(self.directory, name))


def _thread_seconds(pid, thread):
    with open(f"/proc/{pid}/task/{thread}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Direct:
    """An engine whose QEMUs we start ourselves: `shim` is preloaded into both, `incoming` further arguments of the destination's."""
    shim = None
    incoming = ()

    def start(self, arena, side, machine, incoming):
        return Qemu(arena, side, machine, self.shim, self.incoming if incoming else ())
