"""Training from the maps of frozen stages against full fine-tuning: seconds, and AUC.

Seconds: at 224 px with VGG-16, whole epochs (training and validation) on the same few SYNTHETIC
pictures, by the very functions of `attnvgg train`, in turns within one process. They are told for
the numbers of the built-in sample, 1400 training and 200 validation images: what training,
validation and the computing of maps take is proportional to the images they are spent on, the
making of an 8-bit engine is spent once.

AUC: at 96 px with VGG-11 on a SYNTHETIC sample, whole commands with all that they do. The backbone
was trained before on another such sample (other seed: no picture in common), or is random.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from attnvgg.cli.cases import load_cases
from attnvgg.cli.image_frozen import compute_frozen, plan_frozen
from attnvgg.cli.train import main as train
from attnvgg.data.sample import make_sample
from attnvgg.models import load_pretrained
from attnvgg.training.build import judging_loader, loader_workers
from attnvgg.training.build_images import build_model, make_datasets, make_trainer
from attnvgg.training.checkpoint import Progress
from attnvgg.training.config import DataConfig, FrozenConfig, ModelConfig, TrainConfig, resolve
from attnvgg.training.engine import evaluate, make_accelerator, train_one_epoch
from attnvgg.training.run import RunFolder

FEW, VIEWS, ROUNDS = 64, 4, 3
SAMPLE = (1400, 200)  # training and validation images of the built-in sample
EPOCHS = 10
EPOCH_BAR, TOTAL_BAR = 15.0, 6.0
FROZEN = {5: "frozen, all stages", 4: "frozen to pool-4"}
WAYS = ((5, "eager"), (5, "openvino-int8"), (4, "eager"), (4, "openvino-int8"))
ARMS: dict[str, list[str]] = {
    "full fine-tuning": [],
    "frozen to pool-4": ["--model.freeze=4", "--frozen.views=4"],
    "frozen, all stages": ["--model.freeze=5", "--frozen.views=4", "--optim.lr=1e-3"],
    "the same, 8 bits": [
        "--model.freeze=5", "--frozen.views=4", "--optim.lr=1e-3", "--frozen.engine=openvino-int8"
    ],
}  # fmt: skip


@dataclass
class Arm:
    """One way to train.

    Attributes:
        epoch: trains and validates; returns the seconds that an image of each took.
        making: seconds for the engine.
        computing: seconds for one view of one image.
    """

    epoch: Callable[[], tuple[float, float]]
    making: float = 0.0
    computing: float = 0.0


def make_arm(folder: Path, root: Path, freeze: int, engine: str) -> Arm:
    """Put one way together as `attnvgg train` does; the maps are computed, and timed."""
    config = TrainConfig(
        batch_size=16,
        device="cpu",
        data=DataConfig(
            source="sample", root=root, image_size=224, fractions=(0.75, 0.25, 0.0),
            cache=folder / "images",
        ),
        model=ModelConfig(weights=None, freeze=freeze),
        frozen=FrozenConfig(VIEWS if freeze else 0, engine, folder / f"{freeze}-{engine}"),  # type: ignore[arg-type]
    )  # fmt: skip
    config = resolve(config)
    accelerator: Accelerator = make_accelerator(config)
    manifest, _ = load_cases(config.data, "sample", root)
    datasets = make_datasets(config, manifest)
    workers = loader_workers(None, accelerator)
    model, config = build_model(config, manifest)
    plan = plan_frozen(config, RunFolder(folder / "none"), accelerator, model, datasets)
    sets = datasets if plan is None else plan.datasets
    trainer = make_trainer(config, accelerator, model, manifest, sets["train"])
    validation = judging_loader(config, accelerator, sets["val"], 0 if plan else workers)
    progress = Progress()

    def epoch() -> tuple[float, float]:
        start = time.perf_counter()
        train_one_epoch(trainer, progress, lambda: None)
        between = time.perf_counter()
        evaluate(trainer.judged, validation, accelerator)
        end = time.perf_counter()
        progress.epoch, progress.batch, progress.seen = progress.epoch + 1, 0, []
        trained = trainer.batches.batches * trainer.batches.batch_size
        return (between - start) / trained, (end - between) / len(sets["val"])

    arm = Arm(epoch)
    if plan is not None:
        start = time.perf_counter()
        plan.trunk.open()  # an engine of files is kept, and the next line only reads it
        between = time.perf_counter()
        compute_frozen(config, plan, accelerator, workers)
        arm.making = between - start if engine != "eager" else 0.0
        rows = sum(found.store.images * found.store.views for found in plan.datasets.values())
        arm.computing = (time.perf_counter() - between) / rows
    return arm


def epoch_seconds(measured: tuple[float, float]) -> float:
    """Return the seconds of an epoch of the sample, by those of an image each."""
    return sum(count * seconds for count, seconds in zip(SAMPLE, measured, strict=True))


def print_seconds(folder: Path) -> None:
    """Print epochs, what is computed before them, and totals."""
    root = make_sample(folder / "few", count=FEW, seed=1, size=256)
    full = make_arm(folder, root, 0, "eager")
    arms = {way: make_arm(folder, root, *way) for way in WAYS}
    for arm in (full, *arms.values()):
        arm.epoch()  # warms up
    times: dict[object, list[float]] = {name: [] for name in ("full", *arms)}
    for _ in range(ROUNDS):
        times["full"].append(epoch_seconds(full.epoch()))
        for way, arm in arms.items():
            times[way].append(epoch_seconds(arm.epoch()))
    whole = statistics.median(times["full"])
    print(
        f"frozen: VGG-16 at 224 px, batch 16, CPU, {torch.get_num_threads()} threads; an epoch of "
        f"{SAMPLE[0]} + {SAMPLE[1]} images by measurements on {FEW}, whose maps are in memory\n"
        f"  {'full fine-tuning':<34} {whole:6.0f} s an epoch"
    )
    for (freeze, engine), arm in arms.items():
        mine = times[freeze, engine]
        epoch = statistics.median(mine)
        ratios = [a / b for a, b in zip(times["full"], mine, strict=True)]
        before = arm.making + arm.computing * (SAMPLE[0] * VIEWS + SAMPLE[1])
        total = EPOCHS * whole / (before + EPOCHS * epoch)
        faster = statistics.median(ratios)
        print(
            f"  {FROZEN[freeze]:<18} {engine:<15} {epoch:6.1f} s an epoch: {faster:.1f}x "
            f"({min(ratios):.1f}-{max(ratios):.1f}), bar {EPOCH_BAR:g}x "
            f"{'met' if faster >= EPOCH_BAR else 'not met'}; {VIEWS} views computed before in "
            f"{before:.0f} s; {EPOCHS} epochs with that: {total:.1f}x, bar {TOTAL_BAR:g}x "
            f"{'met' if total >= TOTAL_BAR else 'not met'}"
        )


def save_backbone(best: Path, path: Path) -> None:
    """Write the stages of a trained model as a file of weights under torchvision's names."""
    model = load_pretrained(best)
    layers = [layer for stage in model.stages for layer in stage]  # type: ignore[union-attr]
    state = {
        f"features.{number}.{name}": tensor.contiguous()
        for number, layer in enumerate(layers)
        for name, tensor in layer.state_dict().items()
    }
    save_file(state, path)


def run(folder: Path, name: str, root: Path, options: Sequence[str]) -> tuple[dict, float]:
    """Train by the command, quietly; return what `metrics.json` says, and the seconds it took."""
    words = [
        "--data.source=sample", f"--data.root={root}", "--model.backbone=vgg11_bn", "--device=cpu",
        f"--out={folder / 'runs'}", f"--name={name}", f"--data.cache={folder / 'images'}",
        f"--frozen.cache={folder / 'maps' / name}", "--data.fractions=[0.4,0.1,0.5]", *options,
    ]  # fmt: skip
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as told,
    ):
        start = time.perf_counter()
        code = train(words)
        seconds = time.perf_counter() - start
    if code:
        raise SystemExit(f"training {name} failed: {told.getvalue()[-300:]}")
    return json.loads((folder / "runs" / name / "metrics.json").read_text()), seconds


def print_auc(folder: Path, count: int = 1000, before: int = 1000, epochs: int = 8) -> None:
    """Print the table of AUC and seconds."""
    other = make_sample(folder / "other", count=before, seed=4321, size=128)
    root = make_sample(folder / "mine", count=count, seed=1234, size=128)
    first = ["--model.weights=null", f"--epochs={epochs}", "--data.fractions=[0.8,0.1,0.1]"]
    run(folder, "before", other, first)
    save_backbone(folder / "runs" / "before" / "best", backbone := folder / "backbone.safetensors")
    print(
        f"frozen: AUC on SYNTHETIC pictures, VGG-11 at 96 px, {epochs} epochs of "
        f"{count * 4 // 10} training images, test on {count // 2}"
    )
    for start, weights in (("trained on another sample", backbone), ("random", "null")):
        for number, (name, options) in enumerate(ARMS.items()):
            words = [f"--model.weights={weights}", f"--epochs={epochs}", *options]
            metrics, seconds = run(folder, f"{start.split()[0]}-{number}", root, words)
            auc = metrics["test"]["auc"]
            print(
                f"  backbone {start:<26} {name:<20} AUC {auc['value']:.3f} "
                f"({auc['lower']:.3f}-{auc['upper']:.3f})  {seconds:6.1f} s in all",
                flush=True,
            )


def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as name:
        print_seconds(Path(name))
        print_auc(Path(name))


if __name__ == "__main__":
    main()
