"""`attnvgg launch_sagemaker`: a job or an endpoint on SageMaker, or the same on this machine."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from attnvgg.cli.common import parse_config, run_command
from attnvgg.cli.launch_deploy import Action, DeployConfig, launch_deploy
from attnvgg.deploy.sagemaker import submit
from attnvgg.deploy.simulator import simulate
from attnvgg.deploy.training_job import Job, check, check_source, describe
from attnvgg.deploy.words import grouped, option, to_hyperparameters
from attnvgg.errors import InputError
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.config import TrainConfig

logger = logging.getLogger(__name__)

CONTAINER = "/opt/ml"  # all that a container finds lies below
NO_FOLDER = ("auto", "digits")  # sources of data that come without one
SCRIPTS: dict[str, type[Any]] = {"train_bags": TrainBagsConfig, "train": TrainConfig}


@dataclass(frozen=True)
class LaunchConfig:
    """Train on Amazon SageMaker: `train` tells what it would do, and with --run true does it;
    `simulate` trains on this machine as the container would. All other options, --config
    among them, are those of the training script. `deploy` and `simulate_deploy` serve a model and
    have options of their own: see `launch_sagemaker deploy --help`."""

    action: Literal["train", "simulate"] = field(
        metadata={"positional": {"type": Literal["train", "simulate"], "help": "train or simulate"}}
    )
    data: str | None = None
    """Channel `training`: a folder here, which is uploaded, or s3://bucket/prefix."""
    testing: str | None = None
    """Channel `testing`, where the test cases lie apart."""
    script: Literal["train_bags", "train"] = "train_bags"
    """Which of scripts/ trains."""
    name: str = "attnvgg"
    """Begins the name of the job."""
    role: str | None = None
    """ARN of the role that the job has."""
    output: str | None = None
    """s3://bucket/prefix of all that is uploaded and written."""
    instance_type: str = "ml.g5.xlarge"
    """Machine."""
    instance_count: int = 1
    """How many of them."""
    image: str | None = None
    """URI of the container's image; null: Amazon's of PyTorch."""
    region: str | None = None
    """AWS region; null: that of your AWS settings."""
    spot: bool = False
    """Take machines that are cheaper and may be taken away; the job then goes on by itself."""
    hours: float = 24.0
    """Longest time of training."""
    volume_gib: int = 100
    """Disk of each machine in GiB."""
    extras: tuple[str, ...] = ("bags", "slides")
    """Extras of the package that the container installs."""
    checkpoints: str | None = None
    """s3://bucket/prefix of the checkpoints of an earlier job, to go on from."""
    run: bool = False
    """true: really upload and start; else only tell what would be done."""
    root: Path | None = None
    """simulate: folder in place of /opt/ml, which stays; null: a temporary one."""
    processes: int = 1
    """simulate: processes that train together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(launch, LaunchConfig, argv, "launch_sagemaker", parse_launch)


def launch(request: tuple[LaunchConfig | DeployConfig, list[str]]) -> None:
    """Tell what a job or an endpoint would be, start it, or run it here.

    Args:
        request: options of this command, and words for the training script.
    """
    config, words = request
    if isinstance(config, DeployConfig):
        launch_deploy(config)
        return
    job = make_job(config, words)
    if config.action == "simulate":
        check_source(job)
        _simulate(job, config)
        return
    check(job)
    for line in describe(job):
        logger.info("%s", line)
    if not config.run:
        logger.info("This was a dry run: nothing is uploaded or started without --run true.")
        return
    logger.info("Started: %s", submit(job))


def make_job(config: LaunchConfig, words: Sequence[str]) -> Job:
    """Return the job, once the words for its script are parsed as the script will.

    Raises:
        InputError: something is missing, or the script would refuse its options.
    """
    needed = ("data",) if config.action == "simulate" else ("data", "role", "output")
    missing = [f"--{key}" for key in needed if getattr(config, key) is None]
    if missing:
        raise InputError(f"To {config.action} on SageMaker these are needed:", missing)
    _check_data(parse_config(SCRIPTS[config.script], words, config.script).data)
    groups = grouped(words)
    ours = [group[0] for group in groups if option(group) in ("out", "resume")]
    if ours:
        raise InputError("The container decides where the run lies, leave these out:", ours)
    path = [group for group in groups if option(group) == "config"]
    rest = [word for group in groups if group not in path for word in group]
    channels = {"training": config.data, "testing": config.testing}
    return Job(
        name=config.name,
        script=config.script,
        role=config.role or "",
        channels={key: value for key, value in channels.items() if value is not None},
        output=config.output or "",
        instance_type=config.instance_type,
        instance_count=config.instance_count,
        hyperparameters=to_hyperparameters(rest),
        config=Path(path[-1][-1].removeprefix("--config=")) if path else None,
        image=config.image,
        region=config.region,
        spot=config.spot,
        hours=config.hours,
        volume_gib=config.volume_gib,
        extras=config.extras,
        checkpoints=config.checkpoints,
    )


def _check_data(data: Any) -> None:
    """Refuse data that the script would not find in the container.

    Args:
        data: the script's options of that name.
    """
    if data.source in NO_FOLDER:
        raise InputError(
            "Say by --data.source, or a file of --config, what the data of --data are."
        )
    strange = [
        f"--data.{key} {path}"
        for key in ("root", "bags")
        if (path := getattr(data, key, None)) is not None
        and path.is_absolute()
        and not path.is_relative_to(CONTAINER)
    ]
    if strange:
        raise InputError("The container has no such place; name it as it lies in --data:", strange)


def _simulate(job: Job, config: LaunchConfig) -> None:
    if config.processes < 1:
        raise InputError(f"--processes {config.processes}: must be at least 1.")
    if config.root is not None:
        simulate(job, config.root, config.processes)
        return
    with tempfile.TemporaryDirectory() as folder:
        simulate(job, Path(folder), config.processes)
        logger.info("The folder was temporary: keep it with --root FOLDER.")


def parse_launch(
    config_class: type[LaunchConfig], words: Sequence[str], command: str
) -> tuple[LaunchConfig | DeployConfig, list[str]]:
    """Take the options of this command, and leave the others to the training script."""
    if words[:1] and words[0] in get_args(Action):
        return parse_config(DeployConfig, words, command), []
    own = {item.name for item in fields(config_class)} | {"help"}
    first = [word for word in words[:1] if not word.startswith("-")]
    mine, theirs = list(first), list[str]()
    for group in grouped(["--help" if word == "-h" else word for word in words[len(first) :]]):
        (mine if option(group) in own else theirs).extend(group)
    return parse_config(config_class, mine, command), theirs
