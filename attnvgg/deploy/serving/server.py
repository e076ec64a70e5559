"""The process: a socket, the application in its guard, and an end that answers everybody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

from attnvgg.deploy.serving.guard import Guard
from attnvgg.deploy.serving.limits import Limits
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

GRACE = 1.0  # seconds in which connections are told to close, before none is taken any more
BACKLOG = 256
HEAD = 64 * 1024  # bytes of a request's head


def open_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket, before a model is loaded for nothing.

    Raises:
        InputError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({error}): choose another --host or --port."
        ) from error


def run(guard: Guard, listener: socket.socket, limits: Limits) -> int:
    """Serve until a SIGTERM or SIGINT, answer what was taken, and return the exit code: 0.

    Raises:
        InputError: the extra `serve` is not installed.
    """
    try:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol
    except ImportError:
        raise InputError('Serving needs more: pip install "attnvgg[serve]".') from None

    class Patient(H11Protocol):
        """Closes a connection whose first request does not begin in time."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head = self.loop.call_later(limits.body_seconds, self._close_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head.cancel()
            super().connection_lost(exc)

        def _close_idle(self) -> None:
            if self.cycle is None:
                self.transport.close()

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Stop at a signal, in good order, instead of dying by it afterwards."""
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop, number)
            yield

        def _stop(self, number: int) -> None:
            if guard.stopping:
                self.force_exit = number == signal.SIGINT
                return
            logger.info("Stopping: what was taken is answered first.")
            guard.stopping = True
            asyncio.get_running_loop().call_later(GRACE, setattr, self, "should_exit", True)

    # What they say of a broken body is already the answer; and their words hold parts of it.
    for name in ("python_multipart", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        guard,
        http=Patient,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(limits.seconds + limits.body_seconds),
        h11_max_incomplete_event_size=HEAD,
        lifespan="on",
    )
    Server(config).run(sockets=[listener])
    return 0
