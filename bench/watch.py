"""What is watched while a guest moves: its beats as they arrive outside, and how much memory the moving takes."""
import os
import socket
import struct
import threading
import time

import paths  # noqa: F401
from lab import netns
from lab.program import TICKS

BEAT_PORT = 7002
PERIOD_US = 5000     # a thousand a second would take a fifth of an emulated CPU
RENEW_S = 10         # the guest goes on for 30 s without being asked again
SO_TIMESTAMPNS = 35
SAMPLE_S = 0.05


class Beats:
    """Receives the guest's beats (deploy/guest/beat.h) on a thread. `samples` are (arrival, work): arrival by the kernel's stamp, on
    time.monotonic()'s clock; work as the guest counts it."""

    def __init__(self, namespace, address):
        self.samples = []
        self._address = (address, BEAT_PORT)
        self._socket = netns.inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.settimeout(0.2)
        self._closing = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self):
        renew = 0.0
        while not self._closing:
            now = time.monotonic()
            if now >= renew:
                # Until the first beat comes, a request may have been lost to a guest that is still starting.
                renew = now + (RENEW_S if self.samples else 0.2)
                try:
                    self._socket.sendto(b"%d" % PERIOD_US, self._address)
                except OSError:
                    pass
            try:
                data, ancillary, _, _ = self._socket.recvmsg(64, 64)
            except OSError:  # a time-out, or an ICMP error for a request
                continue
            arrival = time.monotonic()
            for level, kind, stamp in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("qq", stamp[:16])
                    arrival -= max(0.0, min(60.0, time.time() - seconds - nanoseconds / 1e9))
            if len(data) == 24:
                self.samples.append((arrival, struct.unpack("<QQQ", data)[2]))

    def close(self):
        self._closing = True
        self._thread.join(5)
        self._socket.close()


class Footprint:
    """Peak of private memory of processes, sampled on a thread; guest RAM is a shared file and does not count."""

    def __init__(self):
        self._processes = {}  # pid: [at first, peak]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def add(self, pid, from_zero=False):
        """Watches a process; what it has already counts only `from_zero`."""
        now = _private_bytes(pid)
        self._processes[pid] = [0 if from_zero else now, now]

    def _sample(self):
        while not self._closing.wait(SAMPLE_S):
            for pid, record in list(self._processes.items()):
                record[1] = max(record[1], _private_bytes(pid))

    def peak(self):
        """Bytes that the watched processes had at most beyond what they began with, each by itself, added up."""
        return sum(max(0, peak - first) for first, peak in self._processes.values())

    def close(self):
        self._closing.set()
        self._thread.join(5)


def _private_bytes(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def machine_busy_s():
    """CPU seconds that anybody has used on this machine since it began, those stolen by its host included."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def ours_s(namespaces):
    """CPU seconds of this program, of all processes in these namespaces, and of the children that either has had."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for pid in netns.processes(namespaces):
        try:
            with open(f"/proc/{pid}/stat") as file:
                total += sum(map(int, file.read().rsplit(")", 1)[1].split()[11:15])) / TICKS
        except OSError:  # gone meanwhile
            pass
    return total


def cpu_of_ended(process, timeout):
    """Waits for a child of ours; the CPU seconds of its whole life. TimeoutError when it does not end."""
    end = time.monotonic() + timeout
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid != 0:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        if time.monotonic() > end:
            raise TimeoutError(f"process {process.pid} did not end within {timeout} s")
        time.sleep(0.005)
