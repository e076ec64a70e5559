"""Reading ahead: threads begin what will be asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


def read_ahead(
    calls: Iterator[tuple[Key, Callable[[], Result]]],
    threads: int,
    ahead: int,
    begin: Callable[[], None] | None = None,
    wait: bool = True,
) -> Generator[tuple[Key, Future[Result]], None, None]:
    """Call functions in threads, so many beyond the one asked for; yield them in order.

    Args:
        calls: what to call, with something to know it by; advanced by the thread that iterates.
        threads: number of threads.
        ahead: calls begun beyond the one that is yielded: the bound of what waits in memory.
        begin: called once in each thread, before anything else.
        wait: whether closing waits for the calls that are under way.
    """
    pool = ThreadPoolExecutor(threads, initializer=begin)
    begun: deque[tuple[Key, Future[Result]]] = deque()
    try:
        for key, call in calls:
            begun.append((key, pool.submit(call)))
            if len(begun) > ahead:
                yield begun.popleft()
        while begun:
            yield begun.popleft()
    except BaseException:  # closed early, too: nothing more is wanted
        for _, future in begun:
            if future.cancel():
                future.set_running_or_notify_cancel()  # wakes who waits for it
        pool.shutdown(wait, cancel_futures=True)
        raise
    pool.shutdown(wait=False)  # the last ones are still being called
