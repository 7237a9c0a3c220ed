"""The ways to move a guest that are compared. An engine has

    name, family       "drover", "qemu" or "libvirt"
    unavailable()      why it cannot run on this machine, or None
    start(...)         starts the guest's QEMU on one side (qemu.Process)
    move(...)          moves a guest; returns what the engine says of it, with `moved_at`, the moment at which the guest is known to run at
                       the destination and to need nothing more from the source; raises Failure when it did not get there, Endless
                       when its time was over
"""
import hashlib

from engine_drover import Drover
from engine_libvirt import Libvirt
from engine_qemu import SETTINGS, QemuOwn

DROVER_MODES = ("precopy", "hybrid", "postcopy", "auto")
NAMES = tuple(f"drover-{mode}" for mode in DROVER_MODES) + tuple(SETTINGS) + (Libvirt.name,)


def make(name, build, stripes):
    if name in SETTINGS:
        return QemuOwn(name)
    if name == Libvirt.name:
        return Libvirt()
    return Drover(name.removeprefix("drover-"), build, stripes)


def digest(build):
    """Tells builds of Drover's engine apart."""
    with open(f"{build}/bin/drover-migrate", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]
