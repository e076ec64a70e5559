"""Bags in use: packed against one bag a call; features in 8 bits against 32, and their AUC.

Ratios are medians of paired rounds in one process, with minimum and maximum. The slides are the
first ones of the built-in sample, drawn by a program; their encoder has random weights, because
those of ImageNet would have to be fetched. It takes some five minutes on two cores.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from attnvgg.cli.train_bags import main as train_bags
from attnvgg.data.features import read_features
from attnvgg.data.slide_sample import slide_sample
from attnvgg.deploy.bag_predictor import BagPredictor
from attnvgg.deploy.extraction import Pace, extract
from attnvgg.deploy.feature_settings import FeatureSettings
from attnvgg.deploy.tile_calibration import Calibration
from attnvgg.deploy.tile_encoders import EncoderChoice, TileEncoder, open_encoder
from attnvgg.evaluation import read_predictions
from attnvgg.evaluation.paired import auc_difference
from attnvgg.models import BagClassifier

ROUNDS = 5
SLIDES, PART = 120, 20  # slides in all, and of a round
CONFIG = Path(__file__).resolve().parent.parent / "configs" / "slide_features.yaml"
OF_K = {"name": "gated_attention", "width": 256, "bias": False, "init": "glorot"}
OF_I = {"name": "gated_attention", "width": 128}
OF_FEATURES = {"name": "standardized", "in_features": 512}

# title, encoder, pool, shape of an instance, instances of a bag (from, to), bags, engine
CASES = (
    ("recipe K, 3 digits a bag", "mlp", OF_K, (1, 28, 28), (3, 3), 600, "auto"),
    ("recipe I, 6 to 14 digits", "lenet", OF_I, (1, 28, 28), (6, 14), 60, "eager"),
    ("recipe I, 6 to 14 digits", "lenet", OF_I, (1, 28, 28), (6, 14), 60, "auto"),
    ("512 features, 20 to 60 a bag", OF_FEATURES, OF_I, (512,), (20, 60), 200, "auto"),
    ("512 features, 500 to 1500", OF_FEATURES, OF_I, (512,), (500, 1500), 12, "auto"),
)


def seconds(work: Callable[[], object]) -> float:
    """Return the time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(ratios: Sequence[float]) -> str:
    """Return median, minimum and maximum of ratios in words."""
    return f"{statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f})"


def race(case: tuple[Any, ...], folder: Path) -> None:
    """Print bags a second, packed, and how many times as many that is."""
    title, encoder, pool, shape, (least, most), count, engine = case
    torch.manual_seed(0)
    model = BagClassifier(encoder, pool).eval()
    model.save_pretrained(folder)
    predictor = BagPredictor(folder, engine)
    rng = np.random.default_rng(0)
    bags = [
        rng.normal(size=(length, *shape)).astype(np.float32)
        for length in rng.integers(least, most + 1, size=count)
    ]

    def packed() -> list[Any]:
        return list(predictor(bags))

    def singly() -> list[Any]:
        return [next(predictor([bag])) for bag in bags]

    def plainly() -> list[Any]:
        with torch.inference_mode():
            return [
                model(torch.from_numpy(bag), torch.tensor([0, len(bag)])).logits.sigmoid().numpy()
                for bag in bags
            ]

    works = (packed, singly, plainly)
    answers = [work() for work in works]
    apart = max(abs(a.logits - b.logits).max() for a, b in zip(*answers[:2], strict=True))
    rounds = [[seconds(work) for work in works] for _ in range(ROUNDS)]
    rate = count / statistics.median(row[0] for row in rounds)
    print(
        f"  {title}, {predictor.words.partition(':')[0]}: {rate:,.0f} bags/s; against one bag a "
        f"call {spread([row[1] / row[0] for row in rounds])}, against the plain model "
        f"{spread([row[2] / row[0] for row in rounds])}; largest difference of a logit {apart:.0e}"
    )


def extract_both(root: Path, slides: list[Path]) -> tuple[Path, Path]:
    """Extract features in 32 and in 8 bits, in turns; print the ratio of their rates."""
    settings = {name: FeatureSettings(precision=name) for name in ("no", "int8")}  # type: ignore[arg-type]
    calibration = Calibration.of(slides[:4], settings["no"].tiles)
    encoders = {"no": open_encoder(EncoderChoice(weights="random"))}
    started = time.perf_counter()
    encoders["int8"] = open_encoder(EncoderChoice(weights="random", calibration=calibration))
    built = time.perf_counter() - started
    pace = Pace(batch_size=8)

    def rate(name: str, part: list[Path], encoder: TileEncoder) -> float:
        out = root / name
        out.mkdir(exist_ok=True)
        started = time.perf_counter()
        tiles = sum(done.tiles for done in extract(part, out, encoder, settings[name], pace))
        return tiles / (time.perf_counter() - started)

    rounds = [
        {name: rate(name, slides[start : start + PART], encoders[name]) for name in encoders}
        for start in range(0, len(slides), PART)
    ]
    exact, fast = (statistics.median(row[name] for row in rounds) for name in encoders)
    print(
        f"  features of {len(slides)} slides, ResNet-18, 224 px, reading included: 32 bits "
        f"{exact:.0f} tiles/s, int8 {fast:.0f}: {spread([r['int8'] / r['no'] for r in rounds])}; "
        f"engine opened in {built:.1f} s ({encoders['int8'].network.engine.agreement})"
    )
    return root / "no", root / "int8"


def fit(root: Path, features: Path) -> Path:
    """Train the model of bags on features; half of the slides judge it."""
    words = [f"--data.root={root}", f"--data.bags={features}", "--data.fractions=[0.4,0.1,0.5]"]
    # no loader processes: OpenCV's threads, at work in the extraction above, do not survive a fork
    words.append("--data.workers=0")
    out = [f"--out={root / 'runs'}", f"--name={features.name}", "--device=cpu"]
    if code := train_bags(["--config", str(CONFIG), *words, *out]):
        raise SystemExit(code)
    return root / "runs" / features.name


def compare(root: Path, exact: Path, fast: Path) -> None:
    """Print the AUC on features in 8 bits beside that on 32."""
    runs = [fit(root, exact), fit(root, fast)]
    tables = [read_predictions(run / "predictions.csv") for run in runs]
    tables = [table[table["split"] == "test"].reset_index(drop=True) for table in tables]
    names = [Path(name).name for name in tables[0]["image"]]
    assert names == [Path(name).name for name in tables[1]["image"]]
    labels, groups = tables[0]["label"].to_numpy(), tables[0]["group"]
    said = BagPredictor(runs[0])(read_features(fast / name)["instances"] for name in names)
    swapped = np.array([one.probabilities[-1] for one in said])
    base = tables[0]["probability"].to_numpy()
    print(f"  mean |dp| of the 32-bit model on int8 features {np.abs(swapped - base).mean():.4f}")
    others = {"the same model": swapped, "trained on int8": tables[1]["probability"].to_numpy()}
    for name, scores in others.items():
        found = auc_difference(labels, scores, base, groups)
        interval = found["reason"] or f"{found['lower']:+.4f} to {found['upper']:+.4f}"
        print(
            f"  AUC on int8 features less that on 32 bits, {len(labels)} slides, {name}: "
            f"{found['value']:+.4f} (95% interval, paired: {interval})"
        )


def subset(folder: Path) -> list[Path]:
    """Lay out the first slides of the sample as a set of their own; return them."""
    sample = slide_sample()
    table = pd.read_csv(sample / "train.csv").head(SLIDES)
    table.to_csv(folder / "train.csv", index=False)
    (folder / "train_images").mkdir()
    paths = [sample / "train_images" / f"{name}.tiff" for name in table["image_id"]]
    for path in paths:
        (folder / "train_images" / path.name).symlink_to(path)
    return paths


def main() -> None:
    """Print all figures."""
    print(f"bags_infer: CPU, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as name:
        for number, case in enumerate(CASES):
            race(case, Path(name) / str(number))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        compare(root, *extract_both(root, subset(root)))


if __name__ == "__main__":
    main()
