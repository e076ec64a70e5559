"""What SageMaker tells a training job by its environment, and what it wants back.

The contract: data lie in `SM_CHANNEL_<NAME>`, hyperparameters come as `--name value` (and as JSON
in `SM_HPS`), the model goes to `SM_MODEL_DIR`, all else worth keeping to `SM_OUTPUT_DATA_DIR`, a
sentence of failure to `SM_OUTPUT_FAILURE`. What is written to `/opt/ml/checkpoints` is there again
when a job goes on after its machine was taken away.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnvgg.deploy.words import grouped, option, to_words
from attnvgg.errors import InputError
from attnvgg.files import atomic_path

logger = logging.getLogger(__name__)

RUN = "run"
"""Name of the run in the folder of checkpoints: the same after a restart."""

CHECKPOINTS = "/opt/ml/checkpoints"
TRAINING = ("training", "train")
TESTING = ("testing", "test")


@dataclass(frozen=True)
class Container:
    """A training job as seen from within its container.

    Attributes:
        channels: folder of each channel of data, by its name in lower case.
        model: folder that becomes `model.tar.gz`.
        output: folder that becomes `output.tar.gz`; none where it is not said.
        checkpoints: folder that outlives an interruption.
        failure: file whose text the console shows as the reason of a failure.
        gpus: GPUs of this machine.
        hyperparameters: values by name.
    """

    channels: Mapping[str, Path]
    model: Path
    output: Path | None
    checkpoints: Path
    failure: Path | None
    gpus: int
    hyperparameters: Mapping[str, Any]

    @property
    def run(self) -> Path:
        """Return the folder of the run."""
        return self.checkpoints / RUN

    @property
    def data(self) -> Path | None:
        """Return the folder of the data: the training channel, or what holds it and a test one."""
        training = [self.channels[name] for name in TRAINING if name in self.channels]
        if not training:
            return None
        with_test = any(name in self.channels for name in TESTING)
        return training[0].parent if with_test else training[0]

    def words(self, argv: Sequence[str]) -> list[str]:
        """Return the command line of the training command.

        Hyperparameters that only `SM_HPS` names are added. The file of `--config` comes first,
        because what stands behind it wins, and the service keeps hyperparameters in no order.

        Args:
            argv: words that the script was started with.
        """
        groups = grouped(argv)
        said = {option(group) for group in groups}
        own = {
            name: value
            for name, value in self.hyperparameters.items()
            if name not in said and not name.startswith("sagemaker_")  # those are the toolkit's
        }
        groups += grouped(to_words(own))
        groups.sort(key=lambda group: option(group) != "config")
        return [word for group in groups for word in group]

    def place(self, path: Path | None) -> Path | None:
        """Return where a file of the options lies: relative ones are looked for in the data."""
        if path is None or path.is_absolute() or self.data is None:
            return path
        inside = self.data / path
        return inside if inside.exists() else path


def read_container(environment: Mapping[str, str]) -> Container | None:
    """Return the job that this process is part of; None outside of SageMaker.

    Args:
        environment: variables by name.

    Raises:
        InputError: `SM_HPS` or `SM_NUM_GPUS` are not what the contract says.
    """
    if "SM_MODEL_DIR" not in environment:
        return None
    prefix = "SM_CHANNEL_"
    output, failure = environment.get("SM_OUTPUT_DATA_DIR"), environment.get("SM_OUTPUT_FAILURE")
    return Container(
        channels={
            name.removeprefix(prefix).lower(): Path(value)
            for name, value in environment.items()
            if name.startswith(prefix)
        },
        model=Path(environment["SM_MODEL_DIR"]),
        output=Path(output) if output else None,
        checkpoints=Path(environment.get("SM_CHECKPOINT_DIR") or CHECKPOINTS),
        failure=Path(failure) if failure else None,
        gpus=int(_parse(environment, "SM_NUM_GPUS", int, 0)),
        hyperparameters=_parse(environment, "SM_HPS", dict, {}),
    )


def _parse(environment: Mapping[str, str], name: str, kind: type, default: Any) -> Any:
    try:
        value = json.loads(environment.get(name) or json.dumps(default))
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, kind):
        raise InputError(f"The environment variable {name} is no JSON of the kind {kind.__name__}.")
    return value


def copy_files(source: Path, target: Path, skip: Sequence[str] = ()) -> None:
    """Copy a folder into one that may be there already, each file atomically.

    `config.json` comes last: a folder of a model that has it is whole. The target itself cannot be
    replaced, because in a container it is a mounted disk.

    Args:
        source: folder.
        target: folder.
        skip: names of files and folders, at any depth, that stay behind; hidden ones always do.
    """
    files = [path for path in source.rglob("*") if path.is_file()]
    files.sort(key=lambda path: (path.name == "config.json", path))
    for path in files:
        inside = path.relative_to(source)
        if any(part in skip or part.startswith(".") for part in inside.parts):
            continue
        with atomic_path(target / inside) as temporary:
            shutil.copyfile(path, temporary)


def tell_failure(container: Container, sentence: str) -> None:
    """Leave the reason of a failure where the service looks for it."""
    if container.failure is None:
        return
    try:
        with atomic_path(container.failure) as temporary:
            temporary.write_text(sentence[:1024])  # what the service shows
    except OSError:  # it is told on the console as well, and must not hide that
        logger.warning("The reason of the failure could not be written to %s.", container.failure)
