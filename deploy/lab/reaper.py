"""Cleans a lab away, whatever ended the program that made it.

Partitions and engines outlive hostd by design, so ending the daemons is not enough: everything that lives in the lab's
namespaces goes. The reaper is a process of its own, in a session of its own, that reads a pipe whose other end only the
lab's program holds. End of file without a word before means that the program has died: then the reaper cleans.

A lab is known to the machine by its file in REGISTRY, so that a later program can stop one that was left up on purpose.
"""
import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lab import netns

REGISTRY = "/run/drover-labs"


def register(name, namespaces, directories):
    os.makedirs(REGISTRY, exist_ok=True)
    target = f"{REGISTRY}/{name}.json"
    with open(target + ".new", "w") as file:
        json.dump({"name": name, "namespaces": namespaces, "directories": directories}, file)
    os.rename(target + ".new", target)


def make_directory(name, path):
    """Makes a directory that is this lab's, its owner's alone, and goes with it. FileExistsError when there is something of that name: others
    may write into /var/tmp and /dev/shm, and what they put there first must not become root's."""
    os.mkdir(path, 0o700)
    with open(f"{REGISTRY}/{name}.json") as file:
        entry = json.load(file)
    register(name, entry["namespaces"], entry["directories"] + [path])


def registered():
    """Names of the labs on this machine."""
    try:
        return sorted(entry[:-5] for entry in os.listdir(REGISTRY) if entry.endswith(".json"))
    except FileNotFoundError:
        return []


def control_groups(pids):
    """Directories of the control groups that hostd made for these processes (hostd/cgroup.c)."""
    names = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup") as file:
            for line in file:
                host, _, guest = line.rstrip("\n").rpartition(":/")[2].partition("/")
                if host.startswith("drover-") and guest:
                    names |= {host, f"{host}/{guest}"}
    return {path for name in names for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/*") for path in glob.glob(f"{top}/{name}")}


def remove_groups(groups, deadline_s=60):
    """Returns those still there: a process that has just died is counted for a moment."""
    end = time.monotonic() + deadline_s
    while True:
        for path in sorted(groups, reverse=True):  # a host's guests before itself
            with contextlib.suppress(OSError):
                os.rmdir(path)
        groups = {path for path in groups if os.path.exists(path)}
        if not groups or time.monotonic() > end:
            return sorted(groups)
        time.sleep(0.02)  # the kernel has no event for it


def clean(name):
    """Ends and removes everything of lab `name`. Returns what could not be removed."""
    target = f"{REGISTRY}/{name}.json"
    try:
        with open(target) as file:
            entry = json.load(file)
    except FileNotFoundError:
        return []
    groups = control_groups(netns.processes(entry["namespaces"]))
    left = [f"process {pid}" for pid in netns.kill_all(entry["namespaces"])]
    left += [f"control group {path}" for path in remove_groups(groups)]
    netns.delete(entry["namespaces"])
    for directory in entry["directories"]:
        shutil.rmtree(directory, ignore_errors=True)
        if os.path.exists(directory):
            left.append(directory)
    if not left:
        os.unlink(target)
    return left


class Reaper:
    """The program's side."""

    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), name], stdin=subprocess.PIPE,
                                        start_new_session=True, close_fds=True, cwd="/")

    def _tell(self, word):
        try:
            self.process.stdin.write(word)
            self.process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass
        self.process.wait()

    def clean(self):
        """Has everything cleaned away, and waits for it."""
        self._tell(b"")

    def leave(self):
        """Leaves the lab as it is; it stays registered."""
        self._tell(b"leave\n")


def main():
    name = sys.argv[1]
    if sys.stdin.buffer.readline() == b"leave\n":
        return 0
    left = clean(name)
    for thing in left:
        print(f"lab {name}: could not remove {thing}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
