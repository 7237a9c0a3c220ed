"""Wrong calls of the command line, and strangers on the wire."""
import os
import secrets
import struct
import subprocess

from harness import case
from lab import netns, program
from lab.lab import API_PORT, RAFT_PORT

GREETING_START = b"\xff" + bytes(8) + b"\x7f\x03\x01"


def greeting(mechanism):
    """A ZMTP 3.1 greeting (ZeroMQ RFC 37)."""
    return GREETING_START + mechanism.ljust(20, b"\0") + b"\0" + bytes(31)


def long_command(name, length, body):
    """The head of a long command frame that claims `length` bytes, and only some of them."""
    return b"\x06" + struct.pack(">Q", length) + bytes([len(name)]) + name + body


STRANGERS = {
    "noise": lambda: secrets.token_bytes(4096),
    "zeroes": lambda: bytes(4096),
    "ones": lambda: b"\xff" * 4096,
    "http": lambda: b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a greeting": lambda: GREETING_START,
    "no encryption": lambda: greeting(b"NULL") + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER",
    "password": lambda: greeting(b"PLAIN") + b"\x04\x0d\x05HELLO\x01a\x01b\0\0",
    "false hello": lambda: greeting(b"CURVE") + b"\x04\xc8\x05HELLO" + secrets.token_bytes(194),
    "short hello": lambda: greeting(b"CURVE") + b"\x04\x0a\x05HELLO\x01\0\0\0",
    "message before hello": lambda: greeting(b"CURVE") + b"\x00\x20" + secrets.token_bytes(32),
    "enormous frame": lambda: greeting(b"CURVE") + long_command(b"HELLO", 1 << 62, secrets.token_bytes(4096)),
    "large frame": lambda: greeting(b"CURVE") + long_command(b"HELLO", 64 << 20, secrets.token_bytes(1 << 20)),
}


def talk(lab, address, data):
    """Sends data and returns what comes back until the other side closes, or for a second."""
    sock = netns.tcp_connect(lab.fabric, address, 60)
    sock.settimeout(1)
    got = b""
    try:
        sock.sendall(data)
        while chunk := sock.recv(65536):
            got += chunk
    except OSError:
        pass
    finally:
        sock.close()
    return got


@case()
def strangers_on_the_wire_get_nothing(run):
    lab = run.lab
    lab.leader()
    node = lab.controllers["c1"]
    ports = (API_PORT, RAFT_PORT, RAFT_PORT + 1)
    before = program.rss_bytes(node.daemon.pid)
    for name, make in STRANGERS.items():
        for port in ports:
            got = talk(lab, (node.address, port), make())
            # A greeting is 64 bytes; a READY, WELCOME or reply would be longer.
            assert len(got) <= 64 + 32, f"{name} on port {port} was answered with {len(got)} bytes: {got[64:]!r}"
            assert node.daemon.alive(), f"{name} on port {port} ended the controller"
    idle = [netns.tcp_connect(lab.fabric, (node.address, API_PORT), 60) for _ in range(100)]
    lab.cli("cluster", "status")  # they do not hold it up
    for sock in idle:
        sock.close()
    grown = (program.rss_bytes(node.daemon.pid) - before) / 2**20
    assert grown < 32, f"the controller grew by {grown:.1f} MiB"


def other_user(lab, name, secret):
    """A configuration of the command line with another key."""
    target = f"{lab.directory}/{name}.ini"
    with open(lab.config) as old, open(target, "w") as new:
        new.write("".join(f"key = {secret}\n" if line.startswith("key") else line for line in old))
    return target


@case()
def unknown_and_misused_keys_get_nothing(run):
    lab = run.lab
    prefix = f"{lab.directory}/keys/stranger-{secrets.token_hex(2)}"
    subprocess.run([f"{lab.bin}/drover", "keygen", prefix], check=True, capture_output=True)
    for name, secret in (("stranger", f"{prefix}.key"), ("host", f"{lab.hosts['h1'].key}.key")):
        config = other_user(lab, name, secret)
        for call in (("cluster", "status"), ("vm", "create", "intruder", "--memory", "64M", "--kernel", "/x")):
            result = lab.cli(*call, "--timeout", "2", check=False, config=config)
            assert result.status in (9, 10, 11), f"{name} {call}: {result.status} {result.stdout}{result.stderr}"
            assert '"leader"' not in result.stdout
    assert not lab.vm_list()


@case()
def keys_that_others_can_read_are_refused(run):
    lab = run.lab
    prefix = f"{lab.directory}/keys/open-{secrets.token_hex(2)}"
    subprocess.run([f"{lab.bin}/drover", "keygen", prefix], check=True, capture_output=True)
    assert os.stat(f"{prefix}.key").st_mode & 0o777 == 0o600
    again = lab.cli("keygen", prefix, check=False, form=None)
    assert again.status == 4, f"{again.status}: {again.stderr}"
    os.chmod(f"{prefix}.key", 0o644)
    result = lab.cli("cluster", "status", check=False, config=other_user(lab, "open", f"{prefix}.key"))
    assert result.status != 0 and "chmod" in result.stderr, result.stderr


LONG = "x" * 300
FAILED, USAGE, NOT_FOUND, EXISTS, STATE = 1, 2, 3, 4, 6
WRONG_CALLS = [  # arguments, exit status, a word of the message
    ([], USAGE, ""),
    (["vm"], USAGE, ""),
    (["nonsense"], USAGE, "nonsense"),
    (["vm", "lits"], USAGE, "list"),
    (["vm", "list", "extra"], USAGE, "extra"),
    (["vm", "list", "--nonsense"], USAGE, "nonsense"),
    (["vm", "list", "-o", "xml"], USAGE, "xml"),
    (["vm", "list", "--timeout", "soon"], USAGE, "soon"),
    (["vm", "list", "--host", "nowhere"], NOT_FOUND, "nowhere"),
    (["vm", "create"], USAGE, ""),
    (["vm", "create", "-x"], USAGE, "-x"),
    (["vm", "create", "has blank", "--memory", "64M"], USAGE, "has blank"),
    (["vm", "create", "a/b", "--memory", "64M"], USAGE, "a/b"),
    (["vm", "create", LONG, "--memory", "64M"], USAGE, ""),
    (["vm", "create", "v", "--memory", "-5"], USAGE, "-5"),
    (["vm", "create", "v", "--memory", "12Q"], USAGE, "12Q"),
    (["vm", "create", "v", "--memory", "99999999999999999999"], USAGE, "memory"),
    (["vm", "create", "v", "--memory", "1"], USAGE, "memory"),
    (["vm", "create", "v", "--memory", "64M", "--vcpus", "0"], USAGE, "vcpus"),
    (["vm", "create", "v", "--memory", "64M", "--vcpus", "100000"], USAGE, "vcpus"),
    (["vm", "create", "v", "--memory", "64M", "--disk", "relative.raw"], USAGE, "relative.raw"),
    (["vm", "create", "v", "--memory", "64M", "--kernel", "/x", "--host", "nowhere"], NOT_FOUND, "nowhere"),
    (["vm", "create", "v", "--memory", "64M"], USAGE, "boot"),
    (["vm", "create", "taken", "--memory", "64M", "--kernel", "/x"], EXISTS, "taken"),
    (["vm", "start", "ghost"], NOT_FOUND, "ghost"),
    (["vm", "stop", "ghost"], NOT_FOUND, "ghost"),
    (["vm", "delete", "ghost"], NOT_FOUND, "ghost"),
    (["vm", "show", "ghost"], NOT_FOUND, "ghost"),
    (["vm", "migrate", "ghost", "--to", "h1"], NOT_FOUND, "ghost"),
    (["vm", "migrate", "taken", "--to", "h1"], STATE, "taken"),
    (["vm", "migrate", "taken", "--to", "h1", "--max-downtime", "never"], USAGE, "never"),
    (["vm", "migrate", "taken", "--to", "h1", "--bandwidth", "64K"], USAGE, "--bandwidth"),
    (["host", "show", "ghost"], NOT_FOUND, "ghost"),
    (["host", "remove", "ghost"], NOT_FOUND, "ghost"),
    (["host", "add", "h9", "--key", "short"], USAGE, "short"),
    (["host", "add", "h9"], USAGE, "key"),
    (["job", "show", "999999"], NOT_FOUND, "999999"),
    (["job", "show", "one"], USAGE, "one"),
    (["job", "cancel", "999999"], NOT_FOUND, "999999"),
    (["optimizer", "dance"], USAGE, "dance"),
    (["vm", "create", "v", "--memory", "64M", "--disk", "/nonexistent.raw", "--start"], FAILED, "the VM is not kept"),
    (["keygen"], USAGE, ""),
    (["keygen", "/nonexistent/place/key"], NOT_FOUND, "/nonexistent"),
]


@case()
def wrong_calls_are_refused_with_a_reason(run):
    lab = run.lab
    lab.cli("vm", "create", "taken", "--memory", "64M", "--kernel", f"{lab.guest_directory}/vmlinux")
    wrong = []
    for arguments, status, word in WRONG_CALLS:
        result = lab.cli(*arguments, check=False, form=None)
        if result.status != status and (status is not None or result.status == 0):
            wrong.append(f"drover {' '.join(arguments)[:60]}: exit status {result.status}, expected {status}: {result.stderr.strip()}")
        elif not result.stderr.strip() or word not in result.stderr:
            wrong.append(f"drover {' '.join(arguments)[:60]}: {word!r} is not in: {result.stderr.strip()}")
    assert not wrong, "\n" + "\n".join(wrong)
    run.note(f"{len(WRONG_CALLS)} calls")
