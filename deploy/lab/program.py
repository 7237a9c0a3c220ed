"""Programs of a lab: a daemon with its configuration and log, and what /proc says of any process."""
import os
import signal
import subprocess
import time

from lab import netns

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Daemon:
    """One daemon, restartable. Its log is appended to over restarts."""

    def __init__(self, name, namespace, argv, log, environment=None):
        self.name = name
        self.namespace = namespace
        self.argv = argv
        self.log = log
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        assert not self.alive(), f"{self.name} runs already"
        with open(self.log, "ab") as log:
            # nsenter replaces itself by the daemon, so the process id is the daemon's. A session of its own: Ctrl-C on the
            # terminal is the lab's affair.
            self.process = subprocess.Popen(netns.command(self.namespace, self.argv), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.environment, start_new_session=True)

    def stop(self, timeout=15):
        """Asks it to end; returns its exit status."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self):
        if self.alive():
            self.process.kill()
        return self.wait(10)

    def wait(self, timeout):
        status = self.process.wait(timeout) if self.process else None
        return status

    def log_tail(self, lines=15):
        try:
            with open(self.log, errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except FileNotFoundError:
            return ""


def cpu_seconds(pid):
    """User and system time of all threads."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE


def command_line(pid):
    """argv of a process, [] when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [part.decode(errors="replace") for part in file.read().split(b"\0")[:-1]]
    except OSError:
        return []


def name(pid):
    """What a process calls itself, at most 15 characters, "" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def until(predicate, timeout, what, interval=0.05):
    """Waits until predicate() returns something true, and returns that; it may raise until then. TimeoutError names `what` and the
    last thing seen."""
    end = time.monotonic() + timeout
    while True:
        try:
            seen = predicate()
            if seen:
                return seen
        except (OSError, LookupError, RuntimeError) as error:
            seen = error
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout} s (last: {seen!r})")
        time.sleep(interval)
