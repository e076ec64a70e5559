"""Memory that is freed stays with the process."""

import platform
import subprocess
import sys

import pytest

# Has 64 MiB twice; prints what the library could be told and how many pages the second time found.
PROGRAM = """
import resource, sys
from attnvgg.training.allocator import keep_freed_memory

told = keep_freed_memory() if sys.argv[1] == "keep" else False
bytearray(2**26)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(2**26)
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_had_again_without_the_system() -> None:
    def run(how: str) -> list[str]:
        words = [sys.executable, "-c", PROGRAM, how]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    told, pages = run("keep")
    assert told == "True"
    assert int(pages) < 100
    assert int(run("leave")[1]) > 100  # huge pages make these few


def test_another_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnvgg.training import allocator

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
