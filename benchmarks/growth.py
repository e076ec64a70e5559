"""What an answer costs at least, what it costs, and how that grows with image size and batch.

The floor is the larger of operations over the measured rate of matrix products and bytes of
weights over the measured rate of reading memory. Winograd's convolutions need fewer operations
than are counted, and may go below it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnvgg.deploy.calibration import of_run
from attnvgg.deploy.engines import open_engine
from attnvgg.deploy.image_source import source_of
from attnvgg.training.checkpoint import load_model, preprocess_of
from benchmarks.infer import seconds, trained_run

SIDES, BATCHES = (96, 160, 224, 320, 448), (1, 4, 16, 32)
NAMES = ("eager", "openvino", "openvino-int8")
GIGA = 1e9


def product_rate(dtype: torch.dtype = torch.float32) -> float:
    """Return operations a second of a large matrix product, of the best of five."""
    a, b = torch.randn(2048, 4608).to(dtype), torch.randn(4608, 512).to(dtype)
    return 2 * 2048 * 4608 * 512 / best(lambda: a @ b, 20)


def byte_product_rate() -> float:
    """Return operations a second of a product of 8-bit numbers."""
    a = torch.randint(-9, 9, (2048, 4608), dtype=torch.int8)
    b = torch.randint(-9, 9, (4608, 512), dtype=torch.int8)
    return 2 * 2048 * 4608 * 512 / best(lambda: torch._int_mm(a, b), 20)


def read_rate() -> float:
    """Return bytes a second of summing up an array far larger than the caches."""
    values = torch.ones(2**28)
    return 4 * 2**28 / best(values.sum, 2)


def best(call: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of five series of calls, a call."""
    found = []
    for _ in range(6):
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        found.append((time.perf_counter() - started) / repeats)
    return min(found[1:])


def operations(model: torch.nn.Module, side: int) -> int:
    """Return the additions and multiplications of one image."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, side, side))
    return int(counter.get_total_flops())


def main() -> None:
    """Print rates, floors, and times by size and batch."""
    run = trained_run()
    model = load_model(run)
    source = source_of(model, preprocess_of(model), *of_run(run))
    engines = {name: open_engine(name, source) for name in NAMES}
    rate, small, reading = product_rate(), byte_product_rate(), read_rate()
    print(
        f"growth: CPU, {torch.get_num_threads()} threads: products of 32 bits "
        f"{rate / GIGA:.0f} G operations/s, of 8 bits {small / GIGA:.0f}; memory "
        f"{reading / GIGA:.1f} GB/s"
    )
    weights = sum(p.numel() for p in model.parameters())
    floor = 4 * weights / reading
    print(f"  {weights / 1e6:.1f} M weights: read once in {1000 * floor:.1f} ms")
    for side in SIDES:
        count = operations(model, side)
        line = f"  {side} px, batch 8: {count / GIGA:.1f} G operations, floor of 32 bits "
        print(f"{line}{1000 * max(count / rate, floor / 8):.1f} ms an image;", end="")
        print(times(engines, 8, side))
    for batch in BATCHES:
        print(f"  batch {batch}, 224 px:{times(engines, batch, 224)}")


def times(engines: dict[str, Callable[[np.ndarray], object]], batch: int, side: int) -> str:
    """Return the milliseconds an image of each engine, medians of five turns, in words."""
    images = np.random.default_rng(0).normal(size=(batch, 3, side, side)).astype(np.float32)
    for engine in engines.values():
        seconds(engine, images, 1)
    rounds = [
        {name: seconds(engine, images, 1) for name, engine in engines.items()} for _ in range(5)
    ]
    found = {name: statistics.median(turn[name] for turn in rounds) for name in engines}
    return ",".join(f" {name} {1000 * value / batch:.1f}" for name, value in found.items())


if __name__ == "__main__":
    main()
