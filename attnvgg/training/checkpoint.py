"""What a run leaves behind: the state to resume from, and the model to use."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnvgg.data.digits import GreyPreprocess
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.models import BagClassifier, Pretrained, load_pretrained

FORMAT = 1

# What PyTorch raises on files that are cut, of another kind, or of another model.
DAMAGED = (
    RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, EOFError,
    pickle.UnpicklingError,
)  # fmt: skip


@dataclass
class Progress:
    """How far a run has come; together with weights and optimiser this is all of its state.

    `epoch` counts finished epochs, `batch` the finished batches of the one after them; `seen`
    holds what the model said of their cases: (index, labels, logits) a batch.
    """

    epoch: int = 0
    batch: int = 0
    seen: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = float("-inf")


def save_state(path: Path, progress: Progress, states: Mapping[str, Any]) -> None:
    """Write everything that an exact continuation needs, atomically.

    There are no random generators in it: order, augmentation and dropout are pure functions of
    (seed, epoch, batch, process).

    Args:
        path: file, usually `last/state.pt`.
        progress: how far the run is.
        states: objects with `state_dict()`, by name.
    """
    content = {
        "format": FORMAT,
        "progress": asdict(progress),
        "states": {name: item.state_dict() for name, item in states.items()},
    }
    buffer = io.BytesIO()  # a full disk then shows as OSError, not as a torn archive
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path, states: Mapping[str, Any]) -> Progress:
    """Restore what `save_state` wrote and return how far the run is.

    Raises:
        InputError: the file is missing, damaged, of another format or another model.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: there is nothing to resume from.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise InputError(f"{path} has format {content['format']}, expected {FORMAT}.")
        progress = Progress(**content["progress"])
        for name, item in states.items():
            item.load_state_dict(content["states"][name])
    except InputError:
        raise
    except DAMAGED as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged or of another model: {reason}") from error
    return progress


def load_model(path_or_hub: str | Path) -> Pretrained:
    """Return a trained model, ready for use.

    Args:
        path_or_hub: a run folder, its `best/` folder, a `model.safetensors`, or a repository on
            the Hugging Face hub.

    Returns:
        The model in eval mode with `.config` (constructor arguments, threshold, metrics) and
        `.preprocess`, the very transform that it was evaluated with: of an image to (3, size,
        size), for models of bags of one instance: a digit to (1, 28, 28), features as they are.

    Raises:
        InputError: nothing loadable is there.
    """
    folder = Path(path_or_hub)
    best = folder / "best"
    if (folder / "config.yaml").is_file() and not best.is_dir():
        for name in ("seed", "fold"):
            several = sorted(folder.glob(f"{name}-*/best"))
            if several:
                raise InputError(
                    f"{folder} is a run of several {name}s: load one of them, such as "
                    f"{several[0].parent}."
                )
        raise InputError(f"{folder} has no best/ folder yet: no epoch of that run was finished.")
    model = load_pretrained(best if best.is_dir() else path_or_hub)
    if "preprocess" in model.config:
        try:
            model.preprocess = _preprocess(model.config["preprocess"])
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise InputError(
                f"The preprocessing saved in {path_or_hub} is damaged: {error}."
            ) from error
    return model


def _preprocess(saved: dict[str, Any]) -> Callable[..., Tensor]:
    """Return what makes an image, or an instance of a bag, a tensor."""
    kind = saved.get("kind", "image")
    if kind == "digits":
        return GreyPreprocess.from_dict(saved)
    if kind == "features":
        return lambda features: torch.as_tensor(features, dtype=torch.float32)
    return Preprocess.from_dict(saved)


def preprocess_of(model: Pretrained, *, convert: bool = False) -> Preprocess:
    """Return how the images of a model are cut and resized.

    Args:
        model: from `load_model`.
        convert: accept odd formats, where the model itself does not.

    Raises:
        InputError: it is a model of bags, or was saved without it.
    """
    if isinstance(model, BagClassifier):
        raise InputError("This model is of bags: give one of images.")
    preprocess = getattr(model, "preprocess", None)
    if not isinstance(preprocess, Preprocess):
        raise InputError(
            "This model was saved without its preprocessing: how its images were cut and resized, "
            "and so where its maps lie, cannot be known."
        )
    return replace(preprocess, convert=True) if convert else preprocess
