"""The few addresses of Gradio that the page needs; all others do not exist."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from attnvgg.deploy.serving.guard import KNOWN
from attnvgg.deploy.serving.limits import Refused

logger = logging.getLogger(__name__)

API = "/gradio_api/"
READ = {"/", "/theme.css", "/favicon.ico", f"{API}queue/data", f"{API}upload_progress"}
ASSETS = "/assets/"  # named by their content
READ_BELOW = (ASSETS, "/static/")  # what comes with Gradio's wheel
UPLOAD, JOIN = f"{API}upload", f"{API}queue/join"
LONGEST = 2**20  # bytes of a submission: names of files, not their content
KEPT = (b"cache-control", b"private, max-age=86400")
HEARTBEAT = f"{API}heartbeat/"
SENTENCES = {
    413: "These files are too large.",
    503: "The server is busy: try again in a few seconds.",
}
OTHERWISE = "The page could not make sense of that: load it again."
PATH = 1024  # characters of an upload's path: to resolve it takes the square of that
SESSION = re.compile("[A-Za-z0-9_-]{1,64}")


class Door:
    """ASGI middleware around Gradio.

    Gradio can serve files, fetch addresses, run functions by name and record sessions: none of
    that is needed here, so none of it is reachable. A submission can name the paths of any file of
    this machine, or addresses to fetch, and Gradio takes them (6.31, where it is mounted): only
    what was uploaded passes. What Gradio refuses, it refuses in our sentences.
    A session needs no heartbeat, as the server keeps nothing of it; an endless answer would also
    keep the server from stopping.

    Args:
        app: the application of Gradio.
        folder: of uploads.
        room: bytes that uploads may take on the disk, of all people together.
    """

    def __init__(self, app: Any, folder: Path, room: int) -> None:
        self._app, self._folder, self._room = app, folder, room

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            raise Refused(404, "There is nothing at this address.")
        method, path = scope["method"], scope["path"]
        if path.startswith(HEARTBEAT) and method == "GET":
            await _answer(send, 204, b"")  # tells the browser not to come back
            return
        reads = method in ("GET", "HEAD") and (path in READ or path.startswith(READ_BELOW))
        if not (reads or (method == "POST" and path in (UPLOAD, JOIN))):
            if path in KNOWN and path != "/":
                raise Refused(405, "This address is not asked in that way.")
            raise Refused(404, "There is nothing at this address.")
        if path == UPLOAD and _size(self._folder) > self._room:
            raise Refused(429, "The server holds too many uploads: try again in 60 s.", 60)
        if path == JOIN:
            receive = _again(self._checked(await _body(receive)), receive)
        await self._pass(scope, receive, send)

    def _checked(self, body: bytes) -> bytes:
        """Return a submission that names uploaded files and nothing else."""
        try:
            given = json.loads(body)
            named = [str(one["path"]) for one in given["data"][0]]
            function, session = int(given["fn_index"]), str(given["session_hash"])
            if max(map(len, named), default=0) > PATH or not SESSION.fullmatch(session):
                raise ValueError
            paths = [os.path.realpath(path) for path in named]
        except (ValueError, LookupError, TypeError, RecursionError, OSError, OverflowError):
            raise Refused(400, OTHERWISE) from None
        if not all(Path(path).is_relative_to(self._folder) for path in paths):
            raise Refused(400, "Only files that were uploaded here can be predicted.")
        files = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
        kept = {"data": [files], "fn_index": function, "session_hash": session}
        return json.dumps(kept).encode()

    async def _pass(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Let Gradio answer, and put a sentence in place of its refusals."""
        refused = 0

        async def send_checked(message: MutableMapping[str, Any]) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = message["status"]
            elif not refused:
                if message["type"] == "http.response.start" and scope["path"].startswith(ASSETS):
                    message["headers"] = [*message["headers"], KEPT]
                await send(message)

        try:
            await self._app(scope, receive, send_checked)
        except Refused:  # of the guard, while the body came
            raise
        except Exception as error:
            if not refused:
                raise
            # What fails is only ever the reading of a request: predictions are made elsewhere.
            logger.warning("Gradio could not read a request (%s).", type(error).__name__)
            refused = 400
        if refused:
            words = SENTENCES.get(refused, OTHERWISE)
            content = json.dumps({"detail": words, "error": words}).encode()
            await _answer(send, refused if refused != 500 else 400, content)


def _size(folder: Path) -> int:
    """Return the bytes in a folder; of what is deleted meanwhile, nothing."""
    size = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(root, name)).st_size
    return size


async def _body(receive: Any) -> bytes:
    """Return the whole body of a submission."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LONGEST:
            raise Refused(413, "A submission names too many files.")
    return body


def _again(body: bytes, receive: Any) -> Any:
    """Return a `receive` that gives a body, then what follows it."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return left.pop() if left else await receive()

    return replay


async def _answer(send: Any, status: int, content: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(content))] if content else []
    if content:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
