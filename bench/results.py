"""The file of results: JSON lines, appended to after each run, so that an interrupted comparison goes on where it stood.

    {"kind": "settings", ...}   the first line: what all runs have in common
    {"kind": "session", ...}    each time the program is started on it: machine, builds
    {"kind": "skip", "cell": .., "reason": ..}
    {"kind": "run", "suite": .., "workload": .., "link": .., "engine": .., "number": .., "outcome": .., figures}
"""
import glob
import json
import os

import figures
from plan import Task


class Results:
    def __init__(self, path):
        self.path = path
        self.settings, self.sessions, self.runs, self.skipped = None, [], [], {}

    @classmethod
    def create(cls, path, settings):
        made = cls(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x"):
            pass
        made.settings = settings
        made._append({"kind": "settings", **settings})
        return made

    @classmethod
    def load(cls, path):
        """ValueError when the file is none of ours. A last line that was cut off by a crash is left out (and cut away)."""
        loaded = cls(path)
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
        whole = 0
        for line in lines[:-1]:
            loaded._take(json.loads(line))
            whole += len(line) + 1
        if lines[-1]:
            os.truncate(path, whole)
        if loaded.settings is None:
            raise ValueError(f"{path} holds no settings")
        return loaded

    def _take(self, line):
        kind = line.pop("kind")
        if kind == "settings":
            self.settings = line
        elif kind == "session":
            self.sessions.append(line)
            self.skipped = {}  # told anew each time
        elif kind == "skip":
            self.skipped[line["cell"]] = line["reason"]
        elif kind == "run":
            self.runs.append(line)

    def _append(self, line):
        with open(self.path, "a") as file:
            file.write(json.dumps(figures.finite(line)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def begin_session(self, session):
        self._append({"kind": "session", **session})
        self._take({"kind": "session", **session})

    def skip(self, cell, reason):
        if cell not in self.skipped:
            self._append({"kind": "skip", "cell": cell, "reason": reason})
            self.skipped[cell] = reason

    def add(self, task, result):
        line = {"suite": task.suite, "workload": task.workload, "link": task.link, "engine": task.engine,
                "number": task.number, "session": len(self.sessions), **result}
        self._append({"kind": "run", **line})
        self.runs.append(line)

    def done(self):
        """Tasks that need not be run again. Runs without a guest do not count."""
        return {Task(run["suite"], run["workload"], run["link"], run["engine"], run["number"])
                for run in self.runs if run["outcome"] != "void"}


def latest(folder):
    """Path of the newest file of results, or None."""
    found = glob.glob(f"{folder}/*.jsonl")
    return max(found, key=os.path.getmtime) if found else None
