"""A trained model as files for other programs, compared with PyTorch before they are kept."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.agreement import Agreement
from attnvgg.deploy.calibration import ImageSet
from attnvgg.deploy.engines.interface import Engine, Source
from attnvgg.deploy.engines.kinds import FROM_FILES, check_available
from attnvgg.deploy.engines.program import LEAST, PROGRAM, ProgramEngine, build_program
from attnvgg.deploy.engines.store import ABOUT, versions, write_about
from attnvgg.deploy.image_source import agreement_of, source_of
from attnvgg.errors import InputError
from attnvgg.models import Pretrained
from attnvgg.training.checkpoint import preprocess_of

logger = logging.getLogger(__name__)

TORCH = "torch"
TARGETS = ("onnx", "openvino", "openvino-int8", TORCH)


def export_model(
    model: Pretrained,
    target: str,
    folder: Path,
    *,
    training: ImageSet | None,
    validation: ImageSet,
    replace: bool = False,
) -> Agreement:
    """Write a model of images for another runtime, with `engine.json`.

    Beside the files and their sums, that says all that the runtime does not: preprocessing,
    classes, threshold, what the inputs and outputs are, versions, and the comparison.

    Args:
        model: from `load_model`.
        target: one of `TARGETS`.
        folder: where to.
        training: images to calibrate 8 bits with.
        validation: images to compare on.
        replace: an earlier export in the folder.

    Returns:
        How far it is from PyTorch.

    Raises:
        InputError: an unknown target or missing package; the folder holds something else; too few
            images to calibrate with; the answers are too far from PyTorch's.
    """
    if target not in TARGETS:
        raise InputError(f'There is no export to "{target}"; choose from {", ".join(TARGETS)}.')
    if target != TORCH:
        check_available(target)
    folder = Path(os.path.abspath(folder))
    _check_folder(folder, replace)
    preprocess = preprocess_of(model)
    source = source_of(model, preprocess, training, validation)
    with _beside(folder) as temporary:
        engine = _build(source, target, temporary)
        agreement = agreement_of(engine, source, preprocess, validation)
        agreement.require(target)
        about = {
            "model": _model(model, preprocess),
            "input": {"images": f"float32 (B, 3, {_sides(source, target)}, RGB, see preprocess"},
            "outputs": _outputs(engine, source),
            "agreement": agreement.to_dict(),
            "versions": versions(FROM_FILES[target].packages if target in FROM_FILES else ()),
        }
        write_about(temporary, target, about)
        _make_way(folder)
        try:
            temporary.rename(folder)
        except OSError as error:
            raise InputError(f"Another process has exported to {folder} just now.") from error
    return agreement


def _build(source: Source, target: str, folder: Path) -> Engine:
    if target == TORCH:
        build_program(source, folder)
        return ProgramEngine(folder / PROGRAM)
    files = FROM_FILES[target]
    files.build(source, folder)
    return files.open(folder, None)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside another, which is gone afterwards unless it was renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_way(folder: Path) -> None:
    """Remove an earlier export, after it has left its place."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        folder.rename(old / folder.name)
        shutil.rmtree(old)


def _check_folder(folder: Path, replace: bool) -> None:
    """Make sure that nothing but an earlier export is lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder with -o.")
    if any(folder.iterdir()):
        if not (folder / ABOUT).is_file():
            raise InputError(f"{folder} holds something else than an export: name another folder.")
        if not replace:
            raise InputError(f"{folder} holds an export already: add --replace.")


def _model(model: Pretrained, preprocess: Preprocess) -> dict[str, Any]:
    """Return what is known of the model beside its weights."""
    left = ("format", "digest")
    kept = {name: entry for name, entry in model.config.items() if name not in left}
    return kept | {"preprocess": preprocess.to_dict()}


def _sides(source: Source, target: str) -> str:
    least = LEAST if target == TORCH else 32
    if source.any_size and source.side >= least:
        return f"H, W), both at least {least}"
    return f"{source.side}, {source.side})"


def _outputs(engine: Engine, source: Source) -> list[str]:
    found = engine(np.zeros((1, 3, source.side, source.side), np.float32))
    names = ["logits (B, K)", "attn1 (B, 1, H/8, W/8)", "attn2 (B, 1, H/16, W/16)"]
    return names[: len(found)]
