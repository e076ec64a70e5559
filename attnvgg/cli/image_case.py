"""One image as it is drawn: what a model says of it, and what it attended to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnvgg.data.decoding import read_image, read_mask
from attnvgg.deploy.prediction_panels import SYNTHETIC
from attnvgg.errors import InputError
from attnvgg.evaluation.probabilities import called_class, class_names, to_probabilities
from attnvgg.explain import Case, Kind, map_kind
from attnvgg.explain.grad_cam import grad_cam
from attnvgg.models import Pretrained
from attnvgg.models.views import EightViews
from attnvgg.training.checkpoint import preprocess_of
from attnvgg.training.run import RunFolder


def make_case(
    model: Pretrained,
    row: Mapping[Any, Any],
    *,
    convert: bool = False,
    with_class_map: bool = False,
) -> Case:
    """Run the model on one image and put together what is drawn of it.

    Args:
        model: from `load_model`.
        row: `image`, and where known `label` and `mask`.
        convert: accept formats that have to be converted.
        with_class_map: add Grad-CAM of the class whose probability is quoted.

    Raises:
        InputError: a file cannot be read, the model has no attention, or its configuration is
            not whole.
    """
    preprocess = preprocess_of(model, convert=convert)
    images = preprocess(row["image"])[None]
    with torch.inference_mode():
        logits, attn1, attn2 = model(images)
    if attn1 is None or attn2 is None:
        raise InputError("This model was trained without attention: it has no maps to draw.")
    image = read_image(row["image"], convert=preprocess.convert)
    probabilities = to_probabilities(logits.numpy())[0]
    classes, predicted, scored = _decision(model.config, probabilities)
    mask = row.get("mask")
    return Case(
        image=image,
        attn1=attn1[0, 0].numpy(),
        attn2=attn2[0, 0].numpy(),
        probability=float(probabilities[scored if len(probabilities) > 1 else 0]),
        predicted=classes[predicted],
        label=_label(row, classes),
        scored=classes[scored],
        name=Path(row["image"]).name,
        region=preprocess.region(*image.shape[:2]),
        mask=read_mask(mask) if isinstance(mask, str) else None,
        input_size=preprocess.size,
        class_map=grad_cam(model, images, [scored])[0] if with_class_map else None,
    )


def _decision(config: dict[str, Any], probabilities: np.ndarray) -> tuple[list[str], int, int]:
    """Return the names of the classes, the one that is called, and the one to quote."""
    count = max(2, len(probabilities))
    classes = class_names(config, count)
    called = called_class(probabilities, config.get("threshold"))
    if count > 2:
        return classes, called, called
    return classes, called, 1


def _label(row: Mapping[Any, Any], classes: Sequence[str]) -> str | None:
    """Return the name of the true class, where it is known."""
    label = row.get("label")
    if label is not None and not 0 <= label < len(classes):
        raise InputError(
            f"{row['image']} has label {label}, but the classes of the model are "
            f"0 to {len(classes) - 1}."
        )
    return None if label is None else classes[int(label)]


def kind_of(model: Pretrained, scale: str) -> Kind:
    if scale == "per-image":
        return "per-image"
    return map_kind(model.config)


def take_threshold(model: Pretrained, run: RunFolder | None, views: int) -> None:
    """Give a model the threshold that its run was judged by, if that was with as many views.

    Its own is that of one view. `threshold_of_views` of its configuration says which it has.

    Args:
        model: of two classes or more.
        run: where `metrics.json` may be.
        views: that the model will have.
    """
    if views == 1 or run is None or not run.evaluation.is_file():
        return
    metrics = json.loads(run.evaluation.read_text())
    if metrics.get("views") == views and metrics["threshold"] is not None:
        model.config |= {"threshold": metrics["threshold"]["value"], "threshold_of_views": views}


def caption_of(model: Pretrained) -> str | None:
    notes = []
    if model.config.get("synthetic"):
        notes.append(SYNTHETIC)
    if len(model.config.get("classes") or ()) > 2:
        notes.append("Attention is the same for every class: where it looked, not what for.")
    if isinstance(model, EightViews):
        notes.append("Mean of 8 views: quarter turns and flips, their maps turned back.")
        if model.config.get("threshold") is not None and not model.config.get("threshold_of_views"):
            notes.append("The threshold was chosen for one view.")
    return " ".join(notes) or None
