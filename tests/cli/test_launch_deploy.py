"""The launcher of endpoints: what it tells, what it refuses, and what it hands on."""

import os
import re
from pathlib import Path

import pytest

from attnvgg.cli import launch_deploy
from attnvgg.cli.launch_sagemaker import main
from attnvgg.deploy.serving_checks import Report
from attnvgg.deploy.serving_simulator import LOG, MARK
from tests.cli.test_panda import panda_options, panda_root, panda_run  # noqa: F401

WORDS = [
    "--role=arn:aws:iam::123456789012:role/SageMaker", "--output=s3://bucket/out",
    "--image=123456789012.dkr.ecr.eu-central-1.amazonaws.com/attnvgg:1",
]  # fmt: skip


@pytest.fixture
def deployed(monkeypatch):
    """The endpoints that would have been made."""
    made = []
    monkeypatch.setattr(launch_deploy, "deploy", lambda one: made.append(one) or "attnvgg-1")
    return made


@pytest.fixture
def simulated(monkeypatch):
    """The models and folders that would have been simulated with."""
    made = []

    def simulate(model, root):
        made.append((model, root))
        return Report(6, 1.5e-7, 0.004, 3.2)

    monkeypatch.setattr(launch_deploy, "simulate_serving", simulate)
    return made


def test_nothing_is_made_unless_it_is_said(deployed, trained, capfd):
    words = ["deploy", *WORDS, f"--model={trained}", "--region=eu-central-1"]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert f"upload     {trained}/best" in said
    assert "This was a dry run" in said
    assert not deployed
    assert main([*words, "--run=true", "--instance_count=2"]) == 0
    (deployment,) = deployed
    assert (deployment.model, deployment.instance_count) == (str(trained), 2)
    assert (deployment.instance_type, deployment.region) == ("ml.c6i.xlarge", "eu-central-1")
    assert "Started: endpoint attnvgg-1" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["deploy", *WORDS], "--model"),
        (["deploy", "--model=s3://bucket/model.tar.gz"], "--role"),
        (["deploy", "--model=s3://bucket/model.tar.gz", *WORDS[:2]], "--image"),
        (["deploy", "--model=nowhere", *WORDS], "nowhere"),
        (["deploy", "--model=s3://bucket/model.tar.gz", *WORDS, "--epochs=3"], "epochs"),
        (["simulate_deploy"], "--model"),
    ],
)
def test_wrong_words_are_told_before_anything_is_done(deployed, words, reason, capfd):
    assert main([*words, "--run=true"]) == 2
    assert reason in capfd.readouterr().err
    assert not deployed


def test_simulating_says_what_was_seen(simulated, capfd, tmp_path):
    assert main(["simulate_deploy", "--model=run"]) == 0
    said = capfd.readouterr().out
    assert "6 predictions differ by at most 1.5e-07" in said
    assert "Ready after 3.2 s, /ping within 4 ms" in said
    assert main(["simulate_deploy", "--model=run", f"--root={tmp_path}"]) == 0
    (_, temporary), (_, kept) = simulated
    assert not temporary.exists()
    assert kept == Path(tmp_path)


def test_a_trained_model_of_slides_is_served_as_the_container_would(panda_run, tmp_path, capfd):  # noqa: F811
    """Train, pack, unpack, start the entry point, ask, compare, stop."""
    words = ["simulate_deploy", f"--model={panda_run}", f"--root={tmp_path / 'ml'}"]
    assert main(words) == 0
    found = re.search(r"4 predictions differ by at most (\S+)\. Ready", capfd.readouterr().out)
    assert float(found[1]) <= 1e-6
    root = tmp_path / "ml"
    log = (root / LOG).read_text()
    assert "OpenVINO" in log
    assert "Stopped; everything that was accepted is answered." in log
    written = {path.name for path in root.iterdir()}
    assert written == {"model", "model.tar.gz", "temporary", LOG, MARK}
    assert sorted(os.listdir(root / "model")) == ["config.json", "model.safetensors"]
    assert not (root / "temporary" / "intel").exists()  # no statistics of use


def test_help_of_both_kinds(capfd):
    for words, option in ((["deploy"], "--image"), (["train"], "--spot"), ([], "simulate_deploy")):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0
        assert option in capfd.readouterr().out
