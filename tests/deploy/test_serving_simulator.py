"""From a model to the container's server: its answers are the model's, and breaches are seen."""

import json
import os
import signal
import subprocess
import time

import pytest
import torch

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy import serving_checks, serving_simulator
from attnvgg.deploy.endpoint import Endpoint
from attnvgg.deploy.serving_checks import check_contract
from attnvgg.deploy.serving_simulator import (
    container_environment,
    prepare_root,
    simulate_serving,
)
from attnvgg.errors import InputError
from attnvgg.models import AttnVGG, BagClassifier
from attnvgg.training.checkpoint import load_model
from tests.live_server import served

SAME = 1e-6
GATED = {"name": "gated_attention", "width": 8}
TILES = Preprocess(32, 32).to_dict()


def save(folder, model, preprocess, **extra):
    model.eval().save_pretrained(folder, preprocess=preprocess, **extra)
    return folder


@pytest.fixture(scope="module")
def image_model(trained, tmp_path_factory):
    """A trained model, with weights that tell images apart."""
    model = load_model(trained)
    torch.manual_seed(0)
    with torch.no_grad():
        model.classifier.weight.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("image")
    kept = {key: model.config[key] for key in ("preprocess", "classes", "threshold")}
    model.save_pretrained(folder, **kept)
    return folder


@pytest.fixture(scope="module")
def bag_models(tmp_path_factory):
    """A model of bags of tiles, of digits and of features each."""
    torch.manual_seed(0)
    made = {
        "tiles": (BagClassifier({"name": "panda", "size": 32}, GATED), TILES),
        "digits": (
            BagClassifier("lenet", GATED), {"kind": "digits", "mean": 0.1307, "std": 0.3081}
        ),
        "features": (
            BagClassifier({"name": "identity", "in_features": 6}, GATED),
            {"kind": "features", "features": 6},
        ),
    }  # fmt: skip
    return {
        kind: save(tmp_path_factory.mktemp(kind), model, preprocess, threshold=0.4)
        for kind, (model, preprocess) in made.items()
    }


@pytest.fixture
def small_model(bag_models):
    return bag_models["features"]


@pytest.mark.parametrize("kind", ["image", "tiles", "digits", "features"])
def test_each_kind_of_model_keeps_the_contract(image_model, bag_models, kind):
    folder = image_model if kind == "image" else bag_models[kind]
    with served(folder) as url:
        report = check_contract(Endpoint(url), folder, engine="eager")
    assert report.answers == (6 if kind == "image" else 4)
    assert report.difference <= SAME
    assert 0 < report.ping < serving_checks.PING_SECONDS


@pytest.mark.parametrize("kind", ["image", "features"])
def test_a_server_of_another_model_is_found_out(image_model, bag_models, kind, tmp_path):
    folder = image_model if kind == "image" else bag_models[kind]
    torch.manual_seed(1)
    if kind == "image":
        other = AttnVGG(1, normalize_attn=True, backbone="vgg11_bn")
    else:
        other = BagClassifier({"name": "identity", "in_features": 6}, GATED)
    preprocess = json.loads((folder / "config.json").read_text())["preprocess"]
    save(tmp_path / "other", other, preprocess, threshold=0.4)
    with served(folder) as url, pytest.raises(InputError, match=r"The server('s numbers| calls)"):
        check_contract(Endpoint(url), tmp_path / "other", engine="eager")


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (200, {"error": "no"}, "answered with 200"),
        (500, {"error": "no"}, "answered with 500"),
        (415, {}, "not answered with a sentence"),
        (415, {"error": "Traceback (most recent call last)"}, "with a trace"),
    ],
)
def test_wrong_refusals_are_found_out(monkeypatch, status, content, reason):
    class Told:
        status_code = status

        def json(self):
            return content

    monkeypatch.setattr(serving_checks, "_post", lambda *arguments: Told())
    with pytest.raises(InputError, match=reason):
        serving_checks._check_refusals(Endpoint("http://127.0.0.1:1"))


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Return a function that puts a script in place of the entry point."""

    def put(script):
        path = tmp_path / "bin" / "serve"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(serving_simulator, "ENTRY", str(path))

    return put


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first; echo 'error: no model there.'; exit 2", "start: error: no model there"),
        ("exit 1", "did not start, and says nothing"),
        ("exec sleep 30", "did not answer /ping within 0.3 s"),
    ],
)
def test_a_server_that_does_not_start_is_told_and_ended(
    small_model, entry, tmp_path, monkeypatch, script, reason
):
    started, popen = [], subprocess.Popen

    def noted(*arguments, **more):
        started.append(popen(*arguments, **more))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    entry(script)
    with pytest.raises(InputError, match=reason):
        simulate_serving(small_model, tmp_path / "ml", seconds=0.3)
    assert started[0].poll() is not None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("trap 'exit 3' TERM; while :; do sleep 0.02; done", r"SIGTERM the server ended with 3"),
        ("trap '' TERM; while :; do sleep 0.02; done", r"still ran 0\.2 s after SIGTERM"),
        ("exec sleep 30", rf"ended with -{signal.SIGTERM.value}, not 0"),
    ],
)
def test_a_server_that_does_not_end_as_it_is_told(
    small_model, entry, tmp_path, monkeypatch, script, reason
):
    monkeypatch.setattr(serving_simulator, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(serving_simulator, "_wait", lambda *arguments: time.sleep(0.2))
    monkeypatch.setattr(serving_simulator, "_refuses_large", lambda endpoint: None)
    report = serving_checks.Report(1, 0.0, 0.0)
    monkeypatch.setattr(serving_simulator, "check_contract", lambda *args, **more: report)
    entry(script)
    with pytest.raises(InputError, match=reason):
        simulate_serving(small_model, tmp_path / "ml")


def test_the_server_finds_no_variables_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("ATTNVGG_TOKEN", "a-token-of-many-letters")
    found = container_environment(tmp_path, 1234)
    assert not {"AWS_SECRET_ACCESS_KEY", "ATTNVGG_TOKEN"} & set(found)
    assert found["HOME"] == str(tmp_path / "temporary")
    assert found["SAGEMAKER_BIND_TO_PORT"] == "1234"


def test_a_folder_of_something_else_is_not_touched(small_model, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other things"):
        prepare_root(small_model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_earlier_simulation_is_replaced(small_model, tmp_path):
    folder = prepare_root(small_model, tmp_path / "ml")
    (folder / "old.txt").touch()
    assert prepare_root(small_model, tmp_path / "ml") == folder
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
