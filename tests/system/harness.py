"""The runner behind tests/system/run.

A test is a function `def test(run)` under @case. It fails by raising. `run.lab` is a cluster shared by the tests: made when first
asked for, checked after every test (no VM, job or residue left; all daemons up), thrown away after a failure or when it was left
dirty, which fails the test that did so.
"""
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback

from lab import netns
from lab.lab import Lab
from lab.program import backtrace, core_dumps, until

# The optimizer acts when a test turns it on, and then without the patience that suits a real cluster.
SHARED_LAB = {"lease_ms": 3000, "crash_points": True, "controller_keys": [("optimizer", line) for line in (
    "automatic = false", "hold_s = 5", "settle_s = 2", "rest_s = 60")]}


class Skip(Exception):
    """The machine lacks what the test needs; the message says what."""


class Overdue(BaseException):
    """The test's deadline; not an Exception, so that no test swallows it."""


def told(error):
    """The traceback, with what the test's own functions knew: their assertions do not say it all."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in shown.stack:
        ours = f"{os.sep}tests{os.sep}system{os.sep}" in frame.filename and "harness" not in frame.filename
        frame.locals = {name: value[:LOCAL_CHARACTERS] for name, value in frame.locals.items()} if ours and frame.locals else None
    return "".join(shown.format())


LOCAL_CHARACTERS = 600


class Case:
    def __init__(self, function, deadline, needs, own_lab, soak):
        self.name = function.__name__
        self.function = function
        self.deadline = deadline
        self.needs = needs
        self.own_lab = own_lab
        self.soak = soak


_cases = []


def case(deadline=600, needs=("root", "namespaces"), own_lab=False, soak=False):
    """Declares a test. deadline: in seconds, ends a hang. own_lab: it makes its own and leaves the shared one alone. soak: only with --soak."""
    def declare(function):
        _cases.append(Case(function, deadline, needs, own_lab, soak))
        return function
    return declare


MIGRATION = ("root", "namespaces", "tracker")


def load(directory):
    """All tests of a directory, in the order of its files' names."""
    for entry in sorted(os.listdir(directory)):
        if entry.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"cases.{entry[:-3]}", os.path.join(directory, entry))
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return list(_cases)


def missing_root():
    return None if os.geteuid() == 0 else "needs root"


def missing_namespaces():
    name = f"drv-probe-{os.getpid()}"
    try:
        netns.ip([f"netns add {name}"])
        netns.ip_in(name, ["link add probe type bridge", "link add probe0 type veth peer name probe1"])
    except (RuntimeError, OSError) as error:
        return f"network namespaces, bridges or veth are not to be had: {error}"
    finally:
        netns.delete([name])
    return None if os.path.exists("/dev/net/tun") else "no /dev/net/tun"


def kernel():
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])


# What this machine's kernel can track writes by, the best first.
TRACKERS = [name for name, since in (("wp-async", (6, 7)), ("wp-sync", (5, 19)), ("qemu", (0, 0))) if kernel() >= since]


def missing_tracker():
    return None if kernel() >= (5, 19) else f"dirty page tracking needs Linux 5.19, this is {platform.release()}"


CAPABILITIES = {"root": missing_root, "namespaces": missing_namespaces, "tracker": missing_tracker,
                "promtool": lambda: None if shutil.which("promtool") else "promtool is not installed (package prometheus)"}


COMPLAINTS = 12  # of each log, the newest


def complaints(directory):
    """What the logs there have to say against how things went: where only the output is kept, it tells where to look."""
    for name in sorted(os.listdir(directory)):
        if name.endswith(".log"):
            with open(f"{directory}/{name}", errors="replace") as file:
                lines = [line.strip()[:300] for line in file if "level=error" in line or "level=warn" in line]
            if lines:
                yield from (f"{name}:", *(f"  {line}" for line in lines[-COMPLAINTS:]))


class Run:
    """What tests get: the shared lab, options, and a place for figures worth showing."""

    def __init__(self, options, logs, guest_build):
        self.options = options
        self.logs = logs
        self.guest_build = guest_build
        self.soak = options.soak
        self.notes = []
        self.running = ""  # name of the test
        self._lab = None
        self._capabilities = {}
        self._guest_made = False

    def note(self, text):
        """A figure for the line of the running test."""
        self.notes.append(text)

    def guest(self):
        """The directory of the guest's image, which is made first if need be."""
        if not self._guest_made:
            subprocess.run([self.guest_build, self.options.guest], check=True, stdout=subprocess.DEVNULL)
            self._guest_made = True
        return self.options.guest

    def new_lab(self, **arguments):
        """A lab of the test's own, to be used with `with`."""
        lab = Lab(self.options.build, self.guest(), **{**SHARED_LAB, **arguments})
        lab.on_failure = self._save_logs
        return lab

    @property
    def lab(self):
        if self._lab is None:
            lab = self.new_lab()
            lab.__enter__()
            self._lab = lab
            lab.start()
        return self._lab

    # ---- running

    def all(self, tests):
        counts = {"passed": 0, "FAILED": 0, "skipped": 0}
        signal.signal(signal.SIGALRM, self._overdue)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        shutil.rmtree(self.logs, ignore_errors=True)
        try:
            for test in tests:
                counts[self._one(test)] += 1
        finally:
            self._drop_lab()
        print(f"{counts['passed']} passed, {counts['FAILED']} failed, {counts['skipped']} skipped", flush=True)
        return 1 if counts["FAILED"] else 0

    @staticmethod
    def _overdue(*_):
        raise Overdue

    def _missing(self, test):
        for need in test.needs:
            if need not in self._capabilities:
                self._capabilities[need] = CAPABILITIES[need]()
            if self._capabilities[need]:
                return self._capabilities[need]
        return None

    def _one(self, test):
        verdict, problem = "passed", None
        self.notes, self.running = [], test.name
        begin = time.monotonic()
        try:
            reason = self._missing(test)
            if reason:
                raise Skip(reason)
            if not test.own_lab:
                self.guest()
                signal.alarm(test.deadline)
                self.lab  # is made outside the test's time
            begin = time.monotonic()
            signal.alarm(test.deadline)
            test.function(self)
            if not test.own_lab:
                self._check_clean()
        except Skip as skip:
            verdict, self.notes = "skipped", [str(skip)]
        except Overdue:
            verdict, problem = "FAILED", f"not done within {test.deadline} s\n" + traceback.format_exc(limit=-4)
        except Exception:
            verdict, problem = "FAILED", told(sys.exc_info()[1])
        finally:
            signal.alarm(0)
        note = f"  ({'; '.join(self.notes)})" if self.notes else ""
        print(f"{verdict:<8} {test.name:<34} {time.monotonic() - begin:7.1f} s{note}", flush=True)
        if problem:
            print("\n".join(f"    | {line}" for line in problem.rstrip().splitlines()), flush=True)
        if self._lab and not test.own_lab and (problem or self.options.keep_logs):
            self._save_logs(self._lab)
        if problem:
            self._drop_lab()
        return verdict

    def _check_clean(self):
        """Ends what VMs the test left (that is allowed), and then there must be nothing."""
        lab = self.lab
        lab.forget_connections()
        for vm in lab.vm_list():
            lab.vm_delete(vm["spec"]["name"])
        left = []

        def clean():
            left[:] = [f"{host}: {thing}" for host in lab.hosts for thing in lab.residue(host)]
            return not left
        try:
            until(clean, 60, "hosts without residue")
        except TimeoutError:
            raise AssertionError("left behind: " + ", ".join(left)) from None
        down = [node.name for node in lab.nodes() if not node.daemon.alive()]
        assert not down, f"daemons down: {', '.join(down)}"
        crashes = lab.crashes()
        assert not crashes, f"crashed: {crashes}"
        lab.wait_hosts()

    def renew_lab(self, why):
        """Something went wrong that the test has noted and goes on from: keeps the logs under `why`, and a new lab is made when it is
        asked for."""
        self._save_logs(self._lab, f"-{why}")
        self._drop_lab()

    def _save_logs(self, lab, suffix=""):
        target = f"{self.logs}/{self.running}{suffix}"
        os.makedirs(target, exist_ok=True)
        for directory in (lab.directory, lab.shm):
            for base, _, files in os.walk(directory):
                for name in files:
                    source = os.path.join(base, name)
                    if name.endswith((".log", ".ini", ".json", ".record")) and os.path.getsize(source) < 8 << 20:
                        shutil.copyfile(source, f"{target}/{os.path.relpath(source, directory).replace('/', '_')}")
        for core in [core for node in lab.nodes() for core in core_dumps(node.cores)]:
            name = f"{target}/{os.path.relpath(core, lab.directory).replace('/', '_')}"
            shutil.copyfile(core, name)
            with open(f"{name}.backtrace", "w") as file:
                file.write(backtrace(core))
        print("\n".join(f"    | {line}" for line in [*complaints(target), f"logs: {os.path.relpath(target)}"]), flush=True)

    def _drop_lab(self):
        if self._lab:
            self._lab.close()
            self._lab = None
