"""Which program dies at which point on which way of moving a VM: together they reach every point there is (base/crashpoint.c)."""
import collections


class Blow(collections.namedtuple("Blow", "whose point way victim")):
    """whose: the node whose program comes to the point. victim: empty, that program dies; companion: the QEMU it looks after."""

    def __str__(self):
        return " ".join(part for part in self if part)


ROUNDS = "connecting hello-sent precopy round-over switching stopped state-sent".split()
HAND_OVER = "handed-over hand-over-sent hand-over-answered farewell-sent done".split()
RECEIVING = "listening return-prepared receiving welcomed state-received loaded ready-sent".split()
STARTED = "hand-over-received owner start-asked guest-started hand-over-answered".split()
DISKS = "disks relay-connected mirror-begun disks-ready disks-equal disks-over".split()
DISKS_TAKEN = "disks-exported relay-connected disks-taken".split()
END = "engine-ended outcome-before outcome-after".split()
SETTLE = "settle-before settle-after settle-cleaned".split()
REMOVE = "end-recorded end-released end-removed".split()
COPY = "make open begin flush stop complete write-down continue dismiss close-old moved".split()
CALLED = "entered called answered proposed applied".split()
WRITTEN = "entered proposed applied".split()


def each(whose, prefix, names, way, victim=""):
    for name in names:
        yield Blow(whose, f"{prefix}.{name}", way, victim)


def each_record(way, *phases):
    for whose, phase in phases:
        yield from each(whose, "record", [f"before.{phase}", f"after.{phase}"], way)


MOVED = (("source", "handed-over"), ("source", "taken"), ("destination", "owner"))


def precopy():
    yield from each("source", "source", ROUNDS + HAND_OVER, "precopy")
    yield from each("destination", "destination", RECEIVING + STARTED + ["done", "farewell-received"], "precopy")
    yield from each_record("precopy", *MOVED)
    yield from each("destination", "hostd", ["prepare-received", "prepare-recorded", "prepare-spawned", "prepare-listening",
                                             "engine-recorded"] + END[1:] + SETTLE, "precopy")
    yield from each("source", "hostd", ["start-received", "start-recorded", "start-launched", "engine-recorded"] + END + REMOVE, "precopy")
    yield from each("source", "source", ROUNDS + HAND_OVER, "precopy", "companion")
    yield from each("destination", "destination", RECEIVING + STARTED + ["done"], "precopy", "companion")


def called_off():
    yield from each("source", "source", ["failing", "failed"], "cancel")
    yield from each("destination", "destination", ["failed"], "cancel")
    yield from each_record("cancel", ("source", "failed"), ("destination", "failed"))
    yield from each("destination", "hostd", END + REMOVE, "cancel")
    yield from each("source", "hostd", END + ["guest-resumed"] + SETTLE, "cancel")
    yield Blow("source", "source.doubt", "cut-precopy", "")
    yield from each("source", "hostd", ["resolve-saved", "resolve-resumed"], "doubt")
    yield Blow("destination", "hostd.fence-received", "held-start", "")
    yield Blow("destination", "hostd.fence-recorded", "held-prepare", "")


def postcopy():
    """Whatever the source does: its pages are still there. The destination until the guest runs."""
    yield from each("source", "source", ["precopy", "postcopy-asked", "switching", "state-sent", "postcopy", "all-here"] + HAND_OVER,
                    "postcopy")
    yield from each_record("postcopy", *MOVED)
    yield from each("destination", "destination", ["postcopy-armed", "stale-named", "loaded", "postcopy", "done", "farewell-received"] +
                    STARTED, "postcopy")
    for whose in ("source", "destination"):
        yield from each(whose, "hostd", END[1:], "postcopy")
    yield Blow("destination", "destination.postcopy", "postcopy", "companion")


def cut():
    """The link, between the hand-over of a post-copy and the destination's record: only the controllers still hear both."""
    yield from each("source", "source", ["unanswered"], "cut")
    yield from each("source", "source", ["unanswered"], "cut", "companion")
    yield from each_record("cut", ("destination", "failed"))
    yield from each("destination", "destination", ["failed"], "cut")
    yield from each("destination", "hostd", ["fence-received", "outcome-before", "outcome-after"] + REMOVE, "cut")
    yield from each("source", "hostd", ["engine-ended", "resolve-saved", "resolve-resumed"] + SETTLE, "cut")
    yield from each("leader", "controller.move", CALLED[1:3], "cut")
    yield from each("leader", "controller.undo", CALLED, "cut")


def gone():
    """The destination's engine dies before it has taken a guest that is handed over with pages still at the source."""
    yield from each("source", "hostd", ["forsake-received", "forsaken", "engine-ended", "in-doubt"], "gone")
    yield from each("source", "hostd", ["forsake-received", "forsaken", "in-doubt"], "gone-cancel")
    yield from each("leader", "controller.undo", CALLED, "gone-cancel")
    yield Blow("source", "hostd.in-doubt", "doubt", "")


def refused():
    """The destination's QEMU refuses to run the guest, which is given back."""
    for way in ("refused", "refused-postcopy"):
        yield from each("destination", "destination", ["returning", "failed"], way)
        yield from each_record(way, ("destination", "failed"), ("source", "failed"))
        yield from each("source", "source", ["hand-over-answered", "failing", "failed"], way)
        yield from each("destination", "hostd", END + REMOVE, way)
        yield from each("source", "hostd", END[1:] + SETTLE, way)
    yield Blow("source", "source.hand-over-answered", "refused-alone", "")


def given_back():
    """The destination's engine dies before its QEMU runs a guest whose pages are at the source, and then whoever finds that out."""
    for victim in ("", "companion"):
        yield from each("destination", "give-back", ["begun", "done"], "given-back", victim)
    yield from each_record("given-back", ("destination", "failed"))
    yield from each("destination", "hostd", END + REMOVE, "given-back")
    yield from each("source", "hostd", ["forsake-received", "forsaken", "resolve-saved"], "given-back")


def let_go():
    """An engine is killed together with its guardian, and then whoever lets go of the guest's memory in their stead."""
    for victim in ("", "companion"):
        yield from each("source", "release", ["begun", "done"], "let-go", victim)


def forecasts():
    """The engine of a dry run is killed together with its guardian, and then whoever sees to it that the guest goes on."""
    yield Blow("source", "hostd.forecast-begun", "dry-run", "")
    yield Blow("source", "hostd.forecast-ended", "dry-run-cancel", "")
    for victim in ("", "companion"):
        yield from each("source", "release", ["begun", "done"], "dry-run-cancel", victim)


def visits():
    """What a guest held when it left is kept, and offered when it comes back."""
    yield from each("source", "keep", ["begun", "sealed", "named", "keyed"], "visit")
    yield from each("source", "hostd", ["visit-taken", "visit-begun", "visit-kept"], "visit")
    yield from each("destination", "hostd", ["visit-keyless"], "visit-return")
    for victim in ("", "companion"):
        yield from each("source", "source", ["offer-asked", "offer-taken"], "visit-return", victim)
        yield from each("destination", "destination", ["image-opened", "image-told"], "visit-return", victim)


def with_storage():
    """Nothing is shared: the disks go along."""
    for victim in ("", "companion"):
        yield from each("source", "source", DISKS + ["precopy", "switching", "state-sent"] + HAND_OVER, "with-storage", victim)
        yield from each("destination", "destination", DISKS_TAKEN + ["welcomed", "state-received", "loaded"] + STARTED + ["done"],
                        "with-storage", victim)
    yield from each_record("with-storage", *MOVED)
    yield from each("destination", "hostd", ["prepare-recorded", "arrival-placed", "arrival-made", "arrival-committed",
                                             "prepare-listening", "arrival-settled"] + END[1:] + SETTLE, "with-storage")
    yield from each("source", "hostd", ["start-recorded", "leave-received", "leave-removed"] + END + REMOVE, "with-storage")
    yield from each("destination", "hostd", ["arrival-settled"] + END + REMOVE, "with-storage-cancel")
    yield from each("source", "hostd", ["guest-resumed"] + SETTLE, "with-storage-cancel")
    yield from each("source", "source", ["failing", "failed"], "with-storage-cancel")
    yield from each("leader", "controller.move", ["proposed", "applied"], "with-storage")
    yield from each("leader", "controller.finish", CALLED, "with-storage")


def move_storage():
    yield from each("source", "hostd", ["storage-received", "storage-recorded", "storage-linked", "storage-saved", "storage-outcome-before",
                                        "storage-outcome-after", "storage-concluded", "storage-finish-received",
                                        "storage-finish-removed"], "move-storage")
    yield from each("source", "hostd.copy", COPY, "move-storage")
    yield from each("source", "hostd.copy", ["strike", "close-target", "stayed"], "move-storage-cancel")
    yield from each("source", "hostd", ["storage-outcome-before", "storage-outcome-after", "storage-concluded"], "move-storage-cancel")


def controllers():
    """The leader; that it is killed is the same to every way, so each step is struck on one."""
    for step, names in (("preflight", CALLED), ("queue", WRITTEN), ("prepare", CALLED), ("allow", WRITTEN), ("move", CALLED),
                        ("finish", CALLED)):
        yield from each("leader", f"controller.{step}", names, "precopy")
    yield Blow("leader", "controller.outcome-told", "precopy", "")
    yield from each("leader", "controller.undo", CALLED, "cancel")
    for step in ("check", "copy", "finish"):
        yield from each("leader", f"controller.storage-{step}", CALLED, "move-storage")
    yield from each("leader", "controller.storage-undo", CALLED, "move-storage-cancel")
    for step in ("maintenance", "moves"):
        yield from each("leader", f"controller.evacuate-{step}", WRITTEN, "evacuate")
    yield from each("leader", "controller.evacuate-undo", WRITTEN, "evacuate-cancel")


def every():
    return [blow for group in (precopy, called_off, postcopy, cut, gone, refused, given_back, let_go, forecasts, controllers, with_storage, move_storage, visits) for blow in group()]


# Once the guest runs at the destination and pages are missing, it cannot go on without that engine: the named risk of post-copy.
LOST = {(name, "postcopy") for name in ("destination.start-asked", "destination.guest-started", "destination.hand-over-answered",
                                        "destination.postcopy")}
# Until here a guest outlives the death of the destination's QEMU; from then on that may be what runs it.
SPARES = {f"destination.{name}" for name in RECEIVING[:-2] + DISKS_TAKEN + ["image-opened", "image-told"]}


def may_end_guest(blow):
    return (blow.whose == "destination" and (blow.point, blow.way) in LOST) or (blow.victim != "" and blow.point not in SPARES)

# Those that every run strikes.
USUAL = [Blow("source", "record.before.handed-over", "precopy", ""), Blow("source", "record.after.handed-over", "precopy", ""),
         Blow("destination", "destination.hand-over-received", "precopy", ""), Blow("destination", "record.after.owner", "precopy", ""),
         Blow("destination", "record.after.owner", "postcopy", ""),
         Blow("destination", "destination.loaded", "precopy", "companion"), Blow("destination", "hostd.settle-before", "precopy", ""),
         Blow("source", "hostd.outcome-after", "cancel", ""), Blow("leader", "controller.move.proposed", "precopy", ""),
         Blow("source", "source.postcopy", "postcopy", ""), Blow("source", "hostd.storage-linked", "move-storage", ""),
         Blow("destination", "record.after.owner", "with-storage", "")]


def chosen(which):
    """all, K/N (every N-th, from the K-th), =BLOW=BLOW... (as the table shows them, one as often as it is named), the beginning of some
    points' names, or nothing: the usual ones."""
    if not which:
        return USUAL
    if which == "all":
        return every()
    if "=" in which:
        known = {str(blow): blow for blow in every()}
        return [known[name] for name in which.split("=") if name in known]
    if "/" in which:
        share, of = (int(part) for part in which.split("/"))
        return every()[share - 1::of]
    return [blow for blow in every() if blow.point.startswith(which)]
