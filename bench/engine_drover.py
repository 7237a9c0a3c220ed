"""Drover's engine: a drover-migrate on each side, in one of its modes."""
import json
import os
import socket
import subprocess
import time

import paths  # noqa: F401
from lab import netns
from lab.program import until

from arena import ADDRESSES
from failures import Endless, Failure
from qemu import GUEST_MAC, Direct
from watch import cpu_of_ended


class Drover(Direct):
    family = "drover"
    incoming = ("-S", "-incoming", "defer")

    def __init__(self, mode, build, stripes):
        self.name = f"drover-{mode}"
        self.mode = mode
        self.shim = os.path.abspath(f"{build}/lib/libdrover-shim.so")
        self.stripes = stripes
        self.further = {}  # section: lines, for both sides' configuration
        self._count = 0

    def unavailable(self):
        """Why it cannot run on this machine, or None."""
        release = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in os.uname().release.split(".")[:2])
        return None if release >= (6, 7) else f"needs Linux 6.7 or later to track writes, not {os.uname().release}"

    def start(self, arena, side, machine, incoming):
        keys_make(arena)
        return super().start(arena, side, machine, incoming)

    def move(self, arena, source, destination, max_downtime_ms, timeout, footprint):
        self._count += 1
        engines = []
        try:
            receiver = self._engine(arena, "destination", destination, max_downtime_ms,
                                    {"channel": [f"listen = tcp://{ADDRESSES['b']}:0"],
                                     "announce": ["interface = drover0", f"mac = {GUEST_MAC}", "port = tap0"]})
            engines.append(receiver)
            footprint.add(receiver.process.pid, from_zero=True)
            address = receiver.wait("listening", 10)["address"]
            sender = self._engine(arena, "source", source, max_downtime_ms,
                                  {"channel": [f"connect = {address}"], "policy": self._policy()})
            engines.append(sender)
            footprint.add(sender.process.pid, from_zero=True)
            record = sender.wait("done", timeout)["record"]
            moved_at = time.monotonic()
            try:
                engine_cpu_s = sum(cpu_of_ended(engine.process, 10) for engine in engines)
            except TimeoutError as error:
                raise Failure(str(error)) from None
            heard = receiver.told("heard")
        finally:
            for engine in engines:
                engine.close()
        return {"moved_at": moved_at, "reported_ms": record["blackout_us"] / 1000,
                "network_ms": (record["blackout_us"] + heard["after_us"]) / 1000 if heard else None,
                "reported_total_s": record["total_us"] / 1e6, "rounds": len(record["rounds"]),
                "engine_cpu_s": engine_cpu_s, "classes": wire_classes(record), "said": record}

    def _policy(self):
        lines = [f"mode = {self.mode}"]
        if self.mode == "auto":
            lines.append("on_no_convergence = postcopy")
        return lines

    def _engine(self, arena, role, qemu, max_downtime_ms, sections):
        keys = keys_of(arena)
        peer = "destination" if role == "source" else "source"
        with open(keys[peer] + ".pub") as file:
            peer_key = file.read().split()[0]
        control = f"{qemu.directory}/control"
        sections = {**sections, "channel": sections["channel"] + [f"stripes = {self.stripes}"],
                    "migration": [f"id = bench-{self._count}"],
                    "key": [f"file = {keys[role]}.key", f"peer = {peer_key}"],
                    "control": [f"socket = {control}"], "record": [f"file = {qemu.directory}/record"],
                    "qemu": [f"qmp = {qemu.engine_qmp}", f"pid = {qemu.pid}", f"ram_file = {qemu.ram_file}",
                             f"ram_bytes = {qemu.ram_bytes}"],
                    "limits": [f"max_downtime_ms = {max_downtime_ms}"], "log": ["level = warn"]}
        for section, lines in self.further.items():
            sections[section] = sections.get(section, []) + lines
        config = f"{qemu.directory}/{role}.ini"
        with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            for section, lines in sections.items():
                file.write("\n".join([f"[{section}]", *lines]) + "\n")
        log_path = f"{qemu.directory}/{role}.log"
        with open(log_path, "wb") as log:
            # Without a program in between, as hostd does: starting one would count as time of the move.
            process = netns.inside(arena.namespaces[qemu.side], lambda: subprocess.Popen(
                [f"{arena.build}/bin/drover-migrate", role, "--config", config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))
        return Side(role, process, control, log_path)


def keys_of(arena):
    return {side: f"{arena.shm}/keys/{side}" for side in ("source", "destination")}


def keys_make(arena):
    """Hosts have theirs from their enrolment on, so making them is no part of a move."""
    if os.path.isdir(f"{arena.shm}/keys"):
        return
    os.makedirs(f"{arena.shm}/keys", mode=0o700)
    for path in keys_of(arena).values():
        subprocess.run([f"{arena.build}/bin/drover", "keygen", path], check=True, capture_output=True, timeout=60)


class Side:
    """One drover-migrate and its control socket."""

    def __init__(self, role, process, control, log):
        self.role, self.process, self.log = role, process, log
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            until(self._connect(control), 60, f"{role} engine", interval=0.002)
        except (TimeoutError, Failure):
            self.close()
            raise Failure(self._last_words()) from None
        self.reader = self.socket.makefile("rb")

    def _connect(self, path):
        def attempt():
            if self.process.poll() is None:
                self.socket.connect(path)
            return True
        return attempt

    def _last_words(self):
        with open(self.log, errors="replace") as file:
            return f"{self.role} engine: {file.read()[-300:].strip() or 'ended without a word'}"

    def wait(self, event, timeout):
        end = time.monotonic() + timeout
        while True:
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                line = self.reader.readline()
            except TimeoutError:
                raise Endless(f"{self.role} engine: no `{event}` within {timeout:.0f} s") from None
            except OSError:  # never connected, or reset
                line = b""
            if not line:
                raise Failure(self._last_words())
            message = json.loads(line)
            if message["event"] == "failed":
                raise Failure(f"{self.role} engine: {message['message']}")
            if message["event"] == event:
                return message

    def told(self, event):
        """What an engine that has ended told of it; None: nothing."""
        self.socket.settimeout(60)
        messages = [json.loads(line) for line in self.reader]
        return next((message for message in messages if message["event"] == event), None)

    def close(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def wire_classes(record):
    """Every number of bytes that the engine tells of, by name; of objects within the record with the object's name before it."""
    classes = {}
    for key, value in record.items():
        if isinstance(value, dict):
            classes.update({f"{key}.{name}": number for name, number in wire_classes(value).items()})
        elif isinstance(value, int) and not isinstance(value, bool) and ("bytes" in key or "pages" in key):
            classes[key] = value
    return classes
