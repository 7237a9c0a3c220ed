"""The configurations that the daemons print with --help.  manual_test.py BUILD"""
import collections
import re
import subprocess
import sys
import unittest

BUILD = sys.argv.pop(1)


class Manual(unittest.TestCase):
    def test_each_section_is_there_once(self):
        for name in ("drover-controller", "drover-hostd", "drover-migrate"):
            done = subprocess.run([f"{BUILD}/bin/{name}", "--help"], capture_output=True, text=True, timeout=10)
            sections = re.findall(r"^\[(\w+)\]$", done.stdout, re.M)
            self.assertEqual(done.returncode, 0, name)
            self.assertGreater(len(sections), 3, name)
            self.assertEqual([section for section, count in collections.Counter(sections).items() if count > 1], [], name)


if __name__ == "__main__":
    unittest.main()
