"""The four questions to a map, each as figures with intervals: does it lie on the lesion, does the
model need what it marks, does it depend on what was learned, do things beside the lesion matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from attnvgg.cli.maps_sample import (
    MapSample,
    batched,
    maps_of,
    probabilities_of,
    untrained,
)
from attnvgg.data.transforms import Preprocess
from attnvgg.explain.faithfulness import (
    BLUR,
    centred_gaussian,
    follow,
    null_name,
    random_map,
)
from attnvgg.explain.localisation import Found, Localisation, localise
from attnvgg.explain.pasting import ARTEFACTS, Pasted, paste
from attnvgg.explain.sanity import cascade, rank_correlation
from attnvgg.models import Pretrained

Maps = Mapping[str, np.ndarray]
GAUSSIAN = "centred Gaussian"


def with_gaussian(maps: Maps, count: int) -> dict[str, np.ndarray]:
    """Return the maps and, on the finest of their grids, one that has not seen the image."""
    grid = max(found.shape[1:] for found in maps.values())
    return {**maps, GAUSSIAN: np.broadcast_to(centred_gaussian(*grid), (count, *grid))}


def judge_localisation(
    sample: MapSample, maps: Maps, draws: int, seed: int
) -> dict[str, Any] | None:
    """Return how well maps find the lesion, None where no image has a mask.

    Random maps, one set for each grid, are averaged over draws.
    """
    if not sample.has_mask.any():
        return None
    compared = with_gaussian(maps, len(sample))
    located = {
        name: [localise(found, sample.masks, sample.has_mask)] for name, found in compared.items()
    }
    for grid in sorted({found.shape[1:] for found in maps.values()}):
        random = np.random.default_rng(seed)
        located[null_name(grid)] = [
            localise(
                np.stack([random_map(random, *grid) for _ in range(len(sample))]),
                sample.masks,
                sample.has_mask,
            )
            for _ in range(draws)
        ]
    one = next(iter(located.values()))[0]
    return {
        "with_mask": int(sample.has_mask.sum()),
        "empty_or_full_masks": one.empty,
        "area": sample.mean(one.area),
        "figures": {name: _located(sample, found) for name, found in located.items()},
    }


def _located(sample: MapSample, draws: list[Localisation]) -> dict[str, Any]:
    inside = np.mean([draw.inside for draw in draws], axis=0)
    outside = np.mean([draw.outside for draw in draws], axis=0)
    gain = inside[:, Found._fields.index("mass")] - draws[0].area
    columns = {name: column for column, name in enumerate(Found._fields)}
    return {
        **{name: sample.mean(inside[:, column]) for name, column in columns.items()},
        "pointing": sample.share(inside[:, columns["pointing"]]),
        "mass_above_area": sample.mean(gain),
        "background": {name: sample.mean(outside[:, column]) for name, column in columns.items()},
        "flat": sum(draw.flat for draw in draws),
    }


def judge_faithfulness(
    sample: MapSample, model: Pretrained, maps: Maps, steps: int, draws: int, seed: int
) -> dict[str, Any]:
    """Return areas and curves of deletion and insertion, and paired differences of the areas."""
    compared = with_gaussian(maps, len(sample))
    curves = follow(
        probabilities_of(model),
        sample.images,
        compared,
        sample.called.tolist(),
        steps=steps,
        draws=draws,
        seed=seed,
    )
    areas = {
        name: {"deletion": found.areas[0], "insertion": found.areas[1]}
        for name, found in curves.items()
    }
    figures = {
        name: {
            **{way: sample.mean(values) for way, values in own.items()},
            "minus": {
                rival: {way: sample.mean(own[way] - areas[rival][way]) for way in own}
                for rival in _rivals(name, compared)
            },
            "curves": {way: sample.band(getattr(curves[name], way)) for way in own},
        }
        for name, own in areas.items()
    }
    ends = [curves[next(iter(maps))].deletion[:, place] for place in (0, -1)]
    return {
        "steps": steps,
        "draws": draws,
        "blur": BLUR,
        "probability_whole": sample.mean(ends[0]),
        "probability_blurred": sample.mean(ends[1]),
        "figures": figures,
    }


def _rivals(name: str, compared: Maps) -> list[str]:
    """Return what a map is compared with: the random maps of its own grid, and all the others."""
    if name not in compared:
        return []  # it is a null itself
    return [null_name(compared[name].shape[1:]), *(other for other in compared if other != name)]


def judge_sanity(
    sample: MapSample, model: Pretrained, maps: Maps, draws: int, seed: int
) -> dict[str, Any]:
    """Return how alike maps stay while the model forgets, block by block from the last.

    Means over `draws` untrained models; a correlation that is undefined in all of them (a map
    that is the same everywhere) does not count.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in maps}
    called = sample.called.tolist()
    for number in tqdm(range(draws), "randomisation", unit="model", leave=False, disable=None):
        for block, forgetful in cascade(model, untrained(model, seed + number)):
            for name, others in maps_of(forgetful, sample.images, called).items():
                found[name].setdefault(block, []).append(rank_correlation(maps[name], others))
    figures = {
        name: [_alike(sample, block, np.array(values)) for block, values in blocks.items()]
        for name, blocks in found.items()
    }
    return {"draws": draws, "figures": figures}


def _alike(sample: MapSample, block: str, correlations: np.ndarray) -> dict[str, Any]:
    """Return the mean of correlations (draws, n), of the models of their own too."""
    defined = np.isfinite(correlations)
    counts = defined.sum(axis=0)
    sums = np.where(defined, correlations, 0).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    models = [
        float(row[ok].mean()) for row, ok in zip(correlations, defined, strict=True) if ok.any()
    ]
    return {
        "block": block,
        **sample.mean(means),
        "undefined": int((~defined).sum()),
        "lowest_model": min(models, default=None),
        "highest_model": max(models, default=None),
    }


def judge_pasting(
    sample: MapSample, model: Pretrained, preprocess: Preprocess, seed: int
) -> tuple[dict[str, Any] | None, dict[str, Pasted]]:
    """Return what artefacts beside the lesion do to the probability, and one picture of each.

    The probability is that of class 1 where there are two, else that of the class that was called.
    """
    rows = np.flatnonzero(sample.has_mask & sample.masks.any(axis=(1, 2)))
    if not len(rows):
        return None, {}
    two = len(sample.classes) == 2
    which = np.ones(len(sample), int) if two else sample.called
    threshold = model.config.get("threshold")
    ask = probabilities_of(model)
    before = batched(ask, sample.images).cpu().numpy()
    figures: dict[str, Any] = {}
    shown: dict[str, Pasted] = {}
    for name in ARTEFACTS:
        after = np.full(before.shape, np.nan)
        for row in rows:
            pasted = paste(name, sample.pixels[row], sample.masks[row], seed + int(row))
            if pasted is None:
                continue
            shown.setdefault(name, pasted)
            image = preprocess.normalise(pasted.image)[None].to(sample.images.device)
            after[row] = ask(image)[0].cpu().numpy()
        change = (after - before)[np.arange(len(sample)), which]
        flips = np.where(np.isfinite(change), _called(after, threshold) != sample.called, np.nan)
        figures[name] = {
            "change": sample.mean(change),
            "size_of_change": sample.mean(np.abs(change)),
            "other_call": sample.share(flips),
            "no_room": int(len(rows) - np.isfinite(change).sum()),
        }
    return {"class": sample.classes[1] if two else None, "figures": figures}, shown


def _called(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    if probabilities.shape[1] == 2 and threshold is not None:
        return (probabilities[:, 1] >= threshold).astype(int)
    return np.nan_to_num(probabilities).argmax(axis=1)


def device_of(name: str) -> torch.device:
    """Return the device that a command was told to use; auto takes the GPU where there is one."""
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
