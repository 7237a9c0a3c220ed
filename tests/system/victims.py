"""The VMs that are moved while programs die, and what they may leave behind."""
import glob
import os

from lab import netns, program
from watched import Watched

MiB = 1 << 20
AT_REST = ("partition.json", "qemu.log", "serial.log", "qmp.sock", "qmp-engine.sock", "serial.sock", "addresses")


def locks_on(path):
    """Whether somebody holds a lock on a file."""
    inode = os.stat(path).st_ino
    with open("/proc/locks") as file:
        return any(line.split()[5].endswith(f":{inode}") for line in file if len(line.split()) > 5)


class Victim:
    """The VM that is moved while programs die, and what it leaves where."""

    name, load, shared, keeps = "struck", "mem:500:16M", True, False

    def __init__(self, lab):
        self.lab = lab
        lab.vm_create(self.name, run=self.load, host="h1", extra=("--disk", self.make_disk()))
        self.id = lab.vm(self.name)["id"]
        self.watched = Watched(lab, self.name)

    def make_disk(self):
        path = f"{self.lab.directory}/disks/{self.name}.raw" if self.shared else f"{self.lab.hosts['h1'].disks}/{self.name}.raw"
        with open(path, "wb") as file:
            file.truncate(16 * MiB)
        return path

    def check(self):
        self.watched.check()

    def born_again(self):
        self.lab.forget_connections()
        directory = os.path.dirname(self.disks()[0])
        home = [word for node in self.lab.hosts.values() if node.disks == directory for word in ("--host", node.name)]
        self.lab.cli("vm", "start", self.name, *home)
        self.lab.guest_wait(self.name).close()
        self.watched = Watched(self.lab, self.name)

    # ---- from outside

    def left_on(self, node, is_owner):
        """What is on a host that a partition at rest does not need."""
        processes = [pid for pid in netns.processes([node.namespace]) if pid != node.daemon.pid]
        qemus = [pid for pid in processes if os.path.basename((program.command_line(pid) or [""])[0]) == "qemu-system-x86_64"]
        spared = qemus[:1] if is_owner else []
        left = [f"process {pid} {os.path.basename((program.command_line(pid) or ['?'])[0])}" for pid in processes if pid not in spared]
        taps = [link for link in netns.links(node.namespace) if link not in ("lo", "mgmt", "uplink", "drover0")]
        left += [f"interface {tap}" for tap in taps[is_owner:]]
        memory = [name for name in os.listdir(node.memory_directory) if name != "hostd.lock"]
        left += [f"RAM file {name}" for name in memory if not (is_owner and self.id in name and not name.endswith(".leaving"))]
        left += [f"lock on {name}" for name in memory if locks_on(f"{node.memory_directory}/{name}")]
        partitions = f"{node.directory}/partitions"
        for entry in os.listdir(partitions):
            if not is_owner or entry != self.id:
                left.append(f"partition {entry}")
            else:
                left += [f"file {name}" for name in os.listdir(f"{partitions}/{entry}") if name not in AT_REST]
        left += self.left_of_visits(node, is_owner)
        left += [f"untold {name}" for name in os.listdir(f"{node.directory}/outcomes") if not name.endswith(".told")]
        return [f"{node.name}: {thing}" for thing in left]

    def left_of_visits(self, node, is_owner):
        """What is kept of its last visit there: all that belongs to it, or nothing."""
        found = [name for directory in (node.visits, f"{node.directory}/visits") if os.path.isdir(directory)
                 for name in sorted(os.listdir(directory))]
        return [] if found == [f"{self.id}.image", f"{self.id}.key"] and not is_owner else [f"visit {name}" for name in found]

    def disks(self):
        """Files of its disk, partial ones included."""
        directories = [f"{self.lab.directory}/disks"] + [node.disks for node in self.lab.hosts.values()]
        return [f"{directory}/{entry}" for directory in directories for entry in os.listdir(directory) if self.name in entry]

    def disorder(self, mortal):
        """What keeps this from being one owner with nothing left behind: [] when it is."""
        lab = self.lab
        homes = lab.qemus(self.id)
        if len(homes) > 1 or (not homes and not mortal):
            return [f"QEMU on {list(homes) or 'no host'}"]
        left = [f"{node.name}: no daemon" for node in lab.nodes() if not node.daemon.alive()]
        for node in lab.hosts.values():
            left += self.left_on(node, node.name in homes)
        cgroups = {path.split("/")[-2] for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/*")
                   for path in glob.glob(f"{top}/drover-*/{self.id}")}
        if len(cgroups) > len(homes):
            left.append(f"control groups {sorted(cgroups)}")
        if len(self.disks()) != 1:
            left.append(f"disks {self.disks()}")
        return left or self.disagreement(homes)

    def disagreement(self, homes):
        """What the controllers say that is not so."""
        info = self.lab.vm(self.name)
        found = []
        if [info["owner"]] != (list(homes) or [""]):
            found.append(f"owner {info['owner'] or 'nobody'}")
        if homes and info["state"] != "running":
            found.append(f"VM is {info['state']}")
        if info["hand_over"]:
            found.append("a leave to hand over")
        if [info["spec"]["disks"][0]["path"]] != self.disks():
            found.append("definition names another disk")
        return found


class Nomad(Victim):
    """Its disk is not shared, and the guest writes to it."""

    name, load, shared = "nomad", "disk:100,mem:500:16M", False

    def check(self):
        super().check()
        assert self.watched.guest.verify("disk") > 0


class Visitor(Victim):
    """Hosts keep what it held when it left."""

    name, keeps = "visitor", True
