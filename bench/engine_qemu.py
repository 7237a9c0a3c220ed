"""QEMU's own migration over TCP, its rate cap lifted, with one of its settings."""
import json
import subprocess
import time

from arena import ADDRESSES
from failures import Endless, Failure
from qemu import Direct

NO_CAP = 1 << 40
PORT = 4444
CHANNELS = 2
XBZRLE_CACHE = 256 << 20


class Setting:
    """Capabilities and parameters of both sides, and whether post-copy follows the first pass."""

    def __init__(self, capabilities=(), parameters=None, postcopy=False):
        self.capabilities, self.parameters, self.postcopy = list(capabilities), parameters or {}, postcopy


SETTINGS = {
    "qemu-precopy": Setting(),
    "qemu-xbzrle": Setting(["xbzrle"], {"xbzrle-cache-size": XBZRLE_CACHE}),
    "qemu-multifd": Setting(["multifd"], {"multifd-channels": CHANNELS}),
    "qemu-multifd-zstd": Setting(["multifd"], {"multifd-channels": CHANNELS, "multifd-compression": "zstd"}),
    "qemu-auto-converge": Setting(["auto-converge"]),
    "qemu-postcopy": Setting(["postcopy-ram", "postcopy-preempt"], postcopy=True),
}


class QemuOwn(Direct):
    family = "qemu"
    incoming = ("-incoming", "defer")

    def __init__(self, name):
        self.name = name
        self.setting = SETTINGS[name]

    def _settings(self, max_downtime_ms):
        capabilities = [{"capability": name, "state": True} for name in ["events", *self.setting.capabilities]]
        parameters = {"max-bandwidth": NO_CAP, "downtime-limit": max_downtime_ms, **self.setting.parameters}
        if self.setting.postcopy:
            parameters["max-postcopy-bandwidth"] = 0
        return capabilities, parameters

    def unavailable(self):
        """Why this QEMU cannot do it, asked of one without a machine that waits for a guest; or None."""
        capabilities, parameters = self._settings(30)
        commands = [{"execute": "qmp_capabilities"},
                    {"execute": "migrate-set-capabilities", "arguments": {"capabilities": capabilities}},
                    {"execute": "migrate-set-parameters", "arguments": parameters}, {"execute": "quit"}]
        try:
            done = subprocess.run(["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-machine", "none",
                                   "-accel", "tcg", "-incoming", "defer", "-qmp", "stdio"], capture_output=True, text=True,
                                  input="\n".join(json.dumps(command) for command in commands), timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"QEMU does not run: {error}"
        for line in done.stdout.splitlines():
            problem = json.loads(line).get("error")
            if problem:
                return f"QEMU says: {problem['desc']}"
        return None if done.returncode == 0 else f"QEMU says: {done.stderr.strip()[-200:]}"

    def move(self, arena, source, destination, max_downtime_ms, timeout, footprint):
        uri = f"tcp:{ADDRESSES['b']}:{PORT}"
        capabilities, parameters = self._settings(max_downtime_ms)
        for qemu in (source, destination):
            qemu.qmp.command("migrate-set-capabilities", capabilities=capabilities)
            qemu.qmp.command("migrate-set-parameters", **parameters)
        destination.qmp.command("migrate-incoming", uri=uri)
        end = time.monotonic() + timeout
        source.qmp.command("migrate", uri=uri)
        if self.setting.postcopy:
            self._wait(source, lambda event: event["event"] == "MIGRATION_PASS" and event["data"]["pass"] >= 2 or
                       ended(event), end, timeout, keep=True)
            if not any(ended(event) for event in source.qmp.events):
                source.qmp.command("migrate-start-postcopy")
        status = self._wait(source, ended, end, timeout)["data"]["status"]
        if status != "completed":
            raise Failure(source.qmp.command("query-migrate").get("error-desc", status))
        try:
            destination.qmp.wait(lambda event: event["event"] == "RESUME", 10)
        except TimeoutError:
            raise Failure("the source has completed, the destination does not run") from None
        moved_at = time.monotonic()
        info = source.qmp.command("query-migrate")
        ram = info["ram"]
        classes = {key: value for key, value in ram.items() if "bytes" in key or key in
                   ("transferred", "duplicate", "normal", "postcopy-requests")}
        classes.update({f"xbzrle.{key}": value for key, value in info.get("xbzrle-cache", {}).items()
                        if key in ("bytes", "pages")})
        return {"moved_at": moved_at, "reported_ms": info["downtime"], "reported_total_s": info["total-time"] / 1000,
                "rounds": ram["dirty-sync-count"], "engine_cpu_s": 0.0, "classes": classes, "said": info}

    @staticmethod
    def _wait(source, matches, end, timeout, keep=False):
        try:
            event = source.qmp.wait(matches, max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise Endless(f"did not end within {timeout:.0f} s") from None
        except ConnectionError:
            raise Failure("the source's QEMU has ended") from None
        if keep:
            source.qmp.events.insert(0, event)
        return event


def ended(event):
    return event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed")
