"""How many cores there are; kept free of PyTorch, which the painters of the sample do without."""

import os


def available_cores() -> int:
    """Return the number of cores that this process may use, which may be fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
