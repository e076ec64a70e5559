"""Clients of a server, good and bad, and a look at its process from outside."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JPEG = {"Content-Type": "image/jpeg"}
TIMEOUT = 120.0


class Server:
    """A server in a process of its own.

    Attributes:
        port: it listens on.
        process: it runs in.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that stays open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def ask(self, data: bytes) -> dict:
        """Return the answer to one image."""
        connection = self.connect()
        connection.request("POST", "/invocations", data, JPEG)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def engine_seconds(self) -> float:
        """Return the time that its engine has computed."""
        connection = self.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return float(
            next(x for x in lines if x.startswith("attnvgg_engine_seconds_total")).split()[1]
        )

    def memory(self) -> float:
        """Return its resident memory in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def files(self) -> int:
        """Return the number of its open files and sockets."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def served(model: Path, *options: str) -> Iterator[Server]:
    """Start a server, wait until it listens, and end it.

    Args:
        model: run or saved model.
        options: more words for `scripts/serve.py`.
    """
    command = [sys.executable, "-u", str(ROOT / "scripts" / "serve.py"), str(model), "--port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("Serving "):
                port = int(line.split("http://")[1].split(" ")[0].rsplit(":", 1)[1])
                break
        else:
            raise RuntimeError(f"the server ended with {process.wait()}")
        drain = ThreadPoolExecutor(1)
        drain.submit(lambda: [None for _ in process.stdout])  # type: ignore[union-attr]
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def rate(server: Server, files: Sequence[bytes], clients: int, seconds: float) -> float:
    """Return the images a second that so many clients get answered, one at a time each."""

    def work(number: int) -> int:
        connection, done = server.connect(), 0
        while time.perf_counter() < end:
            connection.request("POST", "/invocations", files[(number + done) % len(files)], JPEG)
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            done += 1
        connection.close()
        return done

    start = time.perf_counter()
    end = start + seconds
    with ThreadPoolExecutor(clients) as pool:
        done = sum(pool.map(work, range(clients)))
    return done / (time.perf_counter() - start)


@dataclass
class Tally:
    """What came of many requests."""

    statuses: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    largest: float = 0.0  # difference of a logit


class Mixture:
    """Requests of every kind, each with what has to come of it.

    Args:
        files: valid images.
        logits: of each, by direct prediction.
        tolerance: difference of a logit that batches of another size may make.
    """

    def __init__(self, files: Sequence[bytes], logits: Sequence[float], tolerance: float) -> None:
        self.files, self.logits, self.tolerance = files, logits, tolerance
        self.tally = Tally()
        self.kinds = [
            *[self.image] * 10, *[self.document] * 4, *[self.form] * 3, self.corrupt, self.nonsense,
            self.oversized, self.bomb, self.slow, self.cut_off,
        ]  # fmt: skip

    def work(self, server: Server, seed: int, count: int) -> None:
        """Send so many requests, one after another."""
        chance, connection = random.Random(seed), server.connect()
        for _ in range(count):
            kind = chance.choice(self.kinds)
            try:
                kind(server, connection, chance)
            except (OSError, http.client.HTTPException) as error:
                self.tally.wrong.append(f"{kind.__name__}: {error!r}")
                connection.close()
                connection = server.connect()
        connection.close()

    def image(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send one image."""
        place = chance.randrange(len(self.files))
        self._post(connection, self.files[place], "image/jpeg", [place])

    def document(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send several images as JSON."""
        places = [chance.randrange(len(self.files)) for _ in range(chance.randint(1, 4))]
        texts = [base64.b64encode(self.files[place]).decode() for place in places]
        body = json.dumps({"instances": texts, "attention": chance.random() < 0.2}).encode()
        self._post(connection, body, "application/json", places)

    def form(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send several images as a form."""
        places = [chance.randrange(len(self.files)) for _ in range(chance.randint(1, 3))]
        head = b'--mark\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        body = b"".join(head + self.files[place] + b"\r\n" for place in places) + b"--mark--\r\n"
        self._post(connection, body, "multipart/form-data; boundary=mark", places)

    def corrupt(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send an image whose end is missing."""
        data = chance.choice(self.files)
        self._post(connection, data[: len(data) // 2], "image/jpeg", None, 422)

    def nonsense(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send random bytes under every type."""
        kind = chance.choice(["image/png", "application/json", "multipart/form-data; boundary=x"])
        self._post(connection, chance.randbytes(chance.randint(0, 5000)), kind, None, 422)

    def oversized(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send more than is taken."""
        self._post(connection, bytes(33 * 2**20), "image/jpeg", None, 413)

    def bomb(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send a header that promises 400 million pixels."""
        header = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + b"\x00\x00\x4e\x20" * 2
        body = header + b"\x08\x02\x00\x00\x00" + bytes.fromhex("5f8b2d6a") + bytes(100)
        self._post(connection, body, "image/png", None, 413, 422)

    def slow(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Send an image in pieces, over half a second."""
        place = chance.randrange(len(self.files))
        data = self.files[place]
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as raw:
            raw.sendall(_head(len(data)))
            for start in range(0, len(data), len(data) // 5 + 1):
                raw.sendall(data[start : start + len(data) // 5 + 1])
                time.sleep(0.1)
            response = http.client.HTTPResponse(raw, method="POST")
            response.begin()
            self._check(response.status, response.read(), [place])
            response.close()

    def cut_off(self, server, connection, chance) -> None:  # type: ignore[no-untyped-def]
        """Go away within the body, or before the answer."""
        data = chance.choice(self.files)
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as raw:
            raw.sendall(_head(len(data)))
            raw.sendall(data[: chance.choice([10, len(data) // 2, len(data)])])
        self.tally.statuses[0] = self.tally.statuses.get(0, 0) + 1

    def _post(self, connection, body, kind, places, *statuses) -> None:  # type: ignore[no-untyped-def]
        connection.request("POST", "/invocations", body, {"Content-Type": kind})
        response = connection.getresponse()
        self._check(response.status, response.read(), places, *statuses)

    def _check(self, status: int, content: bytes, places: list[int] | None, *statuses: int) -> None:
        tally = self.tally
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
        if status not in (statuses or (200,)):
            tally.wrong.append(f"{status}: {content[:200]!r}")
        if places is None or status != 200:
            return
        found = [prediction["logits"][0] for prediction in json.loads(content)["predictions"]]
        if len(found) != len(places):
            tally.wrong.append(f"{len(found)} answers to {len(places)} images")
        for logit, place in zip(found, places, strict=False):
            difference = abs(logit - self.logits[place])
            tally.largest = max(tally.largest, difference)
            if difference > self.tolerance:
                tally.wrong.append(f"image {place}: {logit}, not {self.logits[place]}")


def _head(length: int) -> bytes:
    return (
        f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()
