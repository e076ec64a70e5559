"""`attnvgg serve` as a process: it listens, answers, and ends as it should."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from attnvgg.cli.serve import ServeConfig, assemble, main, read_token
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.predictor import Predictor
from attnvgg.errors import InputError
from attnvgg.models import AttnVGG

SCRIPT = Path(__file__).parents[2] / "scripts" / "serve.py"
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    AttnVGG(1, normalize_attn=True, backbone="vgg11_bn").eval().save_pretrained(
        folder, preprocess=Preprocess(32, 32).to_dict(), classes=["benign", "malignant"]
    )
    return folder


@pytest.fixture
def files(pictures):
    return sorted(pictures.parent.rglob("*.jpg"))[:6] or sorted(pictures.parent.rglob("*.png"))[:6]


def test_answers_under_load_until_the_end(model, files, tmp_path):
    trail = tmp_path / "trail.jsonl"
    command = [sys.executable, "-u", str(SCRIPT), str(model), "--port=0", "--engine=eager"]
    process = subprocess.Popen(
        [*command, "--page=false", f"--trail={trail}"], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"ATTNVGG_TOKEN": "0123456789abcdef"},
    )  # fmt: skip
    try:
        line = next(line for line in process.stdout if line.startswith("Serving"))
        port = int(line.split("http://127.0.0.1:")[1].split()[0])
        wanted = [float(p.logits[0]) for p in Predictor(model, "eager")(files)]
        answered, lost, begun = [], [], threading.Event()
        clients = [
            threading.Thread(target=ask, args=(port, files, wanted, answered, lost, begun))
            for _ in range(4)
        ]
        for client in clients:
            client.start()
        assert begun.wait(60)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(60) == 0
        for client in clients:
            client.join(60)
    finally:
        process.kill()
    assert not lost
    assert "Stopped; everything" in rest
    assert "0123456789abcdef" not in line + rest
    records = [json.loads(row) for row in trail.read_text().splitlines()]
    assert len(records) == len(answered) >= 20
    assert {record["request_id"] for record in records} == set(answered)


def ask(port, files, wanted, answered, lost, begun):
    """Ask until nobody listens; a request that was sent on an open connection must be answered."""
    token = {"Authorization": "Bearer 0123456789abcdef"}
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.connect()
        except OSError:
            return
        try:
            while True:
                place = len(answered) % len(files)
                data = files[place].read_bytes()
                connection.request("POST", "/invocations", data, JPEG | token)
                response = connection.getresponse()
                content = json.loads(response.read())
                logit = content["predictions"][0]["logits"][0]
                assert abs(logit - wanted[place]) < 1e-4
                answered.append(response.getheader("x-request-id"))
                if len(answered) >= 20:
                    begun.set()
                if response.will_close:
                    break
        except Exception as error:
            lost.append(repr(error))
            return
        finally:
            connection.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "no folder with a saved model"),
        (["MODEL", "--engine=fast"], "fast"),
        (["MODEL", "--limits.pixels=0"], "pixels 0"),
        (["MODEL", "--host=256.1.1.1"], "256.1.1.1"),
        (["MODEL", "--port=70000"], "70000"),
        (["MODEL", "--trail=/proc/none/trail.jsonl"], "trail"),
    ],
)
def test_wrong_options(model, options, words, capsys, tmp_path):
    assert main([str(model) if word == "MODEL" else word for word in options]) == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken(model, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(model), f"--port={port}"]) == 2
    assert "--port" in capsys.readouterr().err


def test_tokens_are_long_and_from_the_environment(monkeypatch):
    monkeypatch.delenv("ATTNVGG_TOKEN", raising=False)
    assert read_token() is None
    monkeypatch.setenv("ATTNVGG_TOKEN", " 0123456789abcdef\n")
    assert read_token() == "0123456789abcdef"
    monkeypatch.setenv("ATTNVGG_TOKEN", "short")
    with pytest.raises(InputError, match="fewer than 16"):
        read_token()


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 421), ("0.0.0.0", 200)])
def test_other_names_on_the_loopback_only(model, host, status):
    from starlette.testclient import TestClient

    config = ServeConfig(str(model), host=host, engine="eager", page=False)
    guard, service = assemble(config)
    response = TestClient(guard).get("/model", headers={"host": "evil.example"})
    assert response.status_code == status
    service.close()
