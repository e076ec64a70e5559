"""SageMaker's container on this machine: the same folders, variables and command, without AWS."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from attnvgg.deploy.training_job import Job, stage_source
from attnvgg.deploy.words import as_text, to_words
from attnvgg.errors import InputError
from attnvgg.models import Pretrained
from attnvgg.training.checkpoint import load_model

logger = logging.getLogger(__name__)

HOST = "algo-1"
MARK = ".simulator"  # in a folder whose content is a job's, and may be replaced
# The real container sources its variables with `set -e`: what is no variable ends the job.
SHELL = 'set -e; source "$1"; cd "$2"; shift 2; exec "$@"'


def simulate(job: Job, root: Path, processes: int = 1) -> Pretrained:
    """Run a job in `root`, which stands for `/opt/ml`, and return the model it leaves.

    A job goes on where an earlier one in the same folder was interrupted, as a spot job does on a
    new machine: all but `checkpoints/` is made anew.

    Args:
        job: with folders as channels.
        root: folder, made if it is not there.
        processes: as many as the machine has GPUs.

    Raises:
        InputError: a channel is no folder, the job failed, or left no model that loads.
    """
    remote = [
        f"{name}: {place}" for name, place in job.channels.items() if not Path(place).is_dir()
    ]
    if remote:
        raise InputError("The simulator needs folders of this machine for these channels:", remote)
    root = root.absolute()
    variables = prepare(job, root, processes)
    code = _run(job, root, processes)
    if code:
        failure = Path(variables["SM_OUTPUT_FAILURE"])
        reason = failure.read_text() if failure.is_file() else "it left no reason"
        raise InputError(f"The job ended with exit code {code}: {reason}")
    model = load_model(root / "model")
    logger.info("The model in %s loads: %s.", root / "model", type(model).__name__)
    return model


def prepare(job: Job, root: Path, processes: int) -> dict[str, str]:
    """Make the folders and files that a container finds, and return the variables it sets.

    Args:
        job: see `simulate`.
        root: absolute.
        processes: see `simulate`.
    """
    made = [root / name for name in ("input", "model", "output")]
    if not (root / MARK).exists() and any(folder.exists() for folder in made):
        raise InputError(f"{root} holds other things, which would be lost: name a new --root.")
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
    data, config = root / "input" / "data", root / "input" / "config"
    for folder in (data, config, root / "model", root / "output" / "data", root / "checkpoints"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, place in job.channels.items():
        (data / name).symlink_to(Path(place).absolute(), target_is_directory=True)
    (root / MARK).touch()
    (data / "code").mkdir()
    stage_source(job, data / "code")
    values = {name: as_text(value) for name, value in job.parameters.items()}
    (config / "hyperparameters.json").write_text(json.dumps(values))
    variables = {key: as_text(value) for key, value in _variables(job, root, processes).items()}
    lines = [f"export {key}='{value}'\n" for key, value in variables.items()]
    (root / "input" / "sm_training.env").write_text("".join(lines))
    return variables


def _variables(job: Job, root: Path, processes: int) -> dict[str, Any]:
    """Return what SDK 3's driver exports, as far as a script can be interested in it."""
    data, parameters = root / "input" / "data", job.parameters
    channels = [*job.channels, "code"]
    return {
        "SM_MODEL_DIR": str(root / "model"),
        "SM_INPUT_DIR": str(root / "input"),
        "SM_INPUT_DATA_DIR": str(data),
        "SM_INPUT_CONFIG_DIR": str(root / "input" / "config"),
        "SM_OUTPUT_DIR": str(root / "output"),
        "SM_OUTPUT_DATA_DIR": str(root / "output" / "data"),
        "SM_OUTPUT_FAILURE": str(root / "output" / "failure"),
        "SM_CHANNELS": channels,
        **{f"SM_CHANNEL_{name.upper()}": str(data / name) for name in channels},
        **{f"SM_HP_{name.upper()}": value for name, value in parameters.items()},
        "SM_HPS": parameters,
        "SM_HOSTS": [HOST],
        "SM_CURRENT_HOST": HOST,
        "SM_HOST_COUNT": 1,
        "SM_NUM_CPUS": os.cpu_count() or 1,
        "SM_NUM_GPUS": torch.cuda.device_count(),
    }


def _run(job: Job, root: Path, processes: int) -> int:
    """Run the script as the driver does, and return its exit code."""
    code = root / "input" / "data" / "code"
    command = ["bash", "-c", SHELL, "container", str(root / "input" / "sm_training.env"), str(code)]
    command += [*_driver(processes), job.entry, *to_words(job.parameters)]
    environment = _environment(os.environ, root, code)
    with subprocess.Popen(command, env=environment) as process, _passed_on(process):
        return process.wait()


def _driver(processes: int) -> list[str]:
    """Return the command that starts a script as so many processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1"]
    return [*torchrun, f"--nproc_per_node={processes}", f"--master_port={_free_port()}"]


def _free_port() -> int:
    """Return a port for the processes to meet at, so that two jobs can be tried at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _environment(outer: Mapping[str, str], root: Path, code: Path) -> dict[str, str]:
    """Return the variables that a job finds before the driver adds its own."""
    own = {key: value for key, value in outer.items() if not key.startswith("SM_")}
    own["SM_CHECKPOINT_DIR"], own["PYTHONPATH"] = str(root / "checkpoints"), str(code)
    return own | {"NO_ALBUMENTATIONS_UPDATE": "1"}


@contextmanager
def _passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Send a SIGTERM for this process to the job: no process is left behind."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        process.terminate()
