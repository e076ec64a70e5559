"""A training step on a slide of 16 tiles: ours, tile by tile, against the published network.

The published network flattens the tiles into one vector (see `PublishedSlide`). Both have the same
Adam with the same kernels and the same slides, and a process of its own: ours as `attnvgg
train_bags` runs it, which keeps the memory that it frees; theirs as PyTorch runs it, and then once
more so that it keeps its memory too. They take turns of a few steps, the first seconds of which do
not count: the gigabytes that the other one gave back to the system must be had again before memory
is as in training. It needs 8 GB, for the published network.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.cli.common import parse_config
from attnvgg.data.bags import ArrayBags
from attnvgg.training.allocator import keep_freed_memory
from attnvgg.training.bag_config import TrainBagsConfig, resolve, settle
from attnvgg.training.build_bags import build_bag_model, make_bag_trainer
from attnvgg.training.checkpoint import Progress
from attnvgg.training.engine import make_accelerator
from attnvgg.training.run_config import updated
from attnvgg.training.steps import train_step
from benchmarks.bags_memory import tell
from benchmarks.baseline import PublishedSlide

TILES, SIDE, SLIDES = 16, 128, 8
TURNS, STEPS, WARM = 3, 5, 5.0  # in a turn at least so many steps count, after so many seconds
FASTER, FEWER = 8.0, 16
CONFIG = Path(__file__).resolve().parent.parent / "configs" / "panda.yaml"
Step = Callable[[dict[str, Tensor]], float]


def make_ours(bags: ArrayBags, table: pd.DataFrame) -> tuple[nn.Module, Step]:
    """Return our model and the very step of `attnvgg train_bags`."""
    words = ["--config", str(CONFIG), "--device=cpu", "--seed=0"]
    config = resolve(parse_config(TrainBagsConfig, words, "train_bags"))
    config = settle(updated(config, {"data.workers": 0}), ("a", "b"), bags.instance_shape)
    model = build_bag_model(config, bags.instance_shape)
    trainer = make_bag_trainer(config, make_accelerator(config), model, table, bags)

    def step(batch: dict[str, Tensor]) -> float:
        return train_step(trainer, batch, Progress())[0]

    return trainer.module.train(), step


def make_theirs() -> tuple[nn.Module, Step]:
    """Return the published model and its step."""
    torch.manual_seed(0)
    model = PublishedSlide(TILES).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=5e-4, fused=True)

    def step(batch: dict[str, Tensor]) -> float:
        optimizer.zero_grad()
        logits, _ = model(batch["instances"])
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], batch["label"].float())
        loss.backward()
        optimizer.step()
        return loss.item()

    return model, step


def make_slides() -> tuple[ArrayBags, pd.DataFrame]:
    """Return slides of random tiles, and their table."""
    generator = torch.Generator().manual_seed(1)
    shape = (SLIDES * TILES, 3, SIDE, SIDE)
    values = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    rows = [range(number * TILES, (number + 1) * TILES) for number in range(SLIDES)]
    table = pd.DataFrame(
        {
            "image": [f"slide {number}" for number in range(SLIDES)],
            "label": [number % 2 for number in range(SLIDES)],
            "instances": [" ".join(map(str, members)) for members in rows],
        }
    )
    return ArrayBags(table, values, mean=0.5, std=0.25), table


class Contender:
    """One of the two in this process: its slides, its step."""

    current: Contender

    def __init__(self, name: str, keeps: bool, threads: int) -> None:
        if keeps:
            keep_freed_memory()
        torch.set_num_threads(threads)
        self.bags, table = make_slides()
        model, self.step = make_ours(self.bags, table) if name == "ours" else make_theirs()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())

    def turn(self) -> float:
        """Return the median time of some steps, when warm."""
        times: list[float] = []
        begin, number = time.perf_counter(), 0
        while len(times) < STEPS:
            batch = self.bags.__getitems__([number % SLIDES])
            start, number = time.perf_counter(), number + 1
            self.step(batch)
            if start - begin > WARM:
                times.append(time.perf_counter() - start)
        return statistics.median(times)


def enter(name: str, keeps: bool) -> Pool:
    """Return a process with a contender in it."""
    pool = multiprocessing.get_context("spawn").Pool(1)
    pool.apply(_enter, (name, keeps, torch.get_num_threads()))
    return pool


def _enter(name: str, keeps: bool, threads: int) -> None:
    Contender.current = Contender(name, keeps, threads)


def _turn() -> float:
    return Contender.current.turn()


def _parameters() -> int:
    return Contender.current.parameters


def compete(ours: Pool, theirs: Pool) -> tuple[list[float], list[float]]:
    """Return the seconds of a step in each turn: theirs, ours."""
    turns = [(theirs.apply(_turn), ours.apply(_turn)) for _ in range(TURNS)]
    published, own = zip(*turns, strict=True)
    return list(published), list(own)


def ratio(published: list[float], own: list[float]) -> float:
    """Return the median of paired ratios."""
    return statistics.median(a / b for a, b in zip(published, own, strict=True))


def main() -> None:
    """Print both times, their ratio and that of the parameters."""
    print(f"slides: one step of recipe G, {TILES} tiles, CPU, {torch.get_num_threads()} threads")
    with enter("ours", True) as ours:
        with enter("published", False) as theirs:
            counts = {"published": theirs.apply(_parameters), "ours": ours.apply(_parameters)}
            published, own = compete(ours, theirs)
        with enter("published", True) as theirs:
            level = ratio(*compete(ours, theirs))
    for name, seconds in (("published", published), ("ours", own)):
        middle = statistics.median(seconds)
        print(f"  {name:<9} {1e3 * middle:6.0f} ms a step   {counts[name]:,} parameters")
    faster, share = ratio(published, own), counts["published"] / counts["ours"]
    tell("speed", f"{faster:.1f}x, median of paired ratios", f"{FASTER:.0f}x", faster >= FASTER)
    print(f"            {level:.1f}x where both keep their memory")
    # attention and head, which are in both, are no sixteenth
    tell("size", f"1/{share:.1f} of its parameters", f"1/{FEWER:.0f}", round(share) >= FEWER)


if __name__ == "__main__":
    main()
