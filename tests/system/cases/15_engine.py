"""The migration engine by itself: QEMU and drover-migrate, no daemons. One guest goes from host to host, by one tracker after
the other; each time the move is first called off, then its source engine is killed, then it is let through."""
import os

from bare import Side, move
from harness import MIGRATION, TRACKERS, case
from lab.program import until

RUN, MEMORY_MIB = "mem:2000:32M", 192
SLOW = [("limits", "bandwidth = 1M")]


class Moves:
    """A guest, and the host it is on."""

    def __init__(self, lab):
        self.lab = lab
        self.source = Side(lab, "h1", MEMORY_MIB, RUN, incoming=False)
        self.guest, self.stream, self.counter = lab.guest_wait("bare"), lab.stream("bare"), 0

    def begin(self, tracker, *keys):
        target = "h2" if self.source.node.name == "h1" else "h1"
        return move(self.lab, self.source, target, MEMORY_MIB, RUN, keys=[("tracker", f"kind = {tracker}"), *keys])

    def check(self):
        """The same guest goes on, with its memory intact and its connection alive."""
        self.counter += 1
        assert self.guest.counter() == self.counter and self.guest.verify() >= 32 * 256
        assert self.stream.alive(), self.stream.problem

    def cancelled(self, tracker):
        destination = self.begin(tracker, *SLOW)
        self.source.event("round", "phase")
        self.source.cancel()
        failed = self.source.event("done", "failed")
        assert failed["event"] == "failed" and failed["code"] == "cancelled", failed
        assert destination.event("done", "failed")["event"] == "failed"
        assert (self.source.engine.wait(60), destination.engine.wait(60)) == (1, 1)
        destination.end()
        self.check()

    def killed(self, tracker):
        """Nobody repairs anything here, so the guest must go on by itself."""
        destination = self.begin(tracker, *SLOW)
        until(lambda: self.source.event("phase")["phase"] == "precopy", 60, "pre-copy")
        destination.event("phase")
        self.source.engine.kill()
        assert self.source.engine.wait(60) == -9
        assert destination.event("done", "failed")["event"] == "failed"
        destination.engine.wait(60)
        destination.end()
        self.check()

    def moved(self, tracker):
        destination = self.begin(tracker)
        done = self.source.event("done", "failed")
        assert done["event"] == "done", done
        record = done["record"]
        assert record["tracker"] == tracker
        assert record["source_hash"] and record["source_hash"] == record["destination_hash"], record
        assert destination.event("done", "failed")["event"] == "done"
        assert (self.source.engine.wait(60), destination.engine.wait(60)) == (0, 0)
        self.source.end()
        assert not os.path.exists(self.source.ram)
        self.source = destination
        self.check()
        return f"{tracker} {record['total_us'] / 1000:.0f} ms, blackout with hashing {record['blackout_us'] / 1000:.0f} ms"


@case(needs=MIGRATION, own_lab=True)
def engine_alone_by_every_tracker(run):
    with run.new_lab(hosts=2, controllers=0) as lab:
        moves = Moves(lab)
        for tracker in TRACKERS:
            moves.cancelled(tracker)
            moves.killed(tracker)
            run.note(moves.moved(tracker))
        moves.source.end()
