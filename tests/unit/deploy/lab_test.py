"""A lab's directories: others can write where they are made, and what they put there must not become the lab's."""
import os
import shutil
import stat
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.path[:0] = [f"{TOP}/bench", f"{TOP}/deploy"]

from arena import Arena  # noqa: E402
from lab import reaper  # noqa: E402
from lab.lab import Lab  # noqa: E402


class Directories(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.top)
        self.addCleanup(setattr, reaper, "REGISTRY", reaper.REGISTRY)
        reaper.REGISTRY = f"{self.top}/registry"
        self.lab = Lab("build", "guest")
        for directory in (self.lab.directory, self.lab.shm):
            self.addCleanup(shutil.rmtree, directory, True)
        reaper.register(self.lab.id, [], [])

    def test_names_cannot_be_taken_beforehand(self):
        for name in (self.lab.id, Arena("build", "guest", self.top).id):
            self.assertGreaterEqual(len(name.split("-")[-1]), 16)

    def test_they_are_made_closed_and_removed(self):
        self.lab._make_directories()
        for directory in (self.lab.directory, self.lab.shm):
            self.assertEqual(stat.S_IMODE(os.stat(directory).st_mode), 0o700)
        self.assertEqual(reaper.clean(self.lab.id), [])
        self.assertFalse(os.path.exists(self.lab.directory) or os.path.exists(self.lab.shm))

    def test_a_foreign_directory_is_not_taken(self):
        victim = f"{self.top}/victim"
        with open(victim, "w") as file:
            file.write("precious")
        os.mkdir(self.lab.directory)
        os.symlink(victim, f"{self.lab.directory}/h1.ini")
        self._is_refused()
        with open(victim) as file:
            self.assertEqual(file.read(), "precious")

    def test_a_link_is_not_followed(self):
        os.mkdir(f"{self.top}/foreign")
        os.symlink(f"{self.top}/foreign", self.lab.directory)
        self.addCleanup(os.unlink, self.lab.directory)
        self._is_refused()
        self.assertEqual(os.listdir(f"{self.top}/foreign"), [])

    def _is_refused(self):
        with self.assertRaises(FileExistsError):
            self.lab._make_directories()
        reaper.clean(self.lab.id)
        self.assertTrue(os.path.lexists(self.lab.directory))  # it is not the lab's to remove


if __name__ == "__main__":
    unittest.main()
