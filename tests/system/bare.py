"""The migration engine without daemons: QEMU and drover-migrate started by hand in a lab's namespaces, as migrate/README.md says."""
import json
import os
import socket
import subprocess

from lab import netns
from lab.program import until

MAC = "52:54:00:00:77:01"


class Side:
    """A QEMU on one host, and the engine beside it."""

    def __init__(self, lab, host, memory_mib, run, incoming, devices=()):
        self.lab, self.node = lab, lab.hosts[host]
        self.directory = f"{self.node.directory}/bare"
        self.ram = f"{self.node.memory_directory}/bare.ram"
        self.memory = memory_mib << 20
        self.engine = self.control = None
        os.makedirs(self.directory, exist_ok=True)
        links = netns.links(self.node.namespace)
        if "drover0" not in links:
            netns.ip_in(self.node.namespace, ["link add drover0 type bridge", "link set uplink master drover0 up",
                                              "link set drover0 up"])
        if "tap0" not in links:
            netns.ip_in(self.node.namespace, ["tuntap add tap0 mode tap", "link set tap0 master drover0 up"])
        cmdline = f"console=ttyS0 quiet mitigations=off drover.ip={lab.address('bare')}/24 drover.run={run}"
        argv = ["env", f"LD_PRELOAD={lab.bin}/../lib/libdrover-shim.so", "qemu-system-x86_64",
                "-machine", "q35,hpet=off,suppress-vmdesc=on,memory-backend=ram", "-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max",
                "-m", str(memory_mib), "-nodefaults", "-display", "none", "-object",
                f"memory-backend-file,id=ram,size={self.memory},mem-path={self.ram},share=on,prealloc=off",
                "-kernel", f"{lab.guest_directory}/vmlinux", "-initrd", f"{lab.guest_directory}/initramfs.cpio",
                "-append", cmdline, "-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=net,mac={MAC}", "-serial", "null",
                "-qmp", f"unix:{self.directory}/qmp.sock,server=on,wait=off",
                "-qmp", f"unix:{self.directory}/monitor.sock,server=on,wait=off", *devices]
        argv += ["-S", "-incoming", "defer"] if incoming else []
        with open(f"{self.directory}/qemu.log", "ab") as log:
            self.qemu = subprocess.Popen(netns.command(self.node.namespace, argv), stdout=log, stderr=log, start_new_session=True)
        self.monitor = None
        until(self._connect_monitor, 60, "QMP")  # made after the other one

    def _connect_monitor(self):
        monitor = socket.socket(socket.AF_UNIX)
        try:
            monitor.connect(f"{self.directory}/monitor.sock")
        except OSError:
            monitor.close()
            return False
        self.monitor, self.replies = monitor, monitor.makefile("rb")
        self.command("qmp_capabilities")
        return True

    def command(self, name, **arguments):
        """A QMP command of the test's own, beside the engine's."""
        self.monitor.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        for line in self.replies:
            reply = json.loads(line)
            if "error" in reply:
                raise RuntimeError(f"{name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
        raise ConnectionError("QEMU has gone")

    def start_engine(self, role, peer, keys):
        """keys: further lines of the configuration, as (section, line)."""
        config = f"{self.directory}/{role}.ini"
        self.lab._write_ini(config, [
            ("migration", "id = bare"), ("key", f"file = {self.node.key}.key"), ("key", f"peer = {peer.node.public_key()}"),
            ("control", f"socket = {self.directory}/{role}.sock"), ("record", f"file = {self.directory}/{role}.record"),
            ("qemu", f"qmp = {self.directory}/qmp.sock"), ("qemu", f"pid = {self.qemu.pid}"),
            ("qemu", f"ram_file = {self.ram}"), ("qemu", f"ram_bytes = {self.memory}"), *keys])
        os.chmod(config, 0o600)
        for name in (f"{role}.sock", f"{role}.record"):
            if os.path.exists(f"{self.directory}/{name}"):
                os.unlink(f"{self.directory}/{name}")
        with open(f"{self.directory}/{role}.log", "ab") as log:
            self.engine = subprocess.Popen(netns.command(self.node.namespace, [f"{self.lab.bin}/drover-migrate", role, "--config", config]),
                                           stdout=log, stderr=log, start_new_session=True)
        self.control = socket.socket(socket.AF_UNIX)
        self.control.settimeout(60)
        until(lambda: self.control.connect(f"{self.directory}/{role}.sock") is None, 60, f"the {role}'s control socket")
        self.events = (json.loads(line) for line in self.control.makefile("rb"))

    def event(self, *names):
        """The next event of one of these names."""
        for event in self.events:
            if event["event"] in names:
                return event
        raise ConnectionError("the engine has closed its control socket")

    def cancel(self):
        self.control.sendall(b'{"command":"cancel"}\n')

    def end(self):
        for process in (self.engine, self.qemu):
            if process and process.poll() is None:
                process.kill()
            if process:
                process.wait()
        for connection in (self.control, self.monitor):
            if connection:
                connection.close()
        for path in (self.ram, f"{self.directory}/qmp.sock", f"{self.directory}/monitor.sock"):
            if os.path.exists(path):
                os.unlink(path)


def move(lab, source, destination_host, memory_mib, run, verify=True, keys=(), devices=()):
    """Begins a move. Returns the other side; events come from both."""
    destination = Side(lab, destination_host, memory_mib, run, incoming=True, devices=devices)
    common = [("verify", f"enabled = {'true' if verify else 'false'}"), *keys]
    destination.start_engine("destination", source, [
        *common, ("channel", f"listen = tcp://{destination.node.address}:0"), ("announce", "interface = uplink"),
        ("announce", f"mac = {MAC}")])
    address = destination.event("listening")["address"]
    source.start_engine("source", destination, [*common, ("channel", f"connect = {address}")])
    return destination
