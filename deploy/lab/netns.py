"""Network namespaces: making them, running programs and opening sockets inside, finding who lives there.

Programs enter with `nsenter --net=`, never with `ip netns exec`, which remounts /sys and hides mounts from the child.
"""
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time

RUN = "/run/netns"
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def path(name):
    return f"{RUN}/{name}"


def ip(lines):
    """Runs `ip` commands, one a line, in one go."""
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip: {done.stderr.strip()}")


def ip_in(name, lines):
    done = subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip -n {name}: {done.stderr.strip()}")


def command(name, argv):
    """The command line that runs argv inside namespace `name`."""
    return ["nsenter", f"--net={path(name)}", "--", *argv]


def inside(name, function):
    """Calls function() on a thread that lives in namespace `name`; what it opens stays there."""
    result = {}

    def run():
        try:
            fd = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {name}")
            finally:
                os.close(fd)
            result["value"] = function()
        except BaseException as error:  # handed to the caller
            result["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if "error" in result:
        raise result["error"]
    return result["value"]


def tcp_connect(name, address, timeout):
    """A TCP connection from inside namespace `name`."""
    sock = inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def links(name):
    """Names of the network interfaces in a namespace."""
    done = subprocess.run(["ip", "-n", name, "-brief", "link"], text=True, capture_output=True, check=True)
    return [line.split()[0].split("@")[0] for line in done.stdout.splitlines() if line.strip()]


def processes(names):
    """Ids of all processes whose main thread lives in one of these namespaces, zombies excepted."""
    inodes = set()
    for name in names:
        try:
            inodes.add(os.stat(path(name)).st_ino)
        except FileNotFoundError:
            pass
    found = []
    for entry in os.listdir("/proc") if inodes else ():
        if not entry.isdigit():
            continue
        try:
            if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                found.append(int(entry))
        except OSError:  # gone, or a zombie
            continue
    return found


def kill_all(names, deadline_s=60):
    """Ends every process in these namespaces, also those that are being born; returns the ids still there."""
    end = time.monotonic() + deadline_s
    while True:
        left = [pid for pid in processes(names) if pid != os.getpid()]
        if not left or time.monotonic() > end:
            return left
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)  # the kernel has no event for the end of somebody else's child


def delete(names):
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)
