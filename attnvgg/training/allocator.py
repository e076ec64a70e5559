"""How a process that trains on the CPU holds its memory."""

from __future__ import annotations

import contextlib
import ctypes

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back to the system.

    Activations and gradients of many megabytes are freed and had again in every step. Given back,
    all their pages must be found and cleared anew: a third of the time of a step of recipe G. The
    process keeps its peak of memory until it ends.

    Returns:
        Whether the library could be told; others than glibc have their own ways.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        largest = 2 ** (8 * ctypes.sizeof(ctypes.c_int) - 1) - 1
        return bool(library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, largest))
    return False
