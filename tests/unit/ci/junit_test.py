"""What CI makes of ctest's results: a project of ctest's own, with a test of every end."""
import io
import os
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
sys.path.insert(0, f"{TOP}/tests/lib")

import junit  # noqa: E402


class Counted(unittest.TestCase):
    def counted(self, *tests):
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/CTestTestfile.cmake", "w") as file:
                file.write("\n".join(tests) + "\n")
            subprocess.run(["ctest", "--test-dir", folder, "--output-junit", f"{folder}/j.xml"], capture_output=True, timeout=60)
            said = io.StringIO()
            return junit.count(f"{folder}/j.xml", "debug", said), said.getvalue()

    def test_passed_and_failed(self):
        self.assertEqual(self.counted('add_test(good "true")', 'add_test(bad "false")'), ((1, 1, 0), ""))

    def test_what_cannot_be_started_has_failed(self):
        counts, said = self.counted('add_test(good "true")', 'add_test(gone "/nonexistent/program")')
        self.assertEqual(counts, (1, 1, 0))
        self.assertIn("FAILED   debug gone: Unable to find executable", said)

    def test_what_is_switched_off_has_failed(self):
        counts, _ = self.counted('add_test(off "true")', 'set_tests_properties(off PROPERTIES DISABLED TRUE)')
        self.assertEqual(counts, (0, 1, 0))

    def test_what_skips_itself_is_skipped(self):
        counts, said = self.counted('add_test(lacks "sh" "-c" "exit 77")', 'set_tests_properties(lacks PROPERTIES SKIP_RETURN_CODE 77)')
        self.assertEqual((counts, said), ((0, 0, 1), "skipped  debug lacks\n"))
        counts, said = self.counted('add_test(some "echo" "[  SKIPPED ] test_one")')
        self.assertEqual((counts, said), ((1, 0, 1), "skipped  debug some: test_one\n"))

    def test_what_takes_too_long_has_failed(self):
        counts, _ = self.counted('add_test(slow "sleep" "30")', 'set_tests_properties(slow PROPERTIES TIMEOUT 0.2)')
        self.assertEqual(counts, (0, 1, 0))


if __name__ == "__main__":
    unittest.main()
