"""Memory of large arrays is kept from one layer to the next, where the allocator is GNU's."""

import os
import platform
import resource
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import numpy as np
from retsam.segmentation.memory import keep_freed_memory
print(keep_freed_memory())
before = None
for _ in range(6):
    x = np.ones(6_000_000)  # 48 MB: above the 32 MB from which arrays are given back at once
    before = before or resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del x
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _run(**variables: str) -> tuple[str, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k not in ("GLIBC_TUNABLES", "LD_PRELOAD")}
    clean["NUMPY_MADVISE_HUGEPAGE"] = "0"  # pages of one size, so that they can be counted
    done = subprocess.run([sys.executable, "-c", _FAULTS], env=clean | variables, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs GNU's allocator")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    pages = 48_000_000 // resource.getpagesize()  # of one of five arrays
    kept, faults = _run()
    assert kept == "True" and faults < pages
    # Whoever has set the allocator keeps the settings, here those under which each array is new memory.
    kept, faults = _run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert kept == "False" and faults > 4 * pages
