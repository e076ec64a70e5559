"""The client of a served model, against a server that says what it is told to say."""

import base64
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import requests

from attnvgg.deploy.endpoint import TOKEN, TRIES, Endpoint
from attnvgg.deploy.wire import content_type
from attnvgg.errors import InputError

PICTURE = bytes(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1])
SECRET = "a-token-of-many-letters"
GOOD = {
    "model": "abc", "engine": "eager", "classes": ["benign", "malignant"], "threshold": 0.4,
    "predictions": [
        {"logits": [0.1], "probabilities": [0.475, 0.525], "probability": 0.525,
         "called": "malignant", "attention": {"pool-3": [[1.0]]}}
    ],
}  # fmt: skip


class Stub(ThreadingHTTPServer):
    """Answers (status, headers, content) of `answers`, the last one again and again."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.seen, self.connections = [(200, {}, GOOD)], [], set()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        stub = self.server
        with stub.lock:
            stub.seen.append((self.command, self.path, dict(self.headers), body))
            stub.connections.add(self.client_address)
            answers = stub.answers
            status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def endpoint(stub):
    """A client that notes in place of waiting."""
    client = Endpoint(f"{stub.url}/", timeout=5)
    client.waited = []
    client.wait = client.waited.append
    return client


def form_parts(headers, body):
    """The parts of a form, read by the standard library."""
    message = BytesParser().parsebytes(
        b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body
    )
    return [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
        for part in message.get_payload()
    ]


def test_an_image_is_sent_as_it_is_and_its_answer_is_read(endpoint, stub, tmp_path):
    (tmp_path / "mole.png").write_bytes(PICTURE)
    answer = endpoint.predict_image(tmp_path / "mole.png")
    (seen,) = stub.seen
    assert seen[:2] == ("POST", "/invocations")
    assert (seen[2]["Content-Type"], seen[3]) == ("image/png", PICTURE)
    assert "Authorization" not in seen[2]
    assert (answer.logits.tolist(), answer.probabilities.tolist()) == ([0.1], [0.475, 0.525])
    assert (answer.called, answer.threshold, answer.model) == ("malignant", 0.4, "abc")
    assert endpoint.predict_image(PICTURE, attention=True).attention == {"pool-3": [[1.0]]}
    assert stub.seen[1][1] == "/invocations?attention=true"


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".jpg", "image/jpeg"), (".png", "image/png"), (".tiff", "image/tiff"), (".bmp", "image/bmp"),
     (".webp", "image/webp")],
)  # fmt: skip
def test_the_type_is_that_of_the_content(suffix, kind):
    data = bytes(cv2.imencode(suffix, np.zeros((8, 8, 3), np.uint8))[1])
    assert content_type(data) == kind


def test_what_is_no_image_is_not_called_one():
    assert content_type(b"hello") == "application/octet-stream"


def test_the_images_of_a_bag_are_a_form_in_order_without_their_names(endpoint, stub, tmp_path):
    (tmp_path / "Mr. Smith.png").write_bytes(PICTURE)
    other = bytes(cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1])
    endpoint.predict_bag([tmp_path / "Mr. Smith.png", other])
    _, _, headers, body = stub.seen[0]
    assert form_parts(headers, body) == [
        ("0", "image/png", PICTURE), ("1", "image/jpeg", other)
    ]  # fmt: skip
    assert b"Smith" not in body


@pytest.mark.parametrize("order", ["<f4", ">f4", "<f8"])
def test_features_travel_as_little_endian_float32(endpoint, stub, order):
    bag = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    endpoint.predict_bag(features=np.asfortranarray(bag.astype(order)))
    (instance,) = json.loads(stub.seen[0][3])["instances"]
    sent = instance["features"]
    found = np.frombuffer(base64.b64decode(sent["base64"]), "<f4").reshape(sent["shape"])
    assert found.tobytes() == bag.tobytes()


@pytest.mark.parametrize("bag", [{}, {"images": [PICTURE], "features": [[1.0]]}, {"images": []}])
def test_a_bag_has_either_images_or_features(endpoint, stub, bag):
    with pytest.raises(InputError, match=r"A bag has"):
        endpoint.predict_bag(**bag)
    assert not stub.seen


def test_the_token_comes_from_the_environment_and_shows_nowhere(stub, monkeypatch, caplog):
    monkeypatch.setenv(TOKEN, f"{SECRET}\n")
    client = Endpoint(stub.url)
    with caplog.at_level(logging.DEBUG):
        client.predict_image(PICTURE)
        assert client.ready()
    assert [seen[2]["Authorization"] for seen in stub.seen] == [f"Bearer {SECRET}"] * 2
    assert SECRET not in caplog.text + repr(vars(client))


def test_the_token_wins_over_a_file_of_passwords(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine clinic.example login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # would win over a plain header
    request = requests.Request("GET", "https://clinic.example/ping")
    for token, kind in ((SECRET, f"Bearer {SECRET}"), ("", "Basic")):
        session = Endpoint("https://clinic.example", token)._session
        assert session.prepare_request(request).headers["Authorization"].startswith(kind)


def test_what_is_for_this_machine_goes_to_no_proxy(stub, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Endpoint(stub.url).predict_image(PICTURE).model == "abc"
    other = Endpoint("http://clinic.example")._session
    assert other.merge_environment_settings("http://clinic.example", {}, None, None, None)[
        "proxies"
    ]


def test_a_token_for_another_machine_wants_encryption(caplog):
    Endpoint("http://clinic.example:8080", token=SECRET)
    assert "unencrypted" in caplog.text
    caplog.clear()
    for quiet in ("https://clinic.example", "http://127.0.0.1:8080", "http://[::1]:80"):
        Endpoint(quiet, token=SECRET)
    Endpoint("http://clinic.example:8080", token="")
    assert not caplog.text


@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_endpoint_is_left_alone_as_long_as_it_says(endpoint, stub, code):
    later = [(code, {"Retry-After": "3"}, {"error": "Busy."}), (code, {}, {"error": "Busy."})]
    strange = [(code, {"Retry-After": value}, {}) for value in ("Wed, 21 Oct", "99999", "-5")]
    stub.answers[:0] = later + strange
    assert endpoint.predict_image(PICTURE).called == "malignant"
    assert endpoint.waited == [3, 1, 1, 30, 0]
    assert {seen[3] for seen in stub.seen} == {PICTURE}  # the whole body each time


def test_an_endpoint_that_stays_busy_is_given_up(endpoint, stub):
    stub.answers = [(429, {"Retry-After": "2"}, {"error": "The queue is full."})]
    with pytest.raises(InputError, match=r"stayed busy .*429.*The queue is full\."):
        endpoint.predict_image(PICTURE)
    assert (len(stub.seen), endpoint.waited) == (TRIES, [2] * (TRIES - 1))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((422, {}, {"error": "The image is broken."}), r"\(422\): The image is broken\.$"),
        ((413, {}, {"error": "Too large."}), r"\(413\): Too large\.$"),
        ((500, {}, b"<html>"), r"\(500\): it is no endpoint of ours"),
        ((401, {}, {"error": "A token."}), rf"wants a token: set {TOKEN}\.$"),
        ((307, {"Location": "http://elsewhere/"}, b""), "leads to http://elsewhere/"),
        ((200, {}, b"<html>"), "is no endpoint of attnvgg"),
        ((200, {}, []), "is no endpoint of attnvgg"),
        ((200, {}, {"predictions": []}), "is no endpoint of attnvgg"),
        ((200, {}, {**GOOD, "predictions": [{"logits": ["x"]}]}), "is no endpoint of attnvgg"),
    ],
)
def test_everything_else_is_told_in_a_sentence_at_once(endpoint, stub, answer, words):
    stub.answers = [answer]
    with pytest.raises(InputError, match=words) as told:
        endpoint.predict_image(PICTURE)
    assert len(stub.seen) == 1
    assert str(told.value).endswith(".") or "leads to" in words


def test_a_refused_token_is_told_apart_from_a_missing_one(stub):
    stub.answers = [(401, {}, {"error": "No."})]
    with pytest.raises(InputError, match=f"refuses the token of {TOKEN}") as told:
        Endpoint(stub.url, token=SECRET).model()
    assert SECRET not in str(told.value)


def test_nobody_there(stub):
    stub.server_close()
    client = Endpoint(stub.url)
    assert not client.ready()
    with pytest.raises(InputError, match=r"No endpoint answers at .*Connection refused.*serve\.py"):
        client.model()


def test_an_answer_that_takes_too_long(stub, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda handler: threading.Event().wait(0.5))
    with pytest.raises(InputError, match=r"gave no answer in 0\.05 s"):
        Endpoint(stub.url, timeout=0.05).model()


def test_a_connection_that_was_closed_meanwhile_is_opened_again(endpoint, stub, monkeypatch):
    endpoint.model()
    calls, request = [], requests.Session.request

    def closed_once(session, *arguments, **more):
        calls.append(1)
        if len(calls) == 1:
            raise requests.ConnectionError("Remote end closed connection without response")
        return request(session, *arguments, **more)

    monkeypatch.setattr(requests.Session, "request", closed_once)
    assert endpoint.predict_image(PICTURE).model == "abc"


def test_not_ready_while_it_stops(endpoint, stub):
    stub.answers = [(503, {}, {"error": "Stopping."})]
    assert not endpoint.ready()
    assert not endpoint.waited


def test_threads_share_the_endpoint_but_no_connection(endpoint, stub):
    together = threading.Barrier(3)

    def ask(number):
        together.wait(5)
        return [endpoint.predict_image(PICTURE).model for _ in range(4)]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == [["abc"] * 4] * 3
    assert len(stub.connections) == 3  # one a thread, kept open


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:8080", "is no address"),
        ("ftp://host", "is no address"),
        ("http://", "is no address"),
        ("http://host:port", "is no address"),
        ("http://host/?a=1", "is no address"),
        (f"http://user:{SECRET}@host", "holds no password"),
    ],
)
def test_what_is_no_address(url, words):
    with pytest.raises(InputError, match=words) as told:
        Endpoint(url)
    assert SECRET not in str(told.value)


def test_a_file_that_is_not_there(endpoint):
    with pytest.raises(InputError, match=r"gone\.png cannot be read: No such file"):
        endpoint.predict_image("gone.png")
