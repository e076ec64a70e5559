"""A file that arrives over HTTP in several attempts, and how to go on where the last one ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from requests import Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, RequestException
from tqdm import tqdm

from attnvgg.data.archives import require_space
from attnvgg.files import atomic_path

CHUNK = 2**16  # the most that a cut can cost: a piece arrives whole or is asked for again
PATIENCE = (10.0, 60.0)  # seconds to connect, and between two pieces


class Identity(NamedTuple):
    """Which file some bytes belong to: only between equal identities may a download go on.

    Attributes:
        size: length of the whole file in bytes, None if the server does not tell.
        tag: ETag, or the date of the last change, None if there is neither.
    """

    size: int | None
    tag: str | None


class StartOver(RequestException):
    """The bytes on disk do not fit the file on the server; they are gone, the next try is whole."""


@dataclass(frozen=True)
class Partial:
    """An unfinished file and, beside it, the identity of the file it is the beginning of.

    Attributes:
        path: the bytes received so far.
    """

    path: Path

    @property
    def _record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def identity(self) -> Identity:
        """What the bytes belong to, as recorded before the first of them was written."""
        try:
            record = json.loads(self._record.read_text())
            return Identity(record["size"], record["tag"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Identity(None, None)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.identity.size is not None and self.size == self.identity.size

    @property
    def resume_headers(self) -> dict[str, str]:
        """Headers that ask for the rest, or for the whole file where going on would be unsafe."""
        size, tag = self.identity
        if size is None or tag is None or not 0 < self.size < size:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": tag}

    def discard(self) -> None:
        """Delete the bytes and their record."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def receive(self, response: Response, label: str) -> None:
        """Write the body of one response behind the bytes that are here, or in their place.

        Args:
            response: of status 200 (the whole file) or 206 (the rest), its body not read yet.
            label: of the progress bar.

        Raises:
            ChunkedEncodingError: the body ended early; what arrived is kept.
            StartOver: the rest of another file was sent.
            InputError: too little disk space for the rest and for extracting it.
        """
        identity = _identify(response)
        rest = response.status_code == 206
        fits = identity == self.identity and _start(response) == self.size
        if not (rest and fits):
            self.discard()
        if rest and not fits:
            raise StartOver("this is the rest of another file")
        if identity.size is not None:
            # Photographs do not shrink in an archive, so they extract to about its size.
            needed = 2 * identity.size - self.size
            require_space(self.path.parent, needed, "Downloading and extracting the archive")
        if not rest:
            with atomic_path(self._record) as record:
                record.write_text(json.dumps(identity._asdict()))
        bar = tqdm(
            total=identity.size, initial=self.size, desc=label,
            unit="B", unit_scale=True, unit_divisor=1024,
        )  # fmt: skip
        with bar, self.path.open("ab") as sink:
            for chunk in response.iter_content(CHUNK):
                sink.write(chunk)
                bar.update(len(chunk))
        if identity.size is not None and self.size != identity.size:
            raise ChunkedEncodingError("the body is not as long as announced")


class ResumingAdapter(HTTPAdapter):
    """Transport that never waits for ever and asks only for the rest of a partial file.

    The additions go to GET requests alone: the request to the service that precedes them, and
    that redirects to the file, stays as its library made it.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__()
        # Compressed on the way, neither a range nor a length would count the bytes of the file.
        self.additions = {"Accept-Encoding": "identity", **headers}

    def send(self, request: Any, *args: Any, **options: Any) -> Response:
        """Send one request; the arguments are those of `HTTPAdapter.send`."""
        if request.method == "GET":
            request.headers.update(self.additions)
        return super().send(request, *args, **{**options, "timeout": PATIENCE})


def _identify(response: Response) -> Identity:
    headers = response.headers
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    return Identity(size, headers.get("ETag") or headers.get("Last-Modified"))


def _start(response: Response) -> int | None:
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None
