"""The process: a socket, the application in its guard, and an end that answers everybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import signal
import socket
import uuid
from collections.abc import Iterator
from typing import Any

from attnvgg.deploy.serving.guard import Guard
from attnvgg.deploy.serving.limits import Limits
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

GRACE = 1.0  # seconds in which open connections are told to close by the answers they get
BACKLOG = 256
NOT_HTTP = "This is no HTTP/1.1 request: check its head and its chunks."
HEAD = 64 * 1024  # bytes of a request's head


def open_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket, before a model is loaded for nothing.

    Raises:
        InputError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({error}): choose another --host or --port."
        ) from error
    # Connections have it from here. Without, the body of an answer waits until its head is
    # acknowledged, which takes 40 ms; asyncio sets it on sockets that it has made itself only.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def run(guard: Guard, listener: socket.socket, limits: Limits) -> None:
    """Serve until a SIGTERM or SIGINT, and answer what was taken; `guard.lost` counts the rest.

    Raises:
        InputError: the extra `serve` is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise InputError('Serving needs more: pip install "attnvgg[serve]".') from None

    # What they say of a broken body is already the answer; and their words hold parts of it.
    for name in ("python_multipart", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        guard,
        http=patient(limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=math.ceil(limits.seconds) + 2,
        h11_max_incomplete_event_size=HEAD,
        lifespan="on",
    )
    stopping(guard, listener)(config).run(sockets=[listener])


def stopping(guard: Guard, listener: socket.socket) -> Any:
    """Return a server that stops in good order: whoever was accepted is answered."""
    import uvicorn

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
            self._take_last()
            asyncio.get_running_loop().call_later(GRACE, setattr, self, "should_exit", True)

        def _take_last(self) -> None:
            """Take the connections that wait in the system, and no more."""
            loop = asyncio.get_running_loop()
            self._last: list[Any] = []  # the loop holds its tasks weakly
            with contextlib.suppress(OSError):  # there are none
                while True:
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    last = loop.connect_accepted_socket(self._make_protocol, connection)
                    self._last.append(loop.create_task(last))
            for server in self.servers:
                server.close()

        def _make_protocol(self) -> Any:
            make: Any = self.config.http_protocol_class
            loop = asyncio.get_running_loop()
            return make(self.config, self.server_state, self.lifespan.state, loop)

    return Server


def patient(limits: Limits) -> Any:
    """Return a protocol that closes connections on which no request begins in time."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _full: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._head, self._full):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            """Wait for a client that does not read what it asked for, but not for ever."""
            super().pause_writing()
            self._full = self.loop.call_later(limits.body_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._full is not None:
                self._full.cancel()
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            """Answer what is not even HTTP in the same words as everything else."""
            content = json.dumps({"error": NOT_HTTP, "request_id": uuid.uuid4().hex}).encode()
            head = (
                "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
            self.transport.close()

        def _watch(self) -> None:
            """Let a timer run as long as no request is under way."""
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self._head is None:
                self._head = self.loop.call_later(limits.body_seconds, self.transport.close)
            elif not idle and self._head is not None:
                self._head.cancel()
                self._head = None

    return Patient
