"""Engines against the published eager model at 224 px: images a second, and how far apart.

The weights are those of a run on the sample; without one (`ATTNVGG_RUN`, else runs/benchmark) it
is trained first, in some five minutes. Ratios are of paired rounds in one process: all take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnvgg.cli.train import main as train
from attnvgg.data.manifest import read_manifest
from attnvgg.deploy.agreement import TOLERANCE, USUAL, Agreement, compare
from attnvgg.deploy.calibration import ImageSet, of_run
from attnvgg.deploy.engines import ENGINES, Engine, open_engine
from attnvgg.deploy.engines.interface import Refused
from attnvgg.deploy.image_source import source_of
from attnvgg.models.published import published_name
from attnvgg.training.checkpoint import load_model, preprocess_of
from benchmarks.baseline import TutorialAttnVGG

SIZE, ROUNDS, FEW = 224, 7, 64
BARS = {("openvino-int8", 8): 6.0, ("openvino-int8", 1): 5.0}
BEST_32 = 1.3
FIRST = 5.0  # seconds
ROOT = Path(__file__).resolve().parent.parent
RUN = Path(os.environ.get("ATTNVGG_RUN", ROOT / "runs" / "benchmark"))

Call = Callable[[np.ndarray[Any, Any]], object]


def trained_run() -> Path:
    """Return a run on the sample; train it if it is not there."""
    if not (RUN / "metrics.json").is_file():
        code = train(["--epochs=2", f"--out={RUN.parent}", f"--name={RUN.name}"])
        if code:
            sys.exit(code)
    return RUN


def published(model: torch.nn.Module) -> Call:
    """Return the published model with the same weights, called as published."""
    theirs = TutorialAttnVGG(1, normalize_attn=True)
    state = {published_name(k): v.contiguous() for k, v in model.state_dict().items()}
    theirs.load_state_dict(state)
    theirs.eval()

    def call(images: np.ndarray[Any, Any]) -> object:
        with torch.no_grad():
            return theirs(torch.from_numpy(images))

    return call


def seconds(call: Call, images: np.ndarray[Any, Any], repeats: int) -> float:
    """Return the time of one call."""
    started = time.perf_counter()
    for _ in range(repeats):
        call(images)
    return (time.perf_counter() - started) / repeats


def race(theirs: Call, engines: dict[str, Engine], batch: int) -> None:
    """Time all in turns, and print ratios."""
    images = np.random.default_rng(0).normal(size=(batch, 3, SIZE, SIZE)).astype(np.float32)
    calls: dict[str, Call] = {"published": theirs, **engines}
    for call in calls.values():
        seconds(call, images, 2)
    repeats = max(1, 8 // batch)
    rounds = [
        {name: seconds(call, images, repeats) for name, call in calls.items()}
        for _ in range(ROUNDS)
    ]
    base = statistics.median(found["published"] for found in rounds)
    print(f"infer: batch {batch}, {SIZE} px: published eager {1000 * base / batch:.0f} ms an image")
    for name in engines:
        ratios = [found["published"] / found[name] for found in rounds]
        middle = statistics.median(ratios)
        each = 1000 * statistics.median(found[name] for found in rounds) / batch
        bar = BARS.get((name, batch))
        word = "" if bar is None else f"   bar {bar:g}x: {'met' if middle >= bar else 'not met'}"
        print(
            f"  {name} batch {batch}: {middle:.1f}x ({min(ratios):.1f}-{max(ratios):.1f}), "
            f"{each:.1f} ms an image{word}"
        )
    if batch == 8:
        exact = [name for name in engines if name != "openvino-int8"]
        best = max(
            statistics.median(found["published"] / found[name] for found in rounds)
            for name in exact
        )
        word = "met" if best >= BEST_32 else "not met"
        print(f"  best of 32 bits: {best:.2f}x   bar {BEST_32}x: {word}")


def verdict(name: str, found: Agreement) -> str:
    """Return whether the differences are those that are accepted, in words."""
    try:
        found.require(name)
    except Refused:
        return "   not met"
    most, auc, ranks = TOLERANCE.get(name, USUAL)
    return f"   bars {most:g}, {auc:g}, {ranks:g}: met"


def first_prediction(run: Path, image: str) -> float:
    """Return the seconds that a new process needs until it has its first answer."""
    code = (
        "import sys; from attnvgg.deploy.predictor import Predictor;"
        "print(next(iter(Predictor(sys.argv[1])([sys.argv[2]]))).probabilities)"
    )
    found = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, run, image], check=True, capture_output=True)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def main() -> None:
    """Print all figures."""
    run = trained_run()
    model = load_model(run)
    preprocess = preprocess_of(model)
    training, _ = of_run(run)
    cases = read_manifest(run / "manifest.csv")
    validation = cases[cases["split"] == "val"]
    images = ImageSet(tuple(validation["image"]), tuple(map(int, validation["label"])))
    source = source_of(model, preprocess, training, images)
    print(f"infer: CPU, {torch.get_num_threads()} threads, weights of {run.name}")
    engines = {name: open_engine(name, source) for name in ENGINES}
    labels = np.array(images.labels)
    larger = replace(preprocess, size=SIZE, resize=SIZE)
    few = ImageSet(images.paths[:FEW])
    for name, engine in engines.items():
        if name != "eager":
            found = compare(engine, engines["eager"], images.batches(preprocess), labels)
            print(f"  {name}, {preprocess.size} px: {found.words}{verdict(name, found)}")
    found = compare(engines["openvino-int8"], engines["eager"], few.batches(larger))
    print(f"  openvino-int8, {SIZE} px: {found.words}{verdict('openvino-int8', found)}")
    theirs = published(model)
    for batch in (8, 1):
        race(theirs, engines, batch)
    spent = first_prediction(run, images.paths[0])
    word = "met" if spent < FIRST else "not met"
    print(f"  first prediction of a new process: {spent:.1f} s   bar {FIRST:g} s: {word}")


if __name__ == "__main__":
    main()
