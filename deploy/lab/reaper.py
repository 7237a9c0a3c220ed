"""Cleans a lab away, whatever ended the program that made it.

Partitions and engines outlive hostd by design, so ending the daemons is not enough: everything that lives in the lab's
namespaces goes. The reaper is a process of its own, in a session of its own, that reads a pipe whose other end only the
lab's program holds. End of file without a word before means that the program has died: then the reaper cleans.

A lab is known to the machine by its file in REGISTRY, so that a later program can stop one that was left up on purpose.
"""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lab import netns

REGISTRY = "/run/drover-labs"


def register(name, namespaces, directories):
    os.makedirs(REGISTRY, exist_ok=True)
    target = f"{REGISTRY}/{name}.json"
    with open(target + ".new", "w") as file:
        json.dump({"name": name, "namespaces": namespaces, "directories": directories}, file)
    os.rename(target + ".new", target)


def registered():
    """Names of the labs on this machine."""
    try:
        return sorted(entry[:-5] for entry in os.listdir(REGISTRY) if entry.endswith(".json"))
    except FileNotFoundError:
        return []


def clean(name):
    """Ends and removes everything of lab `name`. Returns what could not be removed."""
    target = f"{REGISTRY}/{name}.json"
    try:
        with open(target) as file:
            entry = json.load(file)
    except FileNotFoundError:
        return []
    left = [f"process {pid}" for pid in netns.kill_all(entry["namespaces"])]
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
