"""Programs that die at named points (base/crashpoint.h), links that are cut while they stand at one, and a supervisor that starts daemons again, as systemd would."""
import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import threading
import time

from lab import netns, program
from lab.program import until

RESTART_S = 0.3


def known_points(lab):
    """Every point that the programs have."""
    return subprocess.run([f"{lab.bin}/drover-migrate", "--crash-points"], check=True, text=True, capture_output=True).stdout.split()


def arm(node, point, victim=""):
    """The next program of this node that reaches the point dies there, or its companion does, or it stops: victim (companion, pause)."""
    with open(f"{node.crash_file}.new", "w") as file:
        file.write(f"{point} {victim}".strip() + "\n")
    os.rename(f"{node.crash_file}.new", node.crash_file)


def reached(node):
    return os.path.exists(f"{node.crash_file}.hit")


def hit_at(node):
    """When it was reached, as time.time(): the program renames the file and dies at once."""
    return os.stat(f"{node.crash_file}.hit").st_ctime


def kill_with_guardian(lab, host):
    """Kills the engine that watches a guest on that host and its guardian, which would let the guest's writes through, before either can act."""
    engine, = lab.programs(host, "drover-migrate")
    os.kill(engine, signal.SIGSTOP)
    guardian, = lab.guardians(host)
    os.kill(guardian, signal.SIGKILL)
    os.kill(engine, signal.SIGKILL)


def unlisted_points(lab):
    """Points that a program of this lab came to and the table does not name."""
    found = set()
    for node in lab.nodes():
        if os.path.exists(f"{node.crash_file}.unlisted"):
            with open(f"{node.crash_file}.unlisted") as file:
                found |= set(file.read().split())
    return sorted(found)


def wait_reached(node, what, timeout=60):
    until(lambda: reached(node), timeout, f"{what} to be reached", 0.01)


def go_on(*pids):
    """Continues programs that have paused at a point: they stop themselves, and a moment after the point is seen to be reached."""
    for pid in pids:
        until(lambda: program.state(pid) in "T", 60, f"process {pid} to stop", 0.01)
        os.kill(pid, signal.SIGCONT)


def disarm(node):
    for path in (node.crash_file, f"{node.crash_file}.hit"):
        if os.path.exists(path):
            os.unlink(path)


PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request, tid):
    if _libc.ptrace(request, tid, None, None) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")


class HeldThread:
    """One thread of a process, found by its name, does not run, while the others do."""

    def __init__(self, pid, *names):
        names_now = {tid: program.name(tid) for tid in map(int, os.listdir(f"/proc/{pid}/task"))}
        self.tid = next((tid for tid, name in names_now.items() if name in names), None)
        assert self.tid, f"no thread of {pid} is called {names}: {names_now}"

    def __enter__(self):
        ptrace(PTRACE_SEIZE, self.tid)
        ptrace(PTRACE_INTERRUPT, self.tid)
        os.waitpid(self.tid, WALL)
        return self

    def __exit__(self, *_):
        ptrace(PTRACE_DETACH, self.tid)


class HeldDisk:
    """Somebody has a disk in use, so that no QEMU opens it for writing any more; one that has it open already goes on."""

    # QEMU proves to itself by locks on single bytes that nobody minds what it does: 200 is the first of those, and writing the second.
    NO_OTHER_WRITER = 201

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.file = os.open(self.path, os.O_RDONLY)
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, self.NO_OTHER_WRITER, 1, 0)
        fcntl.fcntl(self.file, getattr(fcntl, "F_OFD_SETLK", 37), lock)
        return self

    def __exit__(self, *_):
        if self.file is not None:
            os.close(self.file)
        self.file = None


class Severed:
    """Two hosts do not hear each other, and the controllers hear both."""

    def __init__(self, one, other):
        self.pairs = ((one, other), (other, one))

    def __enter__(self):
        for node, other in self.pairs:
            netns.ip_in(node.namespace, [f"neigh replace {other.address} lladdr 02:00:00:00:00:01 dev mgmt nud permanent"])
        return self

    def __exit__(self, *_):
        for node, other in self.pairs:
            netns.ip_in(node.namespace, [f"neigh del {other.address} dev mgmt"])


class Supervisor:
    """Starts a lab's daemons again when they die, but for those that are held."""

    def __init__(self, lab):
        self.nodes = lab.nodes()
        self.held = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self._over.wait(0.05):
            for node in self.nodes:
                if node.name not in self.held and not node.daemon.alive():
                    time.sleep(RESTART_S)
                    node.daemon.start()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.held.clear()
        self._over.set()
        self._thread.join()
