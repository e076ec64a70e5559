"""A training step on a slide of 16 tiles: ours, tile by tile, against the published network.

The published network flattens the tiles into one vector (see `PublishedSlide`). Both have the same
Adam with the same kernels, take the same slides, and take turns in one process. It needs about
8 GB of memory, almost all of it for the published network.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.cli.common import parse_config
from attnvgg.data.bags import ArrayBags
from attnvgg.training.bag_config import TrainBagsConfig, resolve, settle
from attnvgg.training.build_bags import build_bag_model, make_bag_trainer
from attnvgg.training.checkpoint import Progress
from attnvgg.training.engine import make_accelerator
from attnvgg.training.run_config import updated
from attnvgg.training.steps import train_step
from benchmarks.bags_memory import tell
from benchmarks.baseline import PublishedSlide

TILES, SIDE, SLIDES, WARM = 16, 128, 8, 2
FASTER, FEWER = 8.0, 16.0
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


def main() -> None:
    """Print both times, their ratio and that of the parameters."""
    bags, table = make_slides()
    (ours, our_step), (theirs, their_step) = make_ours(bags, table), make_theirs()
    times: dict[str, list[float]] = {"published": [], "ours": []}
    for number in range(SLIDES):
        batch = bags.__getitems__([number])
        for name, step in (("published", their_step), ("ours", our_step)):
            start = time.perf_counter()
            step(batch)
            times[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(times["published"], times["ours"], strict=True)][WARM:]
    counts = {
        name: sum(parameter.numel() for parameter in model.parameters())
        for name, model in (("published", theirs), ("ours", ours))
    }
    print(f"slides: one step of recipe G, {TILES} tiles, CPU, {torch.get_num_threads()} threads")
    for name, seconds in times.items():
        middle = statistics.median(seconds[WARM:])
        print(f"  {name:<9} {1e3 * middle:6.0f} ms a step   {counts[name]:,} parameters")
    faster = statistics.median(ratios)
    fewer = counts["published"] / counts["ours"]
    tell("speed", f"{faster:.1f}x, median of paired ratios", f"{FASTER:.0f}x", faster >= FASTER)
    # the few thousand of attention and head are in both
    tell("parameters", f"a {fewer:.1f}th", f"a {FEWER:.0f}th", round(fewer) >= FEWER)


if __name__ == "__main__":
    main()
