"""What one process has on its disk and the others need: machines may have no disk in common."""

from __future__ import annotations

import tempfile
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from attnvgg.models import Pretrained
from attnvgg.training.checkpoint import load_model
from attnvgg.training.run import RunFolder


def load_model_everywhere(run: RunFolder, accelerator: Accelerator) -> Pretrained:
    """Return the model of a run in every process, read by the main one alone.

    Call it in all processes.

    Raises:
        InputError: see `load_model`.
    """
    if accelerator.num_processes == 1:
        return load_model(run.path)
    files: dict[str, bytes] = {}
    model = None
    if accelerator.is_main_process:
        model = load_model(run.path)
        files = {path.name: path.read_bytes() for path in run.best.iterdir() if path.is_file()}
    (files,) = broadcast_object_list([files])
    if model is not None:
        return model
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return load_model(folder)
