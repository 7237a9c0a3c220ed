"""Counts the results in a JUnit file that ctest wrote:  junit.py FILE PRESET

Prints `PASSED FAILED SKIPPED`, and on stderr the name of whatever did not run. A test function that skipped itself is counted as skipped
beside its program. A program that could not be started has been skipped in ctest's words; here it has failed, as nobody decided that."""
import re
import sys
import xml.etree.ElementTree as tree

SKIPPED_ITSELF = "SKIP_RETURN_CODE"  # what ctest calls it when the program's exit status says so


def count(path, preset, out=sys.stderr):
    passed = failed = skipped = 0
    for case in tree.parse(path).getroot().iter("testcase"):
        left_out = case.find("skipped")
        if left_out is not None and left_out.get("message", "").startswith(SKIPPED_ITSELF):
            skipped += 1
            print(f"skipped  {preset} {case.get('name')}", file=out)
        elif left_out is not None:
            failed += 1
            print(f"FAILED   {preset} {case.get('name')}: {left_out.get('message', 'not run')}", file=out)
        elif case.find("failure") is not None or case.get("status") != "run":
            failed += 1
        else:
            passed += 1
        for name in dict.fromkeys(re.findall(r"^\[  SKIPPED \] (\w+)$", case.findtext("system-out") or "", re.M)):
            skipped += 1
            print(f"skipped  {preset} {case.get('name')}: {name}", file=out)
    return passed, failed, skipped


if __name__ == "__main__":
    print(*count(sys.argv[1], sys.argv[2]))
