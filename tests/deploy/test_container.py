"""What a job reads from its environment, and how it leaves files behind."""

import json

import pytest

from attnvgg.deploy.container import copy_files, read_container, tell_failure
from attnvgg.errors import InputError


@pytest.fixture
def environment(tmp_path):
    """The variables of a job with a training channel."""
    (tmp_path / "data" / "training").mkdir(parents=True)
    return {
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SM_OUTPUT_DATA_DIR": str(tmp_path / "output"),
        "SM_OUTPUT_FAILURE": str(tmp_path / "failure"),
        "SM_CHANNEL_TRAINING": str(tmp_path / "data" / "training"),
        "SM_CHANNEL_CODE": str(tmp_path / "data" / "code"),
        "SM_NUM_GPUS": "4",
        "SM_HPS": json.dumps({"epochs": 3, "optim": {"lr": 0.1}, "config": "a.yaml"}),
    }


def test_outside_of_sagemaker_there_is_no_job():
    assert read_container({"HOME": "/root"}) is None


def test_variables_are_read(environment, tmp_path):
    job = read_container(environment)
    assert job.model == tmp_path / "model"
    assert job.gpus == 4
    assert str(job.checkpoints) == "/opt/ml/checkpoints"
    assert read_container(environment | {"SM_CHECKPOINT_DIR": "/x"}).run.as_posix() == "/x/run"


def test_data_are_the_training_channel_or_what_holds_it_and_a_test_channel(environment, tmp_path):
    training = tmp_path / "data" / "training"
    assert read_container(environment).data == training
    both = environment | {"SM_CHANNEL_TESTING": str(tmp_path / "data" / "testing")}
    assert read_container(both).data == training.parent
    del environment["SM_CHANNEL_TRAINING"]
    assert read_container(environment).data is None


def test_relative_paths_are_looked_for_in_the_data(environment, tmp_path):
    job, training = read_container(environment), tmp_path / "data" / "training"
    (training / "labels.csv").touch()
    assert job.place(type(training)("labels.csv")) == training / "labels.csv"
    assert job.place(type(training)("elsewhere.csv")).as_posix() == "elsewhere.csv"
    assert job.place(tmp_path) == tmp_path


def test_the_file_of_options_comes_first_and_the_command_line_wins(environment):
    """Hyperparameters arrive in any order, and what stands behind --config overrides it."""
    job = read_container(environment)
    words = job.words(["--epochs", "5", "--config", "a.yaml"])
    assert words == ["--config", "a.yaml", "--epochs", "5", "--optim", '{"lr": 0.1}']
    assert job.words([])[:2] == ["--config", "a.yaml"]


def test_hyperparameters_of_the_toolkit_are_not_options(environment):
    environment["SM_HPS"] = json.dumps({"sagemaker_program": "train.py", "epochs": 1})
    assert read_container(environment).words([]) == ["--epochs", "1"]


@pytest.mark.parametrize(
    ("name", "value"), [("SM_HPS", "{"), ("SM_HPS", "[]"), ("SM_NUM_GPUS", "x")]
)
def test_damaged_variables_are_told(environment, name, value):
    with pytest.raises(InputError, match=name):
        read_container(environment | {name: value})


def test_files_are_copied_into_a_folder_that_is_there(tmp_path):
    source, target = tmp_path / "best", tmp_path / "model"
    (source / "last").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", ".lock", "last/state.pt"):
        (source / name).write_text(name)
    target.mkdir()
    (target / "config.json").write_text("old")
    copy_files(source, target, skip=["last"])
    assert sorted(path.name for path in target.rglob("*")) == ["config.json", "model.safetensors"]
    assert (target / "config.json").read_text() == "config.json"


def test_a_copy_that_ends_early_has_no_config(tmp_path, monkeypatch):
    """`config.json` comes last, so that half a model does not load."""
    source = tmp_path / "best"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        (source / name).write_text(name)
    copied = []

    def full(one, other):
        copied.append(one.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attnvgg.deploy.container.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        copy_files(source, tmp_path / "model")
    assert copied == ["model.safetensors"]
    assert not list((tmp_path / "model").iterdir())


def test_a_failure_leaves_its_reason(environment, tmp_path):
    job = read_container(environment)
    tell_failure(job, "x" * 2000)
    assert (tmp_path / "failure").read_text() == "x" * 1024
    (tmp_path / "failure").unlink()
    (tmp_path / "failure").mkdir()
    tell_failure(job, "cannot be written, which hides nothing")
