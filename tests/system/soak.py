"""How far a soak has come: counts in a file, so that one that was stopped goes on where it stood."""
import json
import os


class Soak:
    def __init__(self, path, target):
        self.path, self.target = path, target
        self.counts = {"moves": 0, "different": 0, "checksums": 0, "loads": {}, "blackout_ms_max": 0}
        if os.path.exists(path):
            with open(path) as file:
                self.counts.update(json.load(file))

    def left(self):
        return self.counts["moves"] < self.target

    def moved(self, load, blackout_us, same):
        counts = self.counts
        counts["moves"] += 1
        counts["different"] += not same
        counts["loads"][load] = counts["loads"].get(load, 0) + 1
        counts["blackout_ms_max"] = max(counts["blackout_ms_max"], round(blackout_us / 1000))
        self._save()

    def compared(self):
        self.counts["checksums"] += 1
        self._save()

    def _save(self):
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(f"{self.path}.new", "w") as file:
            json.dump(self.counts, file)
        os.replace(f"{self.path}.new", self.path)

    def summary(self):
        counts = self.counts
        return (f"{counts['moves']} moves in all, {counts['different']} with memory that differs, {counts['checksums']} disk checksums "
                f"equal; by load {counts['loads']}; longest blackout with hashing {counts['blackout_ms_max']} ms")
