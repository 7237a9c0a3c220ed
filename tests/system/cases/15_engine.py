"""The migration engine by itself: QEMU and drover-migrate, no daemons."""
import os

from bare import Side, move
from harness import MIGRATION, case

RUN, MEMORY_MIB = "mem:2000:32M", 192


@case(deadline=90, needs=MIGRATION, own_lab=True)
def engine_alone_moves_and_cancels(run):
    with run.new_lab(hosts=2, controllers=0) as lab:
        source = Side(lab, "h1", MEMORY_MIB, RUN, incoming=False)
        guest, stream = lab.guest_wait("bare"), lab.stream("bare")

        slow = [("limits", "bandwidth = 2M")]
        destination = move(lab, source, "h2", MEMORY_MIB, RUN, keys=slow)
        source.event("round", "phase")
        source.cancel()
        failed = source.event("done", "failed")
        assert failed["event"] == "failed" and failed["code"] == "cancelled", failed
        assert destination.event("done", "failed")["event"] == "failed"
        assert (source.engine.wait(10), destination.engine.wait(10)) == (1, 1)
        destination.end()
        assert guest.counter() == 1 and guest.verify() >= 32 * 256 and stream.alive()

        destination = move(lab, source, "h2", MEMORY_MIB, RUN)
        record = source.event("done", "failed")["record"]
        assert record["source_hash"] and record["source_hash"] == record["destination_hash"], record
        assert destination.event("done", "failed")["event"] == "done"
        assert (source.engine.wait(10), destination.engine.wait(10)) == (0, 0)
        source.end()
        assert not os.path.exists(source.ram)
        assert guest.counter() == 2 and guest.verify() >= 32 * 256 and stream.alive(), stream.problem
        run.note(f"{record['total_us'] / 1000:.0f} ms, blackout with hashing {record['blackout_us'] / 1000:.0f} ms")
