"""How far a soak has come: counts in a file, so that one that was stopped goes on where it stood."""
import json
import os


class Tally:
    """The counts of one soak: a number under each name. All soaks share a file; each has its own part of it."""

    def __init__(self, path, part):
        self._path, self._part = path, part
        self._file = {}
        if os.path.exists(path):
            with open(path) as file:
                self._file = json.load(file)
        self._counts = self._file.setdefault(part, {})

    def __getitem__(self, name):
        return self._counts.get(name, 0)

    def add(self, *names):
        for name in names:
            self._counts[name] = self[name] + 1
        self._save()

    def raise_to(self, name, value):
        self._counts[name] = max(self[name], value)
        self._save()

    def _save(self):
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        with open(f"{self._path}.new", "w") as file:
            json.dump(self._file, file, indent=1)
        os.replace(f"{self._path}.new", self._path)

    def __str__(self):
        return ", ".join(f"{count} {name}" for name, count in sorted(self._counts.items()))
