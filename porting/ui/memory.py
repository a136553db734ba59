"""What keeps a long-lived server small: compiled functions are dropped above a mark.

Every new shape that a visitor asks for leaves compiled code behind, some megabytes each, and
JAX gives none of it back to the system by itself.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import os
from pathlib import Path

import jax

MARK_BYTES = 6 * 2**30  #: resident memory above which the caches are dropped; a Space has 16 GB


def resident_bytes() -> int:
    """The resident memory of this process; 0 where the system does not say.

    >>> resident_bytes() >= 0
    True
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def purge_above(mark: int = MARK_BYTES) -> bool:
    """Drop JAX's compiled functions if this process is above `mark`; say whether it did.

    >>> purge_above(2**60)
    False
    """
    if resident_bytes() <= mark:
        return False
    jax.clear_caches()
    gc.collect()
    library = ctypes.util.find_library("c")
    if library and hasattr(ctypes.CDLL(library), "malloc_trim"):
        ctypes.CDLL(library).malloc_trim(0)
    return True
