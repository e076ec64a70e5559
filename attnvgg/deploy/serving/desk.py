"""Between requests and the service: decoding in threads, counting, answers as bytes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from attnvgg.data.cores import available_cores
from attnvgg.deploy.serving.counters import Counters
from attnvgg.deploy.serving.image_service import ImageService
from attnvgg.deploy.serving.limits import MIB, Limits, Refused
from attnvgg.deploy.serving.payload import Payload
from attnvgg.deploy.serving.service import Prepared, Service, numbered

Remember = Callable[[str, Prepared, Any], None]


class Desk:
    """Answers to the payloads of requests, by a service and a few threads.

    Args:
        service: see `Service`; closed with the desk.
        limits: see `Limits`.
        counters: see `Counters`.
        remember: told identity, instance and prediction of everything that is answered.
    """

    def __init__(
        self, service: Service, limits: Limits, counters: Counters, remember: Remember | None
    ) -> None:
        self.service, self.limits, self.counters = service, limits, counters
        self._remember = remember
        self._decoded = 0  # bytes
        self._threads = ThreadPoolExecutor(available_cores(), thread_name_prefix="decode")

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    async def predictions(
        self, payload: Payload, identity: str
    ) -> tuple[list[Prepared], list[Any]]:
        """Decode, wait for a place, and compute; nothing of it goes on when nobody waits.

        Raises:
            Refused: an instance cannot be used, or there is no room.
        """
        over = threading.Event()
        size = await self.call(self.service.measure, payload.instances)
        with self._room(size):
            try:
                prepared = await _together(
                    self.call(self._prepare, place, payload, over.is_set)
                    for place in range(len(payload.instances))
                )
                futures = self.service.submit(prepared, over.is_set)
                found = await _together(map(asyncio.wrap_future, futures))
            finally:
                over.set()
        for instance, prediction in zip(prepared, found, strict=True):
            self.note(identity, instance, prediction)
        return prepared, found

    def _prepare(self, place: int, payload: Payload, is_over: Callable[[], bool]) -> Prepared:
        with numbered(place, len(payload.instances)):
            return self.service.prepare(payload.instances[place], is_over)

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """Keep room for what is decoded, within the event loop."""
        most = self.limits.values_mib * MIB
        if size > most / 2:
            words = f"A request takes at most {most / 2 / MIB:g} MiB when it is decoded."
            raise Refused(413, words)
        if self._decoded + size > most:
            raise Refused(429, "The server is busy: try again in 1 s.", 1)
        self._decoded += size
        try:
            yield
        finally:
            self._decoded -= size

    def note(self, identity: str, instance: Prepared, prediction: Any) -> None:
        """Count a prediction, and remember it where somebody wants that."""
        self.counters.predictions.labels(self.service.classes[prediction.called]).inc()
        if self._remember is not None:
            self._remember(identity, instance, prediction)

    async def json(self, payload: Payload, identity: str) -> bytes:
        """Return the answer as JSON."""
        prepared, found = await self.predictions(payload, identity)
        if payload.attention:  # long lists of numbers
            return bytes(await self.call(self._encoded, prepared, found, True))
        return self._encoded(prepared, found, False)

    async def picture(self, payload: Payload, identity: str) -> bytes:
        """Return the answer as a figure, a PNG file.

        Raises:
            Refused: there is no figure of that.
        """
        service = self.service
        if not isinstance(service, ImageService) or len(payload.instances) != 1:
            raise Refused(406, "There is a figure of one image only: ask for application/json.")
        _, (found,) = await self.predictions(payload, identity)
        return bytes(await self.call(service.figure, payload.instances[0], found))

    def _encoded(
        self, prepared: Sequence[Prepared], found: Sequence[Any], attention: bool
    ) -> bytes:
        answers = [
            self.service.answer(instance, prediction, attention)
            for instance, prediction in zip(prepared, found, strict=True)
        ]
        return json.dumps(self.service.envelope(answers), allow_nan=False).encode()

    def close(self) -> None:
        """Finish what is under way."""
        self._threads.shutdown(cancel_futures=True)
        self.service.close()


async def _together(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for all; with the first that fails, or when nobody waits, the others are given up."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
