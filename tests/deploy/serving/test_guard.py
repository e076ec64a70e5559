"""In front of every path: tokens, names, sizes, pace, headers."""

import asyncio
import base64

import pytest

from attnvgg.deploy.serving.counters import Counters
from attnvgg.deploy.serving.guard import LOCAL, Guard
from attnvgg.deploy.serving.limits import Limits, Refused

TOKEN = "0123456789abcdef"


async def echo(scope, receive, send):
    """Answer with the length of the body, as an application that reads it all."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RuntimeError("the client has gone")
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def careless(scope, receive, send):
    """Make 500 of whatever happens, as frameworks do."""
    try:
        await echo(scope, receive, send)
    except Exception:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"Traceback"})
        raise


def ask(guard, parts=(b"",), path="/invocations", method="POST", pause=0.0, end=True, **headers):
    """Send a request in parts; return status, headers and body of the answer."""
    sent, queue = [], list(parts)

    async def receive():
        if not queue:
            if end:
                await asyncio.sleep(30)
            return {"type": "http.disconnect"}
        if pause:
            await asyncio.sleep(pause)
        body = queue.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(queue) or not end}

    async def send(message):
        sent.append(message)

    pairs = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(guard(scope, receive, send))
    if not sent:
        return None, {}, b""
    head = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(m["body"] for m in sent[1:])


@pytest.fixture
def guard():
    return make()


def make(app=echo, token=None, hosts=None, **limits):
    return Guard(app, Limits(body_mib=0.001, **limits), Counters(), token, hosts)


def test_what_is_allowed_passes(guard):
    status, headers, body = ask(guard, (b"abc", b"de"))
    assert (status, body) == (200, b"5")
    assert len(headers["x-request-id"]) == 32
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert guard.held == 0


def test_identities_differ(guard):
    assert ask(guard)[1]["x-request-id"] != ask(guard)[1]["x-request-id"]


@pytest.mark.parametrize("app", [echo, careless])
def test_too_large_by_what_comes(app):
    guard = make(app)
    status, _, body = ask(guard, [b"x" * 400] * 4)
    assert status == 413
    assert b"MiB" in body
    assert b"Traceback" not in body
    assert guard.held == 0


def test_too_large_by_what_is_said(guard):
    reached = []

    async def app(scope, receive, send):
        reached.append(scope)

    status, headers, _ = ask(make(app), content_length="2000", expect="100-continue")
    assert (status, headers["connection"], reached) == (413, "close", [])
    assert ask(guard, content_length="-5")[0] == 400
    assert ask(guard, content_length="5" * 5000)[0] == 413


@pytest.mark.parametrize("app", [echo, careless])
def test_too_slow(app):
    status, _, body = ask(make(app, body_seconds=0.2), [b"a"] * 20, pause=0.05)
    assert status == 408
    assert b"slowly" in body


def test_all_bodies_together(guard):
    small = make(memory_mib=0.0005)
    status, headers, _ = ask(small, (b"x" * 300, b"x" * 300))
    assert (status, headers["retry-after"]) == (429, "1")
    assert small.held == 0


def test_many_at_once():
    inside, most = [0], [0]

    async def app(scope, receive, send):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        await asyncio.sleep(0.05)
        inside[0] -= 1
        await echo(scope, receive, send)

    guard, statuses = make(app, requests=3), []

    async def one():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}
        await guard(scope, receive, send)

    async def all_of_them():
        await asyncio.gather(*(one() for _ in range(10)))

    asyncio.run(all_of_them())
    assert sorted(statuses) == [200] * 3 + [429] * 7
    assert most[0] == 3
    assert ask(guard)[0] == 200  # and afterwards there is room again


@pytest.mark.parametrize("app", [echo, careless])
def test_a_client_that_goes_is_no_failure(app, caplog):
    guard = make(app)
    assert ask(guard, (b"abc",), end=False)[0] is None
    assert guard.held == 0
    assert "failed" not in caplog.text
    assert b'status="499"' in guard._counters.text()[0]


def test_refusals_of_the_application_wait_for_the_body():
    """Who is still sending would not read an answer that comes with a closed connection."""
    order = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 415, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    async def receive():
        order.append("body")
        return {"type": "http.request", "body": b"x" * 500, "more_body": len(order) < 3}

    async def send(message):
        order.append(message["type"])

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}
    asyncio.run(make(app)(scope, receive, send))
    assert order == ["body"] * 3 + ["http.response.start", "http.response.body"]


def test_what_is_cancelled_at_the_end_is_told_and_counted():
    async def app(scope, receive, send):
        await asyncio.sleep(30)

    guard, sent = make(app), []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    async def main():
        scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}
        task = asyncio.create_task(guard(scope, receive, send))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert sent[0]["status"] == 503
    assert b"stopped" in sent[1]["body"]
    assert guard.lost == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site", "origin": "http://other.example"}, 403),
        ({"sec_fetch_site": "same-origin", "origin": "https://behind.proxy"}, 200),
        ({"origin": "http://clinic.example:8080"}, 200),
        ({}, 200),
    ],
)
def test_other_pages_do_not_post(guard, headers, status):
    assert ask(guard, host="clinic.example:8080", **headers)[0] == status


def test_a_failure_is_one_sentence(caplog):
    async def app(scope, receive, send):
        raise KeyError("secret")

    status, _, body = ask(make(app))
    assert status == 500
    assert b"secret" not in body
    assert "secret" in caplog.text  # in the log, which is the operator's


def basic(user, word):
    return "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (basic("anybody", TOKEN), 200),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer ", 401),
        (basic(TOKEN, ""), 401),
        ("Basic !!!", 401),
        (TOKEN, 401),
        (f"Digest {TOKEN}", 401),
    ],
)
def test_tokens(given, status):
    guard = make(token=TOKEN)
    found, headers, body = ask(guard, authorization=given)
    assert found == status
    if status == 401:
        assert headers["www-authenticate"].startswith("Basic")
        assert TOKEN.encode() not in body


def test_health_needs_no_token():
    guard = make(token=TOKEN)
    assert ask(guard, path="/ping", method="GET")[0] == 200
    assert ask(guard, path="/model", method="GET")[0] == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("", 421),
    ],
)
def test_names_on_the_loopback(host, status):
    assert ask(make(hosts=LOCAL), host=host)[0] == status


def test_stopping_closes_connections(guard):
    guard.stopping = True
    status, headers, _ = ask(guard)
    assert (status, headers["connection"]) == (200, "close")


def test_no_private_words_in_the_log(guard, caplog):
    caplog.set_level("INFO", "attnvgg")
    ask(guard, path="/invocations", authorization="Bearer secret", content_type="image/jpeg")
    ask(guard, path="/patient-4711.jpg", method="GET")
    assert "secret" not in caplog.text
    assert "4711" not in caplog.text
    assert "/invocations 200" in caplog.text


def test_limits_are_above_zero():
    with pytest.raises(Exception, match="pixels 0"):
        Limits(pixels=0).check()
    assert isinstance(Refused(429, "Busy.", 1), ValueError)
