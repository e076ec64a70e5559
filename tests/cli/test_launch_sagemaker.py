"""The launcher: what it tells, what it refuses, and the container on this machine."""

from pathlib import Path

import pytest

from attnvgg import load_model
from attnvgg.cli import launch_sagemaker
from attnvgg.cli.launch_sagemaker import main

ROOT = Path(__file__).parent.parent.parent
JOB = [
    "--role=arn:aws:iam::123456789012:role/SageMaker", "--output=s3://bucket/out",
    "--data.source=csv",
]  # fmt: skip
OPTIONS = [
    "--epochs=2", "--batch_size=8", "--threads=1", "--device=cpu", "--model.width=16",
    "--data.source=csv", "--data.root=labels.csv", "--data.bags=bags", "--data.workers=0",
    "--data.fractions=[0.5,0.25,0.25]",
]  # fmt: skip


@pytest.fixture
def submitted(monkeypatch):
    """The jobs that would have been started."""
    jobs = []
    monkeypatch.setattr(launch_sagemaker, "submit", lambda job: jobs.append(job) or "panda-1")
    return jobs


def test_nothing_is_started_unless_it_is_said(submitted, features, capfd):
    config = ROOT / "configs" / "panda.yaml"
    words = ["train", *JOB[:2], f"--data={features.parent}", f"--config={config}", "--epochs", "3"]
    assert main(words) == 0
    said = capfd.readouterr().out
    assert "scripts/train_bags.py --config config.yaml --epochs 3" in said
    assert "This was a dry run" in said
    assert not submitted
    assert main([*words, "--run=true"]) == 0
    (job,) = submitted
    assert job.hyperparameters == {"epochs": 3}
    assert job.config == config
    assert "Started: panda-1" in capfd.readouterr().out


def test_options_go_to_the_launcher_or_to_the_script(submitted, capfd):
    words = [*JOB, "--data=s3://bucket/a", "--testing=s3://bucket/b", "--script=train"]
    words += [
        "--instance_type",
        "ml.g5.12xlarge",
        "--optim.lr",
        "1e-3",
        "--spot=true",
        "--run=true",
    ]
    assert main(["train", *words]) == 0
    (job,) = submitted
    assert (job.script, job.spot, job.instance_type) == ("train", True, "ml.g5.12xlarge")
    assert job.channels == {"training": "s3://bucket/a", "testing": "s3://bucket/b"}
    assert job.hyperparameters == {"data": {"source": "csv"}, "optim": {"lr": 1e-3}}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train", *JOB], "--data"),
        (["train", "--data=s3://bucket/a"], "--role"),
        (["train", *JOB, "--data=nowhere"], "nowhere"),
        (["train", *JOB, "--data=s3://bucket/a", "--nothing=3"], "nothing"),
        (["train", *JOB, "--data=s3://bucket/a", "--epochs=many"], "epochs"),
        (["train", *JOB, "--data=s3://bucket/a", "--out=runs"], "--out=runs"),
        (["train", *JOB[:2], "--data=s3://bucket/a"], "--data.source"),
        (["train", *JOB[:2], "--data=s3://bucket/a", "--script=train"], "--data.source"),
        (["train", *JOB, "--data=s3://bucket/a", "--data.root=/data/a.csv"], "/data/a.csv"),
        (["simulate", "--data=nope", JOB[2]], "training: nope"),
        (["simulate", "--data=.", JOB[2], "--processes=0"], "--processes 0"),
        (["nothing"], "nothing"),
        ([], "action"),
    ],
)
def test_wrong_words_are_told_before_anything_is_done(submitted, words, reason, capfd):
    assert main([*words, "--run=true"]) == 2
    assert reason in capfd.readouterr().err
    assert not submitted


def test_an_empty_folder_is_not_uploaded(submitted, tmp_path, capfd):
    assert main(["train", *JOB, f"--data={tmp_path}"]) == 2
    assert f"{tmp_path} (training): the folder holds no files" in capfd.readouterr().err


def test_the_container_on_this_machine_leaves_a_model_that_loads(features, tmp_path, capfd):
    """By two processes, through the shell, the variables and the command of the real one."""
    words = ["simulate", f"--data={features.parent}", f"--root={tmp_path}", "--processes=2"]
    assert main([*words, *OPTIONS]) == 0
    assert "loads: BagClassifier" in capfd.readouterr().out
    assert load_model(tmp_path / "model").config["metrics"]["judged_on"] == "test"
    run = tmp_path / "output" / "data" / "run"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "checkpoints" / "run" / "last" / "state.pt").is_file()
