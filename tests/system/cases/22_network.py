"""The network follows: neighbours of a guest that never begins a conversation find it where it is."""
import ipaddress
import select
import socket
import struct

from harness import MIGRATION, case
from lab import netns
from lab.program import until
from watched import PATIENT, owner

PACKET_OUTGOING = 4


def link_local(mac):
    """What a guest gives itself (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:])


class Ear:
    """What comes in at one port of the fabric, from one MAC address."""

    def __init__(self, lab, port, mac):
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.socket = netns.inside(lab.fabric, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        self.socket.bind((port, 3))
        self.heard = set()

    def listen(self):
        while select.select([self.socket], [], [], 0)[0]:
            frame, (_, _, kind, _, _) = self.socket.recvfrom(2048)
            if kind == PACKET_OUTGOING or frame[6:12] != self.mac:
                continue
            protocol = struct.unpack("!H", frame[12:14])[0]
            if protocol == 0x8035:
                self.heard.add("rarp")
            elif protocol == 0x0806 and frame[28:32] == frame[38:42]:
                self.heard.add(str(ipaddress.IPv4Address(frame[28:32])))
            elif protocol == 0x86DD and frame[20] == 58 and frame[54] == 136 and frame[38:40] == b"\xff\x02":
                self.heard.add(str(ipaddress.IPv6Address(frame[62:78])))
        return self.heard

    def close(self):
        self.socket.close()


@case(needs=MIGRATION)
def a_silent_guest_is_announced(run):
    lab = run.lab
    lab.vm_create("mute", host="h1")
    vm = lab.vm("mute")
    mac, address = vm["spec"]["nics"][0]["mac"], lab.address("mute")
    addresses, expected = f"{lab.hosts['h1'].directory}/partitions/{vm['id']}/addresses", {"rarp", address, str(link_local(mac))}

    def asked():
        """The fabric looks for the guest's IPv6 address; its IPv4 address it has looked for."""
        with netns.inside(lab.fabric, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as probe:
            index = netns.inside(lab.fabric, lambda: socket.if_nametoindex("guest"))
            try:
                probe.sendto(b"?", (str(link_local(mac)), 9, 0, index))
            except OSError:  # the fabric has no address of its own yet
                return False
        with open(addresses) as file:
            return str(link_local(mac)) in file.read()
    until(asked, 60, "the host to hear the guest's addresses", interval=0.3)
    for target in ("h2", "h3"):  # the second host knows them from the first alone
        ear = Ear(lab, f"guest-{target}", mac)
        lab.migrate("mute", target, *PATIENT)
        until(lambda: expected <= ear.listen(), 60, "announcements at the new port")
        ear.close()
        entries = lab.run(["bridge", "fdb", "show", "br", "guest"]).stdout.splitlines()
        ports = [line.split()[2] for line in entries if line.startswith(mac)]
        assert ports == [f"guest-{target}"], f"the fabric looks for {mac} at {ports}"
        assert owner(lab, "mute") == target
    lab.guest("mute").counter()
    with open(f"{lab.hosts['h3'].directory}/partitions/{vm['id']}/serial.log", errors="replace") as log:
        assert "duplicate" not in log.read(), "the guest saw a conflict"
    run.note(f"heard at the new port: {sorted(expected)}")
