"""Micro-batching: what waits is computed together, by one thread, in order."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from attnvgg.deploy.serving.limits import Refused

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """A bounded queue in front of a function that is faster on several items at once.

    Nobody waits for company: an idle engine begins with whatever is there, and what comes
    meanwhile is the next batch. A batch that fails is computed again item by item, so that one item
    cannot spoil the answer of another.

    Args:
        compute: from items to as many answers; called in one thread only.
        batch: items computed together at most.
        room: items that wait at most.
        observe: told size and seconds of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Answer]],
        batch: int,
        room: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._compute, self._batch, self._room = compute, batch, room
        self._observe = observe
        self._waiting: deque[tuple[Item, Future[Answer]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._pace = 0.0  # seconds an item, of late
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many items wait."""
        return len(self._waiting)

    def submit(self, items: Sequence[Item]) -> list[Future[Answer]]:
        """Let items be computed; a future that is cancelled before its turn costs nothing.

        Raises:
            Refused: there is no room for all of them (429), or no more are taken (503).
        """
        with self._changed:
            if self._closing:
                raise Refused(503, "The server is stopping: ask another one.", 1)
            if len(self._waiting) + len(items) > self._room:
                wait = max(1, math.ceil(self._pace * len(self._waiting)))
                raise Refused(429, f"The server is busy: try again in {wait} s.", min(wait, 60))
            futures: list[Future[Answer]] = [Future() for _ in items]
            self._waiting.extend(zip(items, futures, strict=True))
            self._changed.notify()
        return futures

    def close(self) -> None:
        """Take no more, and return when what waits is computed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            start = time.perf_counter()
            self._answer(batch)
            seconds = time.perf_counter() - start
            self._pace += 0.2 * (seconds / len(batch) - self._pace)
            self._observe(len(batch), seconds)

    def _next(self) -> list[tuple[Item, Future[Answer]]]:
        """Wait for items; return none when the queue is closed and empty."""
        with self._changed:
            while True:
                batch: list[tuple[Item, Future[Answer]]] = []
                while self._waiting and len(batch) < self._batch:
                    item, future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((item, future))
                if batch or self._closing:
                    return batch
                self._changed.wait()

    def _answer(self, batch: Sequence[tuple[Item, Future[Answer]]]) -> None:
        try:
            answers = list(self._compute([item for item, _ in batch]))
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} items had {len(answers)} answers")
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            logger.warning("A batch of %d failed (%s): one by one.", len(batch), error)
            for pair in batch:
                self._answer([pair])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
