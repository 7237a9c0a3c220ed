"""What the compiler and linker were told to harden is in what they made.  hardened_test.py BUILD"""
import json
import platform
import re
import subprocess
import sys
import unittest

BUILD = sys.argv.pop(1)
PROGRAMS = [f"{BUILD}/bin/{name}" for name in ("drover", "drover-controller", "drover-hostd", "drover-migrate")]
SHIM = f"{BUILD}/lib/libdrover-shim.so"


def readelf(path, *options):
    return subprocess.run(["readelf", "--wide", *options, path], check=True, capture_output=True, text=True, timeout=60).stdout


class Hardened(unittest.TestCase):
    def test_programs_are_loaded_anywhere(self):
        for path in PROGRAMS:
            self.assertRegex(readelf(path, "--file-header"), r"Type: +DYN", path)
            self.assertRegex(readelf(path, "--dynamic"), r"FLAGS_1.* PIE", path)

    def test_what_the_loader_wrote_cannot_be_written_again(self):
        for path in [*PROGRAMS, SHIM]:
            self.assertIn("GNU_RELRO", readelf(path, "--segments"), path)
            self.assertRegex(readelf(path, "--dynamic"), r"BIND_NOW|FLAGS_1.* NOW", path)

    def test_no_stack_is_run(self):
        for path in [*PROGRAMS, SHIM]:
            self.assertRegex(readelf(path, "--segments"), r"GNU_STACK .* RW ", path)

    def test_overflows_are_caught(self):
        for path in PROGRAMS:
            symbols = readelf(path, "--dyn-syms")
            self.assertIn("__stack_chk_fail", symbols, path)
            self.assertGreater(len(set(re.findall(r"__\w+_chk\b", symbols))), 3, path)

    def test_every_file_was_told(self):
        """The rest cannot be seen in a program. Files that only tests need are held to the same."""
        wanted = ["-fstack-protector-strong", "-fstack-clash-protection", "-D_FORTIFY_SOURCE=3"]
        wanted += ["-fcf-protection"] if platform.machine() == "x86_64" else []
        with open(f"{BUILD}/compile_commands.json") as file:
            commands = json.load(file)
        self.assertGreater(len(commands), 100)
        for command in commands:
            for flag in wanted:
                self.assertIn(flag, command["command"].split(), command["file"])


if __name__ == "__main__":
    unittest.main()
