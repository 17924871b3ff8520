"""Settings of the C library's memory allocator in processes that load batches."""

from __future__ import annotations

import ctypes
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names of them, see malloc.h
KEPT = 1 << 30


@cache
def keep_freed_memory() -> None:
    """Lets the C library hand freed memory out again, instead of giving it back to the system after every clip.

    Views and activations are megabytes: fetching as much from the system anew costs up to a quarter of the time that
    making views takes, and 4 % of the embedded benchmark's training step. Without effect where the C library is not
    glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, KEPT)
