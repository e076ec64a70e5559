"""A stand-in for Kaggle on the loopback: a POST is redirected to a GET of the archive."""

import base64
import contextlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

USER, KEY, TOKEN, SIGNATURE = "someone", "k3y-of-nobody", "t0ken-of-nobody", "s1gnature"
SECRETS = (KEY, TOKEN, SIGNATURE, base64.b64encode(f"{USER}:{KEY}".encode()).decode())
NAME = "melanoma-merged-external-data-512x512-jpeg"
IMAGES = "512x512-dataset-melanoma/512x512-dataset-melanoma"


def dataset(seed=0, images=6, size=50_000):
    """Return the members of a small dataset of the Kaggle layout."""
    rng = np.random.default_rng(seed)
    members = {f"{IMAGES}/ISIC_{i}.jpg": rng.bytes(size) for i in range(images)}
    return {"marking.csv": b"image_id,target\n" + rng.bytes(9).hex().encode(), **members}


def zipped(members):
    """Return a ZIP archive of {name or ZipInfo: bytes}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


class Stub:
    """What the server does, to be changed by a test, and what it was asked.

    Attributes:
        archive, tag: the file that it serves, and its ETag.
        refusals: (status, headers) of the answers to the next requests, before it serves again.
        garbled: number of the next answers that are no JSON, though they say so.
        cuts: numbers of bytes after which the next bodies end.
        announces: whether it tells the length of the archive.
        ranges: None to ignore Range, "careless" to ignore If-Range.
        asked: (method, path, headers) of every request.
        sent: bytes of every body of the archive.
        active: whether it knows the access token.
    """

    def __init__(self):
        self.archive, self.tag = zipped(dataset()), '"one"'
        self.refusals, self.cuts, self.asked, self.sent = [], [], [], []
        self.garbled = 0
        self.ranges, self.active, self.announces = "careful", True, True

    def gets(self):
        """Return the headers of the requests for the archive."""
        return [headers for method, _, headers in self.asked if method == "GET"]

    def posts(self):
        """Return the headers of the requests to the service."""
        return [headers for _, path, headers in self.asked if path.endswith("DownloadDataset")]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        stub = self.note()
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("IntrospectToken"):
            self.answer_json(200, {"active": stub.active, "username": USER})
        elif stub.garbled:
            stub.garbled -= 1
            self.start(200, {"Content-Type": "application/json"})
            self.wfile.write(f"<html>{KEY}".encode())
        elif stub.refusals:
            status, headers = stub.refusals.pop(0)
            self.answer_json(status, {"code": status, "message": f"no, {KEY}"}, headers)
        else:
            self.start(302, {"Location": f"/archive.zip?signature={SIGNATURE}"})

    def do_GET(self):
        stub = self.note()
        body, first = stub.archive, 0
        asked, condition = self.headers["Range"], self.headers["If-Range"]
        if (
            asked
            and stub.ranges
            and condition in (stub.tag, stub.ranges == "careless" and condition)
        ):
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": stub.tag}
        if stub.announces:
            headers["Content-Length"] = len(body) - first
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        self.start(206 if first else 200, headers)
        body = body[first:][: stub.cuts.pop(0) if stub.cuts else None]
        stub.sent.append(len(body))
        with contextlib.suppress(ConnectionError):  # the client may have had enough
            self.wfile.write(body)

    def note(self):
        self.server.stub.asked.append((self.command, self.path, dict(self.headers)))
        return self.server.stub

    def answer_json(self, status, body, headers=()):
        self.start(status, {"Content-Type": "application/json", **dict(headers)})
        self.wfile.write(json.dumps(body).encode())

    def start(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve_kaggle(monkeypatch, folder):
    """Yield a running stub that the kaggle package takes for Kaggle, with a user name and key."""
    for name, value in {
        "KAGGLE_CONFIG_DIR": folder, "HOME": folder, "NO_PROXY": "127.0.0.1",
        "KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT", "KAGGLE_KERNEL_RUN_TYPE", "VERBOSE"):
        monkeypatch.delenv(name, raising=False)
    from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.stub = Stub()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(_env_to_endpoint, KaggleEnv.PROD, url)
    from kaggle.api.kaggle_api_extended import KaggleApi  # signs in when it is imported first

    monkeypatch.setattr(KaggleApi, "config", str(folder / "kaggle.json"))
    server.stub.asked.clear()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.stub
    finally:
        server.shutdown()
        server.server_close()
