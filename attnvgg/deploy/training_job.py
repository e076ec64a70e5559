"""A training job on Amazon SageMaker: what it is made of, told in words, and its source."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnvgg.deploy.container import CHECKPOINTS
from attnvgg.deploy.words import as_text, checked
from attnvgg.errors import InputError

PYTORCH, PYTHON = "2.10.0", "py313"
"""Newest training image that SDK 3.27 knows; the requirements bring the PyTorch that we need."""

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ("attnvgg", "scripts", "configs", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
RUBBISH = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,39}")


@dataclass(frozen=True)
class Job:
    """A training job.

    Attributes:
        name: begins the name of the job, and the names of what it writes.
        script: of `scripts/`, without suffix.
        role: ARN of the role that the job has.
        channels: folder here or S3 prefix of each channel of data.
        output: S3 prefix of all that is uploaded and written.
        instance_type: of the machines.
        instance_count: machines.
        hyperparameters: of the script, see `words.to_hyperparameters`.
        config: YAML file of the script's options, which travels with the source.
        image: of the container; none: Amazon's of PyTorch.
        region: none: that of the user's AWS settings.
        spot: take machines that are cheaper and may be taken away.
        hours: longest time of training.
        volume_gib: disk of each machine.
        extras: of the package, that the container installs.
        checkpoints: S3 prefix of an earlier job's checkpoints, to go on from; none: its own.
    """

    name: str
    script: str
    role: str
    channels: Mapping[str, str]
    output: str
    instance_type: str
    instance_count: int = 1
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    image: str | None = None
    region: str | None = None
    spot: bool = False
    hours: float = 24.0
    volume_gib: int = 100
    extras: Sequence[str] = ("bags", "slides")
    checkpoints: str | None = None

    @property
    def entry(self) -> str:
        """Return the script's path in the source."""
        return f"scripts/{self.script}.py"

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the hyperparameters, with the file of the options where the container has it."""
        own = {"config": "config.yaml"} if self.config is not None else {}
        return checked(own | dict(self.hyperparameters))


def find_wrong(name: str, role: str, output: str, instance_type: str, usual: str) -> list[str]:
    """Return what neither a job nor an endpoint can have, in words.

    Args:
        name: begins its name.
        role: ARN.
        output: S3 prefix.
        instance_type: of the machines.
        usual: type of machine to name as an example.
    """
    wrong = []
    if not NAME.fullmatch(name):
        wrong.append(f"the name {name}: letters, digits and -, at most 40")
    if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", role):
        wrong.append("the role: give its ARN, arn:aws:iam::<account>:role/<name>")
    if not S3.fullmatch(output):
        wrong.append(f"the output {output}: s3://bucket/prefix")
    if not re.fullmatch(r"ml\.[a-z0-9-]+\.[a-z0-9-]+", instance_type):
        wrong.append(f"the instance type {instance_type}: such as {usual}")
    return wrong


def check(job: Job) -> None:
    """Refuse what no job can have, before anything is uploaded.

    Raises:
        InputError: listing it.
    """
    wrong = find_wrong(job.name, job.role, job.output, job.instance_type, "ml.g5.xlarge")
    if job.checkpoints is not None and not S3.fullmatch(job.checkpoints):
        wrong.append(f"the checkpoints {job.checkpoints}: s3://bucket/prefix")
    if job.instance_count < 1 or job.volume_gib < 1 or not 0 < job.hours <= 28 * 24:
        wrong.append("instances and disk: at least 1; hours: above 0, at most 672")
    for name, place in job.channels.items():
        if S3.fullmatch(place):
            continue
        if not Path(place).is_dir():
            wrong.append(f"the data {place} ({name}): a folder here, or s3://bucket/prefix")
        elif not _files(place):
            wrong.append(f"the data {place} ({name}): the folder holds no files")
    if job.config is not None and not job.config.is_file():
        wrong.append(f"the file {job.config}: does not exist")
    if wrong:
        raise InputError("These parts of the job cannot be:", wrong)
    _ = job.parameters  # says what is wrong with them
    check_source(job)


def describe(job: Job) -> list[str]:
    """Return what `submit` would do, line by line; nothing is imported or asked for.

    Args:
        job: checked.
    """
    lines = [
        f"job        {job.name}-<time>, at most {job.hours:g} h",
        f"machines   {job.instance_count} x {job.instance_type}, {job.volume_gib} GiB of disk"
        + (", spot" if job.spot else ""),
        f"image      {job.image or f'PyTorch {PYTORCH} ({PYTHON}) of Amazon'}",
        f"region     {job.region or 'of your AWS settings'}",
        f"role       {job.role}",
        f"upload     source {', '.join(SOURCE[:3])} of {ROOT}",
    ]
    for name, place in job.channels.items():
        if S3.fullmatch(place):
            lines.append(f"channel    {name}: {place}")
        else:
            files = _files(place)
            size = sum(path.stat().st_size for path in files) / 2**20
            lines.append(f"upload     {place} as {name}: {len(files):,} files, {size:,.1f} MiB")
    lines.append(f"install    .[{','.join(job.extras)}]")
    words = " ".join(f"--{key} {as_text(value)}" for key, value in job.parameters.items())
    lines.append(f"run        torchrun {job.entry} {words}".rstrip())
    ours = f"{job.output.rstrip('/')}/{job.name}-<time>"
    kept = job.checkpoints or f"{job.output.rstrip('/')}/{job.name}/{job.name}-<time>/checkpoints"
    lines.append(f"save       {CHECKPOINTS} to {kept}, while it runs")
    lines.append(f"write      {ours}/output/model.tar.gz and output.tar.gz")
    return lines


def _files(folder: str) -> list[Path]:
    """Return what of a folder is uploaded."""
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def check_source(job: Job) -> None:
    """Make sure that there is a source to upload.

    Raises:
        InputError: the package was installed without a checkout.
    """
    missing = [name for name in (*SOURCE, job.entry) if not (ROOT / name).exists()]
    if missing:
        raise InputError(
            f"A job takes its source from a checkout, and {ROOT} is none, these are missing:",
            missing,
        )


def stage_source(job: Job, folder: Path) -> None:
    """Put what travels to the container into a folder: source, requirements, options.

    Not the checkout itself, in which data and runs may lie; and not the SDK's patterns of files to
    leave out, which hold at any depth: `data` would leave out `attnvgg/data`.

    Args:
        job: checked.
        folder: is there, and empty.
    """
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=RUBBISH)
        else:
            shutil.copyfile(ROOT / name, folder / name)
    (folder / "requirements.txt").write_text(f".[{','.join(job.extras)}]\n")
    if job.config is not None:
        shutil.copyfile(job.config, folder / "config.yaml")
