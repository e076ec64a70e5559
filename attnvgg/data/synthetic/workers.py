"""Painting in several processes that end with their parent, whatever ends it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import cv2
from tqdm import tqdm

from attnvgg.data.cores import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """Map in order, under a progress bar, in this process (one worker) or in others.

    The first item that fails ends the work and raises here.
    """

    def bar(results: Iterable[Result]) -> Iterable[Result]:
        return tqdm(
            results,
            total=len(items),
            desc="painting the synthetic sample",
            unit="image",
            disable=None,
        )

    if workers == 1:
        return list(bar(map(function, items)))
    # Spawned, not forked: the parent may hold threads of torch and OpenCV.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        return list(bar(pool.map(function, items, chunksize=8)))
    finally:
        pool.shutdown(cancel_futures=True)


def worthwhile_workers(count: int) -> int:
    """One worker a core, but none whose start would cost more than its share of the work."""
    return max(1, min(available_cores(), count // 50))


def _begin() -> None:
    """Set up a worker: one thread, deaf to Ctrl-C (the parent ends it), gone with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
