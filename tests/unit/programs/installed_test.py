"""What `cmake --install` puts where.  installed_test.py BUILD"""
import os
import subprocess
import sys
import tempfile
import unittest

BUILD = sys.argv.pop(1)


class Installed(unittest.TestCase):
    def test_layout(self):
        with tempfile.TemporaryDirectory() as top:
            subprocess.run(["cmake", "--install", BUILD, "--prefix", top], check=True, capture_output=True, timeout=300)
            found = {os.path.relpath(os.path.join(folder, name), top) for folder, _, names in os.walk(top) for name in names}
            with open(f"{top}/share/bash-completion/completions/drover") as file:
                self.assertIn("-F _drover drover", file.read())
        self.assertLessEqual({"bin/drover", "sbin/drover-controller", "sbin/drover-hostd", "sbin/drover-migrate",
                              "lib/systemd/system/drover-controller.service", "lib/systemd/system/drover-hostd.service",
                              "lib/systemd/system/drover-guests.service"}, found)
        self.assertNotIn("sbin/drover", found)
        self.assertEqual([path for path in found if path.endswith("libdrover-shim.so")][0].split("/")[-2], "drover")


if __name__ == "__main__":
    unittest.main()
