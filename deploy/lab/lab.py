"""A whole Drover cluster on one machine.

    with Lab(build="build/release", guest="build/guest") as lab:
        lab.start()
        lab.vm_create("web", run="cpu:30")
        print(lab.cli("vm", "list").json)

Every host and every controller has a network namespace of its own; a further one, the fabric, holds two bridges that join them:
`mgmt` (10.76.0.0/24: controllers .11 on, hosts .101 on, the fabric itself .1) and `guest` (10.77.0.0/16: guests from .0.12 on, the fabric .0.1).
The command line and the probers run in the fabric. All names carry the lab's id, so labs run side by side. State is in
/var/tmp/ID and, what must be on tmpfs, /dev/shm/ID: made by the lab and closed to everybody else. reaper.py cleans everything away, also
when this program is killed.
"""
import json
import os
import secrets
import shutil
import subprocess
import uuid

from lab import netns, program, reaper
from lab.guest import Console, Guest, Pinger, Stream
from lab.program import PATIENCE_S, Daemon, until

MiB = 1 << 20
API_PORT, RAFT_PORT, METRICS_PORT = 7420, 7430, 7490


class CliError(RuntimeError):
    """A call of `drover` that was expected to succeed and did not."""

    def __init__(self, result):
        super().__init__(f"drover {' '.join(result.arguments)}: exit status {result.status}: {result.stderr.strip()}")
        self.result = result


class CliResult:
    def __init__(self, arguments, done):
        self.arguments = arguments
        self.status = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr

    @property
    def json(self):
        return json.loads(self.stdout)


class Node:
    """A controller or a host: its namespace, address, files and daemon."""

    def __init__(self, lab, name, address, binary):
        self.name = name
        self.namespace = f"{lab.id}-{name}"
        self.address = address
        self.directory = f"{lab.shm}/{name}" if binary == "drover-hostd" else f"{lab.directory}/{name}"
        self.memory_directory = f"{lab.shm}/{name}-ram"
        self.disks = f"{lab.directory}/{name}-disks"  # a host's own, which no other host names as its
        self.visits = f"{lab.directory}/{name}-visits"
        self.key = f"{lab.directory}/keys/{name}"
        self.config = f"{lab.directory}/{name}.ini"
        self.metrics = f"{address}:{METRICS_PORT}"
        self.crash_file = f"{lab.directory}/{name}.crash"  # names the point at which this node's programs die: base/crashpoint.h
        self.cores = f"{lab.directory}/{name}-cores"
        self.argv = [f"{lab.bin}/{binary}", "--config", self.config]
        self.daemon = Daemon(name, self.namespace, self.argv, f"{lab.directory}/{name}.log",
                             {"DROVER_CRASH_FILE": self.crash_file} if lab.crash_points else None,
                             self.cores if lab.crash_points else None)

    def boot_anew(self):
        """From its next start on the daemon sees another boot id; the kernel's own is everybody's here."""
        path = f"{os.path.dirname(self.config)}/{self.name}.boot-id"
        with open(path, "w") as file:
            file.write(f"{uuid.uuid4()}\n")
        mount = f"mount --bind {path} /proc/sys/kernel/random/boot_id"
        self.daemon.argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{mount} && exec "$@"', "sh", *self.argv]

    def copy(self, at):
        """A daemon with the key of this host in the place of another one, on what it takes for another machine."""
        base = f"{os.path.dirname(self.config)}/{self.name}-copy"
        directories = {self.directory: f"{self.directory}-copy", self.memory_directory: f"{self.memory_directory}-copy",
                       self.visits: f"{self.visits}-copy"}
        with open(self.config) as file:
            text = file.read()
        for old, new in directories.items():
            os.makedirs(new, mode=0o700, exist_ok=True)
            text = text.replace(f"= {old}\n", f"= {new}\n")
        text = text.replace(self.address, at.address).replace(f"listen = {at.address}:{METRICS_PORT}\n", "listen =\n")
        mounts = ""
        for name, path in (("id", "/etc/machine-id"), ("boot-id", "/proc/sys/kernel/random/boot_id")):
            with open(f"{base}.{name}", "w") as file:
                file.write(f"{uuid.uuid4()}\n")
            mounts += f"mount --bind {base}.{name} {path} && "
        with open(f"{base}.ini", "w") as file:
            file.write(text)
        argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{mounts}exec "$@"', "sh", self.argv[0], "--config",
                f"{base}.ini"]
        return Daemon(f"{self.name}-copy", at.namespace, argv, f"{base}.log")

    def public_key(self):
        with open(self.key + ".pub") as file:
            return file.read().split()[0]


class Lab:
    def __init__(self, build, guest, hosts=3, controllers=3, cores=1.0, memory=2048 * MiB, disk_iops=400, lease_ms=5000,
                 controller_keys=(), host_keys=(), crash_points=False, prefix="drv"):
        self.id = f"{prefix}-{secrets.token_hex(8)}"
        self.bin = os.path.abspath(f"{build}/bin")
        self.guest_directory = os.path.abspath(guest)
        self.directory = f"/var/tmp/{self.id}"
        self.shm = f"/dev/shm/{self.id}"
        self.fabric = f"{self.id}-fabric"
        self.cores, self.memory, self.disk_iops, self.lease_ms = cores, memory, disk_iops, lease_ms
        self.crash_points = crash_points
        self.controller_keys = list(controller_keys)  # further lines of the controllers' configuration: (section, line)
        self.host_keys = list(host_keys)  # the same of the hosts'
        self.controllers = {f"c{i}": Node(self, f"c{i}", f"10.76.0.{10 + i}", "drover-controller")
                            for i in range(1, controllers + 1)}
        self.hosts = {f"h{i}": Node(self, f"h{i}", f"10.76.0.{100 + i}", "drover-hostd") for i in range(1, hosts + 1)}
        self.config = f"{self.directory}/drover.ini"
        self.addresses = {}  # of guests, by VM
        self._given = 0  # addresses so far: none is given twice
        self.on_failure = None  # called with the lab before it is removed, when an exception ends its `with`
        self._reaper = None
        self._closers = []

    # ---- life

    def __enter__(self):
        self._reaper = reaper.Reaper(self.id)
        try:
            reaper.register(self.id, self.namespaces(), [])
            self._make_directories()
            self._make_network()
            self._make_keys()
            self._write_configurations()
            self._found()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind and self.on_failure:
            self.on_failure(self)
        self.close()

    def close(self):
        """Ends and removes everything."""
        self.forget_connections()
        if self._reaper:
            self._reaper.clean()
            self._reaper = None

    def leave(self):
        """Forgets the lab, which stays up: reaper.clean(lab.id) ends it."""
        self._reaper.leave()
        self._reaper = None

    def start(self, timeout=PATIENCE_S):
        """Starts controllers and hosts, enrols the hosts, and waits until all are up."""
        for node in self.controllers.values():
            node.daemon.start()
        self.leader(timeout)
        for node in self.hosts.values():
            self.cli("host", "add", node.name, "--key", node.public_key())
            node.daemon.start()
        self.wait_hosts(timeout)

    def namespaces(self):
        return [self.fabric] + [node.namespace for node in self.nodes()]

    def nodes(self):
        return list(self.controllers.values()) + list(self.hosts.values())

    # ---- making

    def _make_directories(self):
        for directory in (self.directory, self.shm):
            reaper.make_directory(self.id, directory)
        for name in ("keys", "disks"):
            os.mkdir(f"{self.directory}/{name}", 0o700)
        for node in self.nodes():
            os.mkdir(node.directory, 0o700)
            os.mkdir(node.cores, 0o700)
        for node in self.hosts.values():
            os.mkdir(node.memory_directory, 0o700)
            os.mkdir(node.disks, 0o700)

    def _make_network(self):
        netns.ip([f"netns add {name}" for name in self.namespaces()])
        wires = [f"link add {bridge} type bridge forward_delay 0 mcast_snooping 0" for bridge in ("mgmt", "guest")]
        wires += ["link set lo up", "addr add 10.76.0.1/24 dev mgmt", "addr add 10.77.0.1/16 dev guest"]
        for node in self.nodes():
            networks = ("mgmt", "guest") if node.name in self.hosts else ("mgmt",)
            for bridge in networks:
                end = "uplink" if bridge == "guest" else "mgmt"
                wires += [f"link add {bridge}-{node.name} type veth peer name {end} netns {node.namespace}",
                          f"link set {bridge}-{node.name} master {bridge} up"]
        netns.ip_in(self.fabric, wires + ["link set mgmt up", "link set guest up"])
        for node in self.nodes():
            netns.ip_in(node.namespace, ["link set lo up", f"addr add {node.address}/24 dev mgmt", "link set mgmt up"])

    def _make_keys(self):
        for name in [node.name for node in self.nodes()] + ["admin"]:
            subprocess.run([f"{self.bin}/drover", "keygen", f"{self.directory}/keys/{name}"], check=True, capture_output=True)

    def _write_configurations(self):
        api = [f"controller = {node.public_key()} tcp://{node.address}:{API_PORT}" for node in self.controllers.values()]
        members = [f"member = {node.name} {node.public_key()} tcp://{node.address}:{RAFT_PORT} tcp://{node.address}:{API_PORT}"
                   for node in self.controllers.values()]
        with open(f"{self.directory}/keys/admin.pub") as file:
            admin = file.read().split()[0]
        for node in self.controllers.values():
            self._write_ini(node.config, [
                ("node", f"name = {node.name}"), ("node", f"key = {node.key}.key"), ("node", f"directory = {node.directory}"),
                ("raft", f"listen = tcp://{node.address}:{RAFT_PORT}"), ("api", f"listen = tcp://{node.address}:{API_PORT}"),
                ("metrics", f"listen = {node.metrics}"), *(("cluster", member) for member in members),
                ("cluster", f"admin = admin {admin}"), ("lease", f"ms = {self.lease_ms}"), *self.controller_keys])
        for node in self.hosts.values():
            self._write_ini(node.config, [
                ("host", f"key = {node.key}.key"), ("host", f"directory = {node.directory}"),
                ("storage", f"directory = {self.directory}/disks"), ("storage", f"directory = {node.disks}"),
                ("host", f"memory_directory = {node.memory_directory}"), ("host", f"migration_address = {node.address}"),
                *(("controllers", line) for line in api), ("capacity", f"cpu_cores = {self.cores}"),
                ("capacity", f"memory = {self.memory}"), ("capacity", f"disk_iops = {self.disk_iops}"),
                ("network", "bridge = drover0"), ("network", "uplink = uplink"), ("metrics", f"listen = {node.metrics}"),
                ("reuse", f"directory = {node.visits}"), *self.host_keys])
        self._write_ini(self.config, [("user", f"key = {self.directory}/keys/admin.key"),
                                      *(("controllers", line) for line in api)])

    def _found(self):
        """Makes the controllers a new cluster: each gets the first entry of its log."""
        for node in self.controllers.values():
            subprocess.run([*node.daemon.argv, "--found"], check=True, stdout=subprocess.DEVNULL)

    @staticmethod
    def _write_ini(target, lines):
        sections = {}
        for section, line in lines:
            sections.setdefault(section, []).append(line)
        with open(target, "w") as file:
            for section, keys in sections.items():
                file.write(f"[{section}]\n" + "\n".join(keys) + "\n\n")

    # ---- using

    def run(self, argv, timeout=PATIENCE_S, **options):
        """Runs a program in the fabric."""
        return subprocess.run(netns.command(self.fabric, argv), text=True, capture_output=True, timeout=timeout, **options)

    def cli(self, *arguments, check=True, timeout=300, form="json", config=None):
        """One call of `drover`, as the lab's administrator."""
        arguments = [str(argument) for argument in arguments]
        options = ["-o", form] if form else []
        if form and "--timeout" not in arguments:
            options += ["--timeout", str(PATIENCE_S)]
        done = self.run([f"{self.bin}/drover", *arguments, "--config", config or self.config, *options],
                        timeout=timeout)
        result = CliResult(arguments, done)
        if check and result.status != 0:
            raise CliError(result)
        return result

    def status(self, **options):
        return self.cli("cluster", "status", **options).json

    def leader(self, timeout=PATIENCE_S):
        """Name of the controller that leads, as soon as one does."""
        return until(lambda: self.status()["leader"], timeout, "a leader")

    def wait_hosts(self, timeout=PATIENCE_S):
        until(lambda: all(host["state"] == "up" for host in self.host_list()), timeout, "all hosts up")

    def host_list(self):
        return self.cli("host", "list").json

    def vm(self, name):
        return self.cli("vm", "show", name).json

    def vm_list(self):
        return self.cli("vm", "list").json

    def job(self, job_id):
        return self.cli("job", "show", job_id).json

    def progress(self, job_id):
        """What the job says of itself while it runs, {} where it does not."""
        return self.job(job_id)["progress"] or {}

    def job_list(self):
        return self.cli("job", "list").json

    def job_wait(self, job_id, timeout=2 * PATIENCE_S):
        """The job, once it has ended."""
        over = ("succeeded", "failed", "cancelled")
        return until(lambda: next(iter([j for j in [self.job(job_id)] if j["state"] in over]), None), timeout,
                     f"job {job_id} to end", interval=0.1)

    def address(self, vm):
        """The guest's address; given at the first call."""
        if vm not in self.addresses:
            self._given += 1
            assert self._given < 240 * 256, "out of addresses"
            self.addresses[vm] = f"10.77.{self._given // 240}.{11 + self._given % 240}"
        return self.addresses[vm]

    def vm_delete(self, vm):
        """Stops and deletes a VM. The next one of its name gets another address."""
        self.cli("vm", "stop", vm, "--force", check=False)
        self.cli("vm", "delete", vm)
        self.addresses.pop(vm, None)

    def disk(self, vm):
        """The file that vm_create() gives a VM as its disk."""
        return f"{self.directory}/disks/{vm}.raw"

    def vm_create(self, name, run="idle", host=None, memory=256 * MiB, disk=False, start=True, wait=True, extra=()):
        """Creates (and starts) a VM with the lab's guest. Its disk is a file that all hosts reach; `disk` may be its options."""
        arguments = ["vm", "create", name, "--memory", memory, "--vcpus", 1, "--kernel", f"{self.guest_directory}/vmlinux",
                     "--initrd", f"{self.guest_directory}/initramfs.cpio", "--nic", "default",
                     "--cmdline", f"console=ttyS0 quiet mitigations=off drover.ip={self.address(name)}/16 drover.run={run}"]
        if disk:
            with open(self.disk(name), "wb") as file:
                file.truncate(32 * MiB)
            arguments += ["--disk", self.disk(name) + ("" if disk is True else f",{disk}")]
        if host:
            arguments += ["--host", host]
        if start:
            arguments += ["--start"]
        self.cli(*arguments, *extra)
        if start and wait:
            self.guest_wait(name).close()

    def guest_wait(self, vm, timeout=2 * PATIENCE_S):
        """A connection to the guest's counter, as soon as it answers."""
        return until(lambda: self.guest(vm, timeout=2), timeout, f"guest {vm} to answer", interval=0.2)

    def guest(self, vm, timeout=PATIENCE_S):
        return self._closing(Guest(self.fabric, self.address(vm), timeout))

    def stream(self, vm, period_ms=20):
        """Every number costs an emulated guest about 1.5 ms of CPU time."""
        return self._closing(Stream(self.fabric, self.address(vm), period_ms))

    def pinger(self, vm):
        return self._closing(Pinger(f"{self.bin}/drover-pinger", self.fabric, self.address(vm)))

    def console(self, vm):
        return self._closing(Console(netns.command(
            self.fabric, [f"{self.bin}/drover", "vm", "console", vm, "--config", self.config])))

    def forget_connections(self):
        """Closes what guest(), stream() and pinger() opened."""
        for thing in reversed(self._closers):
            thing.close()
        self._closers.clear()

    def _closing(self, thing):
        self._closers.append(thing)
        return thing

    def migrate(self, vm, host, *flags, check=True, timeout=300):
        """Moves a VM and waits; returns the job."""
        result = self.cli("vm", "migrate", vm, "--to", host, *flags, check=check, timeout=timeout)
        return result.json if check else result

    # ---- looking at hosts from outside

    def programs(self, host, name):
        """Ids of the processes in a host's namespace whose program is called `name`, and that have not renamed themselves (an
        engine's guardian has)."""
        return [pid for pid in netns.processes([self.hosts[host].namespace])
                if os.path.basename((program.command_line(pid) or [""])[0]) == name and program.name(pid) == name[:15]]

    def guardians(self, host):
        """Ids of the guardians of engines on a host."""
        return [pid for pid in netns.processes([self.hosts[host].namespace]) if program.name(pid) == "drover-guardian"]

    def qemus(self, vm_id=None):
        """{host: [ids of QEMU processes]}, of one VM or of all."""
        found = {}
        for host in self.hosts:
            pids = [pid for pid in self.programs(host, "qemu-system-x86_64")
                    if vm_id is None or any(vm_id in word for word in program.command_line(pid))]
            if pids:
                found[host] = pids
        return found

    def cut_power(self, host, disk=False):
        """A host as a power cut leaves it: no process, no interface, nothing on its tmpfs; its daemon is to be started again. `disk`:
        host.directory was on one."""
        node = self.hosts[host]
        left = netns.kill_all([node.namespace])
        assert not left, f"{host}: {left} do not end"
        node.daemon.wait(PATIENCE_S)
        for link in netns.links(node.namespace):
            if link not in ("lo", "mgmt", "uplink"):
                netns.ip_in(node.namespace, [f"link del {link}"])
        for directory in (node.memory_directory,) if disk else (node.directory, node.memory_directory):
            shutil.rmtree(directory)
            os.mkdir(directory, 0o700)
        node.boot_anew()

    def residue(self, host):
        """What partitions and migrations left on a host where no VM runs: [] when it is clean."""
        node = self.hosts[host]
        left = [f"process {pid} {name}" for name in ("qemu-system-x86_64", "drover-migrate")
                for pid in self.programs(host, name)]
        left += [f"interface {link}" for link in netns.links(node.namespace)
                 if link not in ("lo", "mgmt", "uplink", "drover0")]
        for directory in (node.memory_directory, f"{node.directory}/partitions"):
            if os.path.isdir(directory):
                left += [f"{directory}/{entry}" for entry in sorted(os.listdir(directory)) if entry != "hostd.lock"]
        return left

    def crashes(self):
        """Programs that died of a fault of their own: core dumps, and engines that their host saw end by a signal that nobody sends here
        (everything is ended by SIGKILL). What goes well all the same hides them."""
        found = [core for node in self.nodes() for core in program.core_dumps(node.cores)]
        for node in self.hosts.values():
            with open(node.daemon.log, errors="replace") as file:
                found += [f"{node.name}: {line.strip()}" for line in file if "engine.killed" in line and "signal=9" not in line.split()]
        return found
