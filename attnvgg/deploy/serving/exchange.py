"""A request and its answer on their way through the guard."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from attnvgg.deploy.serving.limits import Limits, Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LONGEST = 15  # digits of a length: Python refuses to read thousands of them
GONE = 499  # what others write into their logs for a client that did not wait
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
    # The page writes its scripts and styles into itself; nothing may come from, or go, elsewhere.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}


class Keeper(Protocol):
    """What an exchange has to know of the guard.

    Attributes:
        stopping: connections are to be closed.
    """

    stopping: bool

    @property
    def largest(self) -> int:
        """Return the bytes that a body may have."""

    @property
    def patience(self) -> float:
        """Return the seconds that a body may take."""

    def take(self, exchange: Exchange, size: int) -> None:
        """Account for bytes of a body, or refuse them."""


class Exchange:
    """A request and its answer on their way through the guard."""

    def __init__(self, guard: Keeper, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard, self._receive, self._send = guard, receive, send
        self.start = time.perf_counter()
        self.identity = uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=self.identity, started=self.start)
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.headers = {
            key.decode("latin-1").lower(): value.decode("latin-1")
            for key, value in scope["headers"]
        }
        self.status = 0  # of the answer, once it has begun
        self.held = 0  # bytes of the body
        self.gone = False  # the client is not there any more
        self._begun = self._complete = False  # the body was asked for, has come
        self._refused: Refused | None = None  # while the body came

    async def receive(self) -> Message:
        """Return the next part of the body, in time and within its size."""
        if self._complete:  # what follows is the end of the connection
            return await self._receive()
        self._begun = True
        left = self.start + self._guard.patience - time.perf_counter()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
            self.gone = message["type"] == "http.disconnect"
            self._complete = not message.get("more_body", False)
            self._guard.take(self, len(message.get("body", b"")))
        except TimeoutError:
            self._refused = Refused(408, "The body of the request came too slowly.")
            raise self._refused from None
        except Refused as error:
            self._refused = error
            raise
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on, with the headers that every one has."""
        if self.gone or self._refused is not None:
            self.status = self.status or (GONE if self.gone else 0)
            return  # whatever the application makes of it, `refuse` answers
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                await self._drain()
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._extra(message["headers"])]
        await self._send(message)

    def _extra(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        given = {key.lower() for key, _ in headers}
        extra = HEADERS | {"x-request-id": self.identity}
        if self._guard.stopping or not (self._complete or self.method in ("GET", "HEAD")):
            extra["connection"] = "close"
        pairs = [(key.encode(), value.encode()) for key, value in extra.items()]
        return [(key, value) for key, value in pairs if key not in given]

    async def refuse(self, error: Refused) -> None:
        """Answer with one sentence, unless an answer has begun."""
        if self.status:
            return
        await self._drain()
        if self.gone:
            self.status = GONE
            return
        self.status = error.status
        content = json.dumps({"error": error.message, "request_id": self.identity}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after))
        if error.status == 401:
            headers.append((b"www-authenticate", b'Basic realm="attnvgg", charset="UTF-8"'))
        headers += self._extra(headers)
        start = {"type": "http.response.start", "status": error.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": content})

    async def refuse_late(self) -> None:
        """Answer in place of an application that made something else of a refused body."""
        if self._refused is not None:
            await self.refuse(self._refused)

    async def _drain(self) -> None:
        """Let a client finish what it is sending: many read no answer before.

        Not one that waits to be told to go on, and neither without end: as much as a body may have,
        twice.
        """
        asks = "expect" in self.headers and not self._begun
        if self._complete or asks or self.method in ("GET", "HEAD"):
            return
        left = 2 * self._guard.largest
        length = self.headers.get("content-length", "")
        if len(length) > LONGEST or (length.isdecimal() and int(length) > left):
            return
        until = time.perf_counter() + 5
        try:
            while left > 0 and (seconds := until - time.perf_counter()) > 0:
                message = await asyncio.wait_for(self._receive(), seconds)
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    self.gone = message["type"] == "http.disconnect"
                    self._complete = True
                    return
        except TimeoutError:
            return


def too_large(limits: Limits) -> Refused:
    """Return the refusal of a body."""
    return Refused(413, f"A request has at most {limits.body_mib:g} MiB.")
