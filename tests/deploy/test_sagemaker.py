"""A job in the words of SDK 3, whose names were read from its wheels (sagemaker-train 1.27)."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from attnvgg.deploy.sagemaker import submit
from attnvgg.deploy.training_job import Job, check, describe, stage_source
from attnvgg.errors import InputError

ROOT = Path(__file__).parent.parent.parent
ROLE = "arn:aws:iam::123456789012:role/SageMaker"

# What the SDK's own classes take; like them, the stand-ins refuse all else.
FIELDS = {
    "SourceCode": "source_dir requirements entry_script command args ignore_patterns",
    "Compute": "instance_type instance_count volume_size_in_gb volume_kms_key_id "
    "keep_alive_period_in_seconds instance_groups training_plan_arn instance_placement_config "
    "instance_preferences enable_managed_spot_training",
    "InputData": "channel_name data_source content_type",
    "OutputDataConfig": "s3_output_path kms_key_id compression_type",
    "CheckpointConfig": "s3_uri local_path",
    "StoppingCondition": "max_runtime_in_seconds max_wait_time_in_seconds "
    "max_pending_time_in_seconds",
    "Torchrun": "process_count_per_node smp",
    "ModelTrainer": "training_mode sagemaker_session role base_job_name input_s3_key_prefix "
    "source_code distributed compute networking stopping_condition training_image "
    "training_image_config algorithm_name output_data_config input_data_config checkpoint_config "
    "training_input_mode environment hyperparameters tags local_container_root "
    "model_package_config",
    "Session": "boto_session sagemaker_client sagemaker_runtime_client "
    "sagemaker_featurestore_runtime_client default_bucket sagemaker_config settings "
    "sagemaker_metrics_client default_bucket_prefix",
}


def stand_in(name):
    """Return a class that keeps its arguments, and takes none but those of the SDK's."""

    def __init__(self, **arguments):
        unknown = arguments.keys() - set(FIELDS[name].split())
        assert not unknown, f"{name} takes no {unknown}"
        self.__dict__.update(arguments)

    return type(name, (), {"__init__": __init__})


@pytest.fixture
def sdk(monkeypatch):
    """Stand-ins for the modules of the SDK; what is trained goes into the list `started`."""
    made = {name: stand_in(name) for name in FIELDS}
    started = []

    def train(self, input_data_config=None, wait=True, logs=True, dry_run=False):
        source = Path(self.source_code.source_dir)
        assert (source / self.source_code.entry_script).is_file()
        assert (source / self.source_code.requirements).is_file()
        self.files = sorted(path.relative_to(source).as_posix() for path in source.rglob("*"))
        self.channels, self.waited = input_data_config, wait
        self._latest_training_job = SimpleNamespace(training_job_name=f"{self.base_job_name}-1")
        started.append(self)

    def retrieve(framework, region, version=None, py_version=None, instance_type=None,
                 image_scope=None):  # fmt: skip
        return f"{framework}:{version}-{py_version}-{instance_type}-{image_scope}.{region}"

    made["ModelTrainer"].train = train
    boto_session = lambda region_name=None: SimpleNamespace(region_name=region_name)  # noqa: E731
    contents = {
        "boto3": {"Session": boto_session},
        "sagemaker": {},
        "sagemaker.core": {"image_uris": SimpleNamespace(retrieve=retrieve)},
        "sagemaker.core.helper": {},
        "sagemaker.core.helper.session_helper": {"Session": made["Session"]},
        "sagemaker.core.training": {"configs": SimpleNamespace(**made)},
        "sagemaker.train": {"ModelTrainer": made["ModelTrainer"]},
        "sagemaker.train.distributed": {"Torchrun": made["Torchrun"]},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(started=started, made=made)


@pytest.fixture
def job(tmp_path):
    """A job with a channel of local files and one that lies on S3."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "train.csv").write_text("x" * 2**20)
    return Job(
        name="panda",
        script="train_bags",
        role=ROLE,
        channels={"training": str(tmp_path / "slides"), "testing": "s3://bucket/test"},
        output="s3://bucket/out/",
        instance_type="ml.g5.12xlarge",
        instance_count=2,
        hyperparameters={"epochs": 3, "optim": {"lr": 0.1}},
        config=ROOT / "configs" / "bags_ilse.yaml",
        region="eu-central-1",
        hours=2,
    )


def test_the_job_is_said_in_the_words_of_the_sdk(job, sdk):
    assert submit(job) == "panda-1"
    (trainer,) = sdk.started
    assert isinstance(trainer.distributed, sdk.made["Torchrun"])
    assert trainer.source_code.entry_script == "scripts/train_bags.py"
    assert trainer.hyperparameters == {"config": "config.yaml", "epochs": 3, "optim": {"lr": 0.1}}
    assert vars(trainer.compute) == {
        "instance_type": "ml.g5.12xlarge",
        "instance_count": 2,
        "volume_size_in_gb": 100,
        "enable_managed_spot_training": False,
    }
    assert trainer.role == ROLE
    assert trainer.output_data_config.s3_output_path == "s3://bucket/out/"
    assert trainer.training_image.startswith("pytorch:2.10.0-py313-ml.g5.12xlarge-training")
    assert vars(trainer.stopping_condition) == {"max_runtime_in_seconds": 7200}
    assert not trainer.waited


def test_all_that_is_uploaded_goes_below_the_output(job, sdk):
    submit(job)
    (trainer,) = sdk.started
    assert trainer.sagemaker_session.default_bucket == "bucket"
    assert trainer.sagemaker_session.default_bucket_prefix == "out"
    named = {one.channel_name: one.data_source for one in trainer.channels}
    assert named == dict(job.channels)
    assert trainer.checkpoint_config.s3_uri is None, "the SDK's default: below it, one a job"


def test_a_spot_job_waits_longer_than_it_runs_and_keeps_its_state(job, sdk):
    submit(replace(job, spot=True, checkpoints="s3://bucket/earlier"))
    (trainer,) = sdk.started
    assert trainer.compute.enable_managed_spot_training
    times = trainer.stopping_condition
    assert times.max_wait_time_in_seconds > times.max_runtime_in_seconds == 7200
    assert trainer.checkpoint_config.s3_uri == "s3://bucket/earlier"
    assert trainer.checkpoint_config.local_path == trainer.environment["SM_CHECKPOINT_DIR"]


def test_the_source_travels_without_data_and_runs(job, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    stage_source(job, folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"scripts/train.py", "scripts/train_bags.py", "setup.cfg", "config.yaml"} <= files
    package = ROOT / "attnvgg"
    wanted = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    assert {name for name in files if name.startswith("attnvgg/")} >= wanted
    assert not [
        name for name in files if name.startswith(("tests/", "runs/", ".")) or "pyc" in name
    ]
    assert (folder / "requirements.txt").read_text() == ".[bags,slides]\n"
    assert (folder / "config.yaml").read_text() == job.config.read_text()


def test_telling_needs_no_sdk_and_says_what_is_uploaded(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "sagemaker", None)
    said = "\n".join(describe(job))
    assert "1 files, 1.0 MiB" in said
    assert "channel    testing: s3://bucket/test" in said
    assert (
        'torchrun scripts/train_bags.py --config config.yaml --epochs 3 --optim {"lr": 0.1}' in said
    )


def test_a_missing_sdk_is_told(job, monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("sagemaker", "boto3"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sagemaker", None)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InputError, match=r"attnvgg\[aws\]"):
        submit(job)


def test_a_missing_region_is_told(job, sdk):
    with pytest.raises(InputError, match="--region"):
        submit(replace(job, region=None))


def test_what_aws_refuses_is_told_in_a_sentence(job, sdk, monkeypatch):
    error = type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})

    def refuse(self, **arguments):
        raise error("Unable to locate credentials\nmore")

    monkeypatch.setattr(sdk.made["ModelTrainer"], "train", refuse)
    with pytest.raises(InputError, match=r"could not be started: Unable to locate credentials$"):
        submit(job)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "a name"}, "the name"),
        ({"role": "SageMaker"}, "the role"),
        ({"output": "/tmp/out"}, "the output"),
        ({"checkpoints": "bucket"}, "the checkpoints"),
        ({"instance_type": "g5"}, "the instance type"),
        ({"instance_count": 0}, "at least 1"),
        ({"hours": 0}, "above 0"),
        ({"channels": {"training": "nowhere"}}, "nowhere"),
        ({"config": Path("nowhere.yaml")}, "nowhere.yaml"),
        ({"hyperparameters": {"optim.lr": 1}}, "optim.lr"),
        ({"script": "nothing"}, "scripts/nothing.py"),
    ],
)
def test_parts_that_cannot_be_are_refused_before_anything_is_sent(job, sdk, changes, reason):
    check(job)
    with pytest.raises(InputError, match=reason):
        submit(replace(job, **changes))
    assert not sdk.started
