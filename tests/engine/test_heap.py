"""Pages that the system has to give, counted by the system itself."""

import ctypes
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
import torch
from rethink_pretrain.engine.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(what: str) -> int:
    command = [sys.executable, "-c", _FAULTS, what]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_freed_memory_is_taken_again():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    given_back = count_faults("give back")
    if given_back < 100:
        pytest.skip("this system does not count page faults")
    assert count_faults("keep") < given_back / 5
