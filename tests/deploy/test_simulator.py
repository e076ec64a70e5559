"""The container on this machine: what a script finds in it, and what comes of its end."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from attnvgg import load_model
from attnvgg.deploy import simulator
from attnvgg.deploy.simulator import simulate
from attnvgg.deploy.training_job import Job
from attnvgg.errors import InputError

# What scripts/environment.py of sagemaker-train 1.27 exports, of what a script can use.
EXPORTED = [
    "SM_MODEL_DIR", "SM_INPUT_DIR", "SM_INPUT_DATA_DIR", "SM_INPUT_CONFIG_DIR", "SM_OUTPUT_DIR",
    "SM_OUTPUT_FAILURE", "SM_OUTPUT_DATA_DIR", "SM_CHANNEL_TRAINING", "SM_CHANNEL_CODE",
    "SM_CHANNELS", "SM_HP_EPOCHS", "SM_HP_OPTIM", "SM_HPS", "SM_CURRENT_HOST", "SM_HOSTS",
    "SM_HOST_COUNT", "SM_NUM_CPUS", "SM_NUM_GPUS",
]  # fmt: skip

TELL = """
import json, os, sys
found = {"words": sys.argv[1:], "folder": os.getcwd(), "variables": dict(os.environ)}
found["data"] = os.listdir(os.environ["SM_CHANNEL_TRAINING"])
open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "found.json"), "w").write(json.dumps(found))
open(os.path.join(os.environ["SM_CHECKPOINT_DIR"], "kept"), "a").write("x")
"""
FAIL = (
    TELL
    + """
open(os.environ["SM_OUTPUT_FAILURE"], "w").write("The disk is full.")
sys.exit(3)
"""
)
WAIT = TELL + """
import time
time.sleep(60)
"""  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a script as a job in tmp_path/ml, by Python alone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").touch()
    monkeypatch.setattr(simulator, "_driver", lambda processes: [sys.executable])
    monkeypatch.setattr(simulator, "load_model", lambda folder: folder)

    def start(script):
        def stage(job, folder):
            (folder / "scripts").mkdir()
            (folder / "scripts" / "train_bags.py").write_text(script)

        monkeypatch.setattr(simulator, "stage_source", stage)
        return simulate(
            Job(
                name="a",
                script="train_bags",
                role="",
                channels={"training": str(tmp_path / "data")},
                output="",
                instance_type="",
                hyperparameters={"epochs": 3, "optim": {"lr": 0.1, "name": "sgd"}},
            ),
            tmp_path / "ml",
        )

    return start


def test_a_script_finds_what_the_contract_says(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SM_CHANNEL_OLD", "from another job")
    assert run(TELL) == tmp_path / "ml" / "model"
    found = json.loads((tmp_path / "ml" / "output" / "data" / "found.json").read_text())
    variables = found["variables"]
    assert {name for name in variables if name.startswith("SM_")} == {
        *EXPORTED,
        "SM_CHECKPOINT_DIR",
    }
    assert found["words"] == ["--epochs", "3", "--optim", '{"lr": 0.1, "name": "sgd"}']
    assert json.loads(variables["SM_HPS"]) == {"epochs": 3, "optim": {"lr": 0.1, "name": "sgd"}}
    assert found["folder"] == variables["SM_CHANNEL_CODE"] == variables["PYTHONPATH"]
    assert found["data"] == ["labels.csv"]
    config = tmp_path / "ml" / "input" / "config" / "hyperparameters.json"
    assert json.loads(config.read_text())["epochs"] == "3", "the service keeps texts"


def test_a_second_start_finds_the_checkpoints_and_nothing_else(run, tmp_path):
    run(TELL)
    for name in ("model", "output", "input"):
        (tmp_path / "ml" / name / "old").touch()
    run(TELL)
    assert (tmp_path / "ml" / "checkpoints" / "kept").read_text() == "xx"
    assert not list((tmp_path / "ml").glob("*/old"))
    assert (tmp_path / "data" / "labels.csv").is_file(), "a channel is a link, and stays"


def test_a_folder_of_somebody_else_is_left_alone(run, tmp_path):
    (tmp_path / "ml" / "output").mkdir(parents=True)
    (tmp_path / "ml" / "output" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other things, which would be lost"):
        run(TELL)
    assert (tmp_path / "ml" / "output" / "thesis.txt").read_text() == "mine"


def test_a_failure_is_told_with_its_reason(run):
    with pytest.raises(InputError, match=r"exit code 3: The disk is full\."):
        run(FAIL)


def test_a_job_that_leaves_no_model_has_failed(run, monkeypatch):
    monkeypatch.setattr(simulator, "load_model", load_model)
    with pytest.raises(InputError, match="model"):
        run(TELL)


def test_to_be_told_to_stop_stops_the_job(run, tmp_path):
    """The script would sleep for a minute."""

    def tell():
        found = tmp_path / "ml" / "checkpoints" / "kept"
        while not found.is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    begun = time.monotonic()
    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(InputError, match="exit code -15"):
        run(WAIT)
    assert time.monotonic() - begun < 30
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    job = Job("a", "train_bags", "", {"training": "s3://bucket/a"}, "", "")
    with pytest.raises(InputError, match="needs folders") as caught:
        simulate(job, tmp_path)
    assert caught.value.offenders == ["training: s3://bucket/a"]
