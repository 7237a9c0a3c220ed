"""Talking to a guest of deploy/guest from outside: its counter, a TCP connection that must survive, the 1 kHz prober."""
import json
import os
import pty
import select
import subprocess
import threading
import time

from lab import netns
from lab.program import PATIENCE_S

COUNTER_PORT = 7000


class Guest:
    """One TCP connection to the guest's counter, kept open: a lost connection is an error, never quietly mended."""

    def __init__(self, namespace, address, timeout=PATIENCE_S):
        self.address = address
        self.socket = netns.tcp_connect(namespace, (address, COUNTER_PORT), timeout)
        self.reader = self.socket.makefile("rb")

    def ask(self, command, timeout=PATIENCE_S):
        self.socket.settimeout(timeout)
        self.socket.sendall(command.encode() + b"\n")
        line = self.reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError(f"guest {self.address} closed the connection")
        return line.decode().strip()

    def tell(self, command):
        """Sends a command that has no answer."""
        self.socket.sendall(command.encode() + b"\n")

    def counter(self):
        return int(self.ask("get"))

    def uptime_ms(self):
        return int(self.ask("uptime"))

    def boot(self):
        return self.ask("boot")

    def clock_ahead_ms(self, questions=30):
        """Its monotonic clock less ours, by the quickest of some answers."""
        def one():
            begin = time.monotonic_ns()
            monotonic = int(self.ask("clock").split()[1].replace(".", ""))
            end = time.monotonic_ns()
            return end - begin, monotonic - (begin + end) // 2
        return min(one() for _ in range(questions))[1] / 1e6

    def complaints(self):
        """How often its kernel has complained of clocks or lockups, and the newest of these lines."""
        count, _, line = self.ask("complaints").partition(" ")
        return int(count), line

    def load(self, spec):
        answer = self.ask(f"load {spec}")
        if answer != "ok":
            raise RuntimeError(f"load {spec}: {answer}")

    def verify(self, what=""):
        """Number of pages (or with "disk" blocks) that were found intact; RuntimeError when any is not."""
        answer = self.ask(f"verify {what}".strip())
        word, number = answer.split()
        if word != "ok":
            raise RuntimeError(f"guest {self.address}: {answer}")
        return int(number)

    def close(self):
        self.reader.close()
        self.socket.close()


class Stream:
    """Follows a guest's number stream on a thread: every number exactly once, in order, over one TCP connection."""

    def __init__(self, namespace, address, period_ms):
        self.socket = netns.tcp_connect(namespace, (address, COUNTER_PORT), PATIENCE_S)
        self.socket.settimeout(PATIENCE_S)
        self.socket.sendall(b"stream %d\n" % period_ms)
        self.last = 0
        self.longest_pause = 0.0
        self.problem = None
        self._closing = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        try:
            before = time.monotonic()
            for line in self.socket.makefile("rb"):
                now = time.monotonic()
                self.longest_pause = max(self.longest_pause, now - before)
                before = now
                if int(line) != self.last + 1:
                    raise ValueError(f"{int(line)} came after {self.last}")
                self.last = int(line)
            raise ConnectionError("connection closed by the guest")
        except (OSError, ValueError) as error:
            if not self._closing:
                self.problem = error

    def alive(self):
        return self.problem is None and self._thread.is_alive()

    def close(self):
        self._closing = True
        try:
            self.socket.shutdown(2)
        except OSError:
            pass
        self._thread.join(5)
        self.socket.close()


class Pinger:
    """drover-pinger against one address, from the fabric."""

    def __init__(self, program, namespace, address, *options):
        self.process = subprocess.Popen(netns.command(namespace, [program, *options, address]), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, start_new_session=True)

    def report(self):
        """What was seen since the last report (see tests/lib/pinger.c)."""
        self.process.stdin.write("report\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        out, _ = self.process.communicate("stop\n", timeout=PATIENCE_S)
        return json.loads(out)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Console:
    """`drover vm console` on a terminal of its own."""

    def __init__(self, argv):
        self.terminal, other = pty.openpty()
        self.process = subprocess.Popen(argv, stdin=other, stdout=other, stderr=other, start_new_session=True)
        os.close(other)
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def type(self, text):
        os.write(self.terminal, text.encode())

    def expect(self, text, timeout=PATIENCE_S):
        """Reads until `text` has been shown."""
        end = time.monotonic() + timeout
        while text not in self.seen:
            if not select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{text!r} not on the console within {timeout} s: {self.seen[-500:]!r}")
            self.seen += os.read(self.terminal, 4096).decode(errors="replace")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1
