"""The peak that a program reports is its own, whoever started it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from featstore.extraction import scheduler as resident

CHILD = """
import sys
from featstore.extraction.scheduler import peak_resident_bytes
block = b"x" * int(sys.argv[1])
print(peak_resident_bytes())
"""
PARENT = """
import subprocess, sys
block = b"x" * 500_000_000
done = subprocess.run([sys.executable, "-c", sys.argv[1], "1"], capture_output=True, text=True, check=True)
print(len(block), done.stdout)
"""
MEGABYTE = 1_000_000


def python(*arguments):
    command = [sys.executable, "-c", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux keeps a peak of each program")
def test_a_child_does_not_inherit_the_peak_of_a_parent_that_has_touched_500_megabytes():
    """Silent bug: the peak of an extraction was that of the test process which had started it."""
    (_, child) = python(PARENT, CHILD)
    (alone,) = python(CHILD, 1)
    assert int(child) == pytest.approx(int(alone), rel=0.2)
    assert int(child) < 250 * MEGABYTE


def test_what_was_touched_counts_even_after_it_is_gone():
    (small,), (large,) = python(CHILD, 1), python(CHILD, 200 * MEGABYTE)
    assert int(large) - int(small) == pytest.approx(200 * MEGABYTE, rel=0.05)


def test_without_proc_the_peak_of_the_process_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(resident, "STATUS", tmp_path / "absent")
    monkeypatch.setattr(resident.sys, "platform", "linux")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert resident.peak_resident_bytes() == pytest.approx(before, rel=0.01)
