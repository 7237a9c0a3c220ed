"""The ways to move a guest that are compared. Each has a name, what it wants of the two QEMUs, and move(), which returns what the
engine says of the move and raises when the guest did not move. move() is timed from outside: from the order to the moment the
guest is known to run at the destination (`moved_at`)."""
import json
import os
import resource
import socket
import subprocess
import time

from arena import GUEST_MAC, Qemu, netns, until


class Failure(RuntimeError):
    """The engine gave up, and said why."""


class Drover:
    """Our engine: a drover-migrate on each side."""
    name = "drover"
    incoming = ["-S", "-incoming", "defer"]

    def __init__(self, build, stripes):
        self.shim = os.path.abspath(f"{build}/lib/libdrover-shim.so")
        self.stripes = stripes
        self.count = 0

    def move(self, arena, source, destination, max_downtime_ms, timeout):
        self.count += 1
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        engines = []
        try:
            receiver = self._engine(arena, "destination", destination, max_downtime_ms,
                                    {"channel": "listen = tcp://10.78.0.2:0",
                                     "announce": f"interface = drover0\nmac = {GUEST_MAC}"})
            engines.append(receiver)
            address = receiver.wait("listening", 10)["address"]
            sender = self._engine(arena, "source", source, max_downtime_ms, {"channel": f"connect = {address}"})
            engines.append(sender)
            record = sender.wait("done", timeout)["record"]
            moved_at = time.monotonic()
            for engine in engines:
                engine.process.wait(10)
        finally:
            for engine in engines:
                engine.close()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"moved_at": moved_at, "blackout_ms": record["blackout_us"] / 1000, "total_s": record["total_us"] / 1e6,
                "rounds": len(record["rounds"]), "engine_bytes": record["wire_bytes"],
                "engine_cpu_s": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime}

    def _engine(self, arena, role, qemu, max_downtime_ms, sections):
        keys = {side: f"{arena.shm}/keys/{side}" for side in ("source", "destination")}
        if not os.path.isdir(f"{arena.shm}/keys"):
            os.makedirs(f"{arena.shm}/keys", mode=0o700)
            for path in keys.values():
                subprocess.run([f"{arena.build}/bin/drover", "keygen", path], check=True, capture_output=True)
        peer = "destination" if role == "source" else "source"
        with open(keys[peer] + ".pub") as file:
            peer_key = file.read().split()[0]
        control = f"{qemu.directory}/control"
        sections = dict(sections)
        sections["channel"] += f"\nstripes = {self.stripes}"
        sections.update({
            "migration": f"id = bench-{self.count}", "key": f"file = {keys[role]}.key\npeer = {peer_key}",
            "control": f"socket = {control}", "record": f"file = {qemu.directory}/record",
            "qemu": f"qmp = {qemu.engine_qmp}\npid = {qemu.pid}\nram_file = {qemu.ram_file}\nram_bytes = {qemu.ram_bytes}",
            "limits": f"max_downtime_ms = {max_downtime_ms}", "log": "level = warn"})
        config = f"{qemu.directory}/{role}.ini"
        with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            for section, lines in sections.items():
                file.write(f"[{section}]\n{lines}\n")
        with open(f"{qemu.directory}/{role}.log", "wb") as log:
            process = subprocess.Popen(
                netns.command(arena.namespaces[qemu.side], [f"{arena.build}/bin/drover-migrate", role, "--config", config]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return Engine(role, process, control, f"{qemu.directory}/{role}.log")


class Engine:
    """One drover-migrate and its control socket."""

    def __init__(self, role, process, control, log):
        self.role, self.process, self.log = role, process, log
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            until(self._connect(control), 10, f"{role} engine", interval=0.002)
        except TimeoutError:
            self.close()
            raise Failure(self._last_words()) from None
        self.reader = self.socket.makefile("rb")

    def _connect(self, path):
        def attempt():
            if self.process.poll() is not None:
                raise Failure(self._last_words())
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
            except socket.timeout:
                raise Failure(f"{self.role} engine: no `{event}` within {timeout} s") from None
            if not line:
                raise Failure(self._last_words())
            message = json.loads(line)
            if message["event"] == "failed":
                raise Failure(f"{self.role} engine: {message['message']}")
            if message["event"] == event:
                return message

    def close(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class QemuPrecopy:
    """QEMU's own pre-copy, rate cap lifted, over TCP."""
    name = "qemu-precopy"
    shim = None
    incoming = ["-incoming", "defer"]

    def move(self, arena, source, destination, max_downtime_ms, timeout):
        capabilities = [{"capability": "events", "state": True}]
        for qemu in (source, destination):
            qemu.qmp.command("migrate-set-capabilities", capabilities=capabilities)
        destination.qmp.command("migrate-incoming", uri="tcp:10.78.0.2:4444")
        source.qmp.command("migrate-set-parameters", **{"max-bandwidth": 1 << 40, "downtime-limit": max_downtime_ms})
        source.qmp.command("migrate", uri="tcp:10.78.0.2:4444")

        def ended(event):
            return event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed")

        try:
            status = source.qmp.wait(ended, timeout)["data"]["status"]
        except TimeoutError:
            raise Failure(f"did not end within {timeout} s") from None
        if status != "completed":
            raise Failure(source.qmp.command("query-migrate").get("error-desc", status))
        destination.qmp.wait(lambda event: event["event"] == "RESUME", 10)
        moved_at = time.monotonic()
        info = source.qmp.command("query-migrate")
        return {"moved_at": moved_at, "blackout_ms": info["downtime"], "total_s": info["total-time"] / 1000,
                "rounds": info["ram"]["dirty-sync-count"], "engine_bytes": info["ram"]["transferred"], "engine_cpu_s": 0.0}
