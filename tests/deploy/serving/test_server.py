"""Connections that are slow, silent, or no HTTP: what only a socket can show."""

import contextlib
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from attnvgg.deploy.serving.limits import Limits
from attnvgg.deploy.serving.server import open_socket
from tests.live_server import served

PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def port(bag_model):
    with served(bag_model, limits=Limits(body_mib=1, body_seconds=0.5, connections=20)) as url:
        yield urlsplit(url).port


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def ping(connection):
    """Ask, and read the whole answer, which comes in parts."""
    connection.sendall(PING)
    found = b""
    while not found.endswith(b'{"status":"ready"}'):
        found += (part := connection.recv(4096))
        assert part, found
    assert b"200 OK" in found


def is_closed(connection, seconds):
    """Tell whether the server ends the connection in time."""
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionResetError):
        try:
            return connection.recv(1) == b""
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize("beginning", [b"", b"G", b"GET /ping HTTP/1.1\r\nHost:"])
@pytest.mark.parametrize("after_another", [False, True])
def test_heads_that_do_not_come(port, beginning, after_another):
    with connect(port) as connection:
        if after_another:
            ping(connection)
        connection.sendall(beginning)
        assert is_closed(connection, 5)


def test_a_patient_client_is_not_cut_off(port):
    with connect(port) as connection:
        for _ in range(4):
            time.sleep(0.3)  # longer than the limit in all, not between two requests
            ping(connection)


def test_what_is_no_http_gets_a_sentence(port):
    for wrong in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"HELLO\r\n\r\n"):
        with connect(port) as connection:
            connection.sendall(wrong)
            head, _, body = connection.recv(4096).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert set(json.loads(body)) == {"error", "request_id"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/invocations", {"Content-Type": "text/plain"}, 415),
        ("POST", "/invocations", {"Content-Type": "application/json", "Accept": "text/html"}, 406),
        ("POST", "/model", {}, 405),
        ("POST", "/nothing", {}, 404),
    ],
)
def test_who_sends_much_reads_why_it_is_refused(port, method, path, headers, status):
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, bytes(2**20), headers)
        response = connection.getresponse()
        assert response.status == status
        assert json.loads(response.read())["error"].endswith(".")
        connection.close()


def test_small_answers_do_not_wait_for_an_acknowledgement():
    with open_socket("127.0.0.1", 0) as listener, connect(listener.getsockname()[1]):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connections_are_counted(port):
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(connect(port)) for _ in range(40)]
        assert sum(is_closed(one, 0.02) for one in many) >= 20
    time.sleep(0.1)
    with connect(port) as connection:
        ping(connection)
