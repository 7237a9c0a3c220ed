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
            done = subprocess.run([f"{BUILD}/bin/{name}", "--help"], capture_output=True, text=True, timeout=60)
            sections = re.findall(r"^\[(\w+)\]$", done.stdout, re.M)
            self.assertEqual(done.returncode, 0, name)
            self.assertGreater(len(sections), 3, name)
            self.assertEqual([section for section, count in collections.Counter(sections).items() if count > 1], [], name)

    def test_programs_are_asked_in_one_way(self):
        for name in ("drover", "drover-controller", "drover-hostd"):
            done = subprocess.run([f"{BUILD}/bin/{name}", "--version"], capture_output=True, text=True, timeout=10)
            self.assertEqual(done.returncode, 0, name)
            self.assertRegex(done.stdout, rf"^{name} \d+\.\d+\.\d+")
        for name in ("drover-controller", "drover-hostd"):
            done = subprocess.run([f"{BUILD}/bin/{name}", "--confg", "x"], capture_output=True, text=True, timeout=10)
            self.assertEqual(done.returncode, 2, name)
            self.assertEqual(done.stdout, "", name)
            self.assertEqual(len(done.stderr.splitlines()), 3, name)
            self.assertIn("--confg", done.stderr, name)


if __name__ == "__main__":
    unittest.main()
