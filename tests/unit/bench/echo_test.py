"""The echo guest is built, and a Multiboot loader would find its header."""
import os
import platform
import shutil
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "bench"))

import echo  # noqa: E402

MAGIC = 0x1BADB002
SEARCHED = 8192


@unittest.skipUnless(platform.machine() == "x86_64" and shutil.which("gcc"), "gcc for x86 makes it")
class EchoGuest(unittest.TestCase):
    def test_header(self):
        for rate in (0, 5000):
            with tempfile.TemporaryDirectory() as directory:
                with open(echo.build(directory, "10.77.0.11", rate), "rb") as file:
                    image = file.read()
            found = [at for at in range(0, min(SEARCHED, len(image)) - 12, 4) if struct.unpack_from("<I", image, at)[0] == MAGIC]
            self.assertEqual(len(found), 1)
            self.assertEqual(sum(struct.unpack_from("<III", image, found[0])) % 2**32, 0)
            entry, = struct.unpack_from("<I", image, 24)
            self.assertEqual(entry, 1 << 20)


if __name__ == "__main__":
    unittest.main()
