"""Memory of large arrays, kept from one layer of a network to the next."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3)."""
_NEVER = 2**31 - 1
_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next arrays.

    GNU's allocator gives arrays of more than 32 MB back to the system at once, and the system clears every page of the next one: with a
    network's layers at full resolution that was a fifth of the CPU time of a photograph, a third on a busy machine. The price is that
    the process holds its peak memory until it ends. What the environment says about the allocator is left as it is.

    Returns
    -------
    bool
        Whether it does; False with other allocators and systems, which do as they please.
    """
    if any(os.environ.get(name) for name in _SET_BY_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not GNU's allocator; on Windows there is no such handle
        return False
    large = mallopt(_MMAP_THRESHOLD, _NEVER) or mallopt(_MMAP_MAX, 0)  # older versions refuse the first
    return bool(large and mallopt(_TRIM_THRESHOLD, _NEVER))
