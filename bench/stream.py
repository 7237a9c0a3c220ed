"""How much of the unshaped link an engine fills, and with how many cores: iperf3 between the same namespaces, Drover's engine with a guest
whose pages do not compress, encrypted as always, and unencrypted where the build can do that.

Throughput is bytes on the wire over the time of the transfer; cores are the CPU seconds of both ends over that time."""
import json
import os
import re
import select
import shutil
import subprocess
import time

import paths  # noqa: F401
from lab import netns

import engines
import measure
import workloads
from arena import ADDRESSES, UNSHAPED

SECONDS = 5
START_S = 60
STREAMS = 2
ROOM_LEFT = 128 << 20  # of the guest's memory, for its system
PLAIN_KEY = re.compile(r"^\s*((channel|seal)\.(plain\w*|encrypt\w*|cipher\w*))", re.MULTILINE)


def plain_key(build):
    """The configuration key by which the engine leaves out encryption, or None when it has none."""
    done = subprocess.run([f"{build}/bin/drover-migrate", "--help"], capture_output=True, text=True, timeout=60)
    found = PLAIN_KEY.search(done.stdout + done.stderr)
    return found.group(1) if found else None


def unavailable(name, build):
    if name == "iperf3":
        return None if shutil.which("iperf3") else "iperf3 is not installed: deploy/install-deps"
    if name == "drover-plain" and not plain_key(build):
        return "the engine always encrypts"
    return None


def run(arena, name, build, settings):
    arena.shape(UNSHAPED)
    if name == "iperf3":
        return iperf3(arena)
    engine = engines.make("drover-precopy", build, settings["stripes"])
    if name == "drover-plain":
        section, key = plain_key(build).split(".", 1)
        engine.further = {section: [f"{key} = {'true' if key.startswith('plain') else 'false'}"]}
    room = settings["memory"] - max(ROOM_LEFT, settings["memory"] // 8)
    terms = measure.Terms(settings["memory"], settings["downtime_ms"], settings["timeout_s"], settings["baseline_s"],
                          settings["settle_max_s"])
    still = workloads.Workload("still", workloads.memory_spec(0, room - room % 4096, 100), room // 4096)
    result = measure.run(arena, engine, still, UNSHAPED, terms)
    if result["outcome"] == measure.INTACT:
        seconds = sum(part["duration_us"] for part in result["said"]["rounds"]) / 1e6
        sent = sum(part["wire_bytes"] for part in result["said"]["rounds"])
        result.update(rate(sent, seconds, result["engine_cpu_s"]))
    return result


def rate(sent, seconds, cpu_s):
    cores = cpu_s / seconds
    return {"mb_s": sent / seconds / 1e6, "cores": cores, "mb_s_per_core": sent / cpu_s / 1e6}


def listening(output):
    """Waits for the server's word that it listens."""
    end = time.monotonic() + START_S
    while select.select([output], [], [], max(0, end - time.monotonic()))[0]:
        line = os.read(output.fileno(), 4096)
        if b"listening" in line or not line:
            return bool(line)
    return False


def iperf3(arena, seconds=SECONDS, streams=STREAMS):
    """As many streams as the engine has stripes."""
    server = subprocess.Popen(netns.command(arena.namespaces["b"], ["iperf3", "--server", "--one-off", "--forceflush", "--bind", ADDRESSES["b"]]),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        if not listening(server.stdout):
            return {"outcome": measure.VOID, "error": "iperf3: the server does not listen"}
        done = subprocess.run(
            netns.command(arena.namespaces["a"], ["iperf3", "--client", ADDRESSES["b"], "--time", str(seconds), "--parallel",
                                                  str(streams), "--connect-timeout", "5000", "--json"]),
            capture_output=True, text=True, timeout=seconds + 20)
        said = json.loads(done.stdout)
        if "error" in said:
            return {"outcome": measure.VOID, "error": f"iperf3: {said['error']}"}
    except (ValueError, subprocess.TimeoutExpired) as error:
        return {"outcome": measure.VOID, "error": f"iperf3: {error}"}
    finally:
        server.kill()
        server.wait()
    received, load = said["end"]["sum_received"], said["end"]["cpu_utilization_percent"]
    cpu_s = (load["host_total"] + load["remote_total"]) / 100 * received["seconds"]
    return {"outcome": measure.INTACT, "error": None, **rate(received["bytes"], received["seconds"], cpu_s)}
