"""What stands in front of every path: identity, size, pace, headers, and one sentence a refusal."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import re
import time
from collections.abc import Mapping

from attnvgg.deploy.serving.counters import Counters
from attnvgg.deploy.serving.exchange import (
    GONE,
    LONGEST,
    Application,
    Exchange,
    Receive,
    Scope,
    Send,
    too_large,
)
from attnvgg.deploy.serving.limits import MIB, Limits, Refused

logger = logging.getLogger(__name__)

KNOWN = ("/", "/ping", "/invocations", "/model", "/metrics", "/docs", "/openapi.json")
OPEN = ("/ping",)  # health is asked for by who has no token
LOCAL = {"localhost", "127.0.0.1", "[::1]"}


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: what it guards.
        limits: see `Limits`.
        counters: see `Counters`.
        token: what a request must bring; None: nothing.
        hosts: names by which the server may be addressed; None: any. On the loopback this keeps web
            pages from reaching it under a name of their own.

    Attributes:
        stopping: set when the server is told to stop; requests that come are still answered, but
            their connections are closed.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        counters: Counters,
        token: str | None = None,
        hosts: set[str] | None = None,
    ) -> None:
        self._app, self._limits, self._counters = app, limits, counters
        self._token = None if token is None else token.encode()
        self._hosts = hosts
        self._under_way = 0
        self.held = 0  # bytes of bodies
        self.lost = 0  # requests that were accepted, and not answered before the end
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(self, scope, receive, send)
        self._under_way += 1
        self._counters.under_way.set(self._under_way)
        try:
            self._admit(exchange)
            await self._app(scope, exchange.receive, exchange.send)
            await exchange.refuse_late()
        except Refused as error:
            await exchange.refuse(error)
        except asyncio.CancelledError:  # the server's patience at its end is over
            self.lost += 1
            await exchange.refuse(Refused(503, "The server has stopped: ask another one.", 1))
        except Exception:
            await self._fail(exchange)
        finally:
            self._under_way -= 1
            self.held -= exchange.held
            self._counters.under_way.set(self._under_way)
            self._counters.body_bytes.set(self.held)
            self._tell(exchange)

    def _admit(self, exchange: Exchange) -> None:
        """Refuse a request by its head alone."""
        headers, path = exchange.headers, exchange.path
        if path in OPEN:
            return
        if self._hosts is not None:
            host = re.sub(r":\d*$", "", headers.get("host", "")).lower()
            if host not in self._hosts:
                raise Refused(421, "This server answers under the name of this machine only.")
        if exchange.method not in ("GET", "HEAD") and _is_foreign(headers):
            raise Refused(403, "Pages of other sites may not use this server.")
        if self._token is not None and not _is_token(headers.get("authorization"), self._token):
            raise Refused(401, "A token is needed: Authorization: Bearer TOKEN.")
        if exchange.method not in ("GET", "HEAD") and self._under_way > self._limits.requests:
            raise Refused(429, "The server is busy: try again in 1 s.", 1)
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise Refused(400, "Content-Length is not a number.")
        if len(length) > LONGEST or int(length) > self._limits.body:
            raise too_large(self._limits)

    async def _fail(self, exchange: Exchange) -> None:
        """Answer where the application failed, unless it was for its client's sake."""
        await exchange.refuse_late()
        if exchange.gone:
            exchange.status = exchange.status or GONE
        elif exchange.status in (0, 500):  # a framework may have answered for itself
            logger.exception("Request %s failed.", exchange.identity)
            await exchange.refuse(Refused(500, "The server failed; its log says why."))

    def take(self, exchange: Exchange, size: int) -> None:
        """Account for bytes of a body that have come.

        Raises:
            Refused: this body, or all of them together, are too large.
        """
        if exchange.held + size > self._limits.body:
            raise too_large(self._limits)
        if self.held + size > self._limits.memory_mib * MIB:
            raise Refused(429, "The server holds too many bodies: try again in 1 s.", 1)
        exchange.held += size
        self.held += size
        self._counters.body_bytes.set(self.held)

    @property
    def largest(self) -> int:
        """Return the bytes that a body may have."""
        return self._limits.body

    @property
    def patience(self) -> float:
        """Return the seconds that a body may take."""
        return self._limits.body_seconds

    def _tell(self, exchange: Exchange) -> None:
        seconds = time.perf_counter() - exchange.start
        known = exchange.path if exchange.path in KNOWN else "other"
        self._counters.requests.labels(known, str(exchange.status)).inc()
        self._counters.seconds.labels(known).observe(seconds)
        if known != "other":  # the parts of the page would drown the rest
            logger.info(
                "%s %s %s %d %.0f ms", exchange.identity, exchange.method, known, exchange.status,
                1000 * seconds,
            )  # fmt: skip


def _is_foreign(headers: Mapping[str, str]) -> bool:
    """Tell whether a browser sends this for a page of another site; programs say nothing of it."""
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")


def _is_token(given: str | None, token: bytes) -> bool:
    """Tell whether a header brings the token, in a time that does not depend on it."""
    kind, _, value = (given or "").partition(" ")
    found = value.strip().encode("latin-1", "replace")
    if kind.lower() == "basic":
        try:
            found = base64.b64decode(found, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            found = b""
    elif kind.lower() != "bearer":
        found = b""
    return hmac.compare_digest(found, token)
