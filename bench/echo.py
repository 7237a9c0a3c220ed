"""The echo guest (echo_guest.c): built here, for one address and one rate of writing."""
import ipaddress
import os
import subprocess

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "echo_guest.c")
FLAGS = ["-m32", "-O2", "-std=gnu17", "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic", "-fno-stack-protector",
         "-fno-asynchronous-unwind-tables", "-mno-sse", "-mno-mmx", "-Wall", "-Wextra", "-Werror",
         # One piece from 1 MiB on, so that the header is where a Multiboot loader looks for it.
         "-Wl,-n,-Ttext=0x100000,--build-id=none,-z,noexecstack,--no-warn-rwx-segments"]
WORKING_SET_BYTES = 64 << 20


def build(directory, address, pages_per_s):
    """The kernel's file in `directory`, made if it is not there or older than what it is made from."""
    path = os.path.join(directory, f"echo-{address}-{pages_per_s}.elf")
    if not os.path.exists(path) or os.path.getmtime(path) < max(os.path.getmtime(SOURCE), os.path.getmtime(__file__)):
        subprocess.run(["gcc", *FLAGS, f"-DADDRESS={int(ipaddress.IPv4Address(address)):#x}", f"-DPAGES_PER_S={pages_per_s}",
                        f"-DWORKING_SET_BYTES={WORKING_SET_BYTES}", "-o", path, SOURCE], check=True, timeout=60)
    return path
