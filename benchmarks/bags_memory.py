"""Bags of very different lengths in one batch: ragged against padded, time and memory.

Ragged and padded take turns in one process, so that a machine that slows down slows both. Memory
is measured in fresh processes, and what a bare process with PyTorch takes is not counted.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attnvgg.models.pooling import GatedAttentionPool
from benchmarks.baseline_bags import PaddedAttention, attention_state

FEATURES, WIDTH = 512, 128
BAGS, LONGEST, ROUNDS = 32, 10_000, 5
STATUS = Path("/proc/self/status")  # of Linux


def tell(what: str, value: str, bar: str, met: bool) -> None:
    """Print one bar and whether it is met."""
    print(f"  {what:<9} {value}   bar {bar}: {'met' if met else 'not met'}")


def resident(field: str) -> float:
    """Return a figure of this process' memory in MiB: RssAnon, VmRSS or its peak VmHWM.

    The peak that `resource` knows begins with that of the process that started this one.
    """
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def afresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def bag_lengths() -> list[int]:
    """Return lengths that are log-uniform in 10..10,000."""
    draws = np.random.default_rng(0).uniform(np.log(10), np.log(LONGEST), BAGS)
    return [round(length) for length in np.exp(draws)]


def make_pool() -> GatedAttentionPool:
    """Return the pool, the same in every process."""
    torch.manual_seed(0)
    return GatedAttentionPool(FEATURES, width=WIDTH)


def ragged_step() -> Callable[[], list[Tensor]]:
    """Return forward and backward on the ragged batch."""
    lengths = bag_lengths()
    pool = make_pool()
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(sum(lengths), FEATURES, generator=generator).requires_grad_()
    offsets = torch.tensor([0, *lengths]).cumsum(0)

    def step() -> list[Tensor]:
        pooled, _ = pool(values, offsets=offsets)
        return _finish(pooled, values, pool)

    return step


def padded_step() -> Callable[[], list[Tensor]]:
    """Return the same on the same bags, padded."""
    lengths = bag_lengths()
    pool = PaddedAttention(FEATURES, WIDTH, bias=True)
    pool.load_state_dict(attention_state(make_pool()))
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(sum(lengths), FEATURES, generator=generator)
    values = pad_sequence(rows.split(lengths), batch_first=True).requires_grad_()
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    del rows

    def step() -> list[Tensor]:
        return _finish(pool(values, mask), values, pool)

    return step


def _finish(pooled: Tensor, values: Tensor, pool: torch.nn.Module) -> list[Tensor]:
    """Go backward, to the instances too, as an encoder needs it; return what is comparable."""
    values.grad = None
    pool.zero_grad()
    pooled.square().sum().backward()
    return [pooled.detach(), torch.cat([p.grad.flatten() for p in pool.parameters()])]


WAYS: dict[str, Callable[[], Callable[[], list[Tensor]]]] = {
    "padded": padded_step,
    "ragged": ragged_step,
}


def batch_peak(way: str) -> float:
    """Return the peak memory in MiB of a batch and two steps, above the bare process."""
    make_pool()
    before = resident("VmRSS")
    step = WAYS[way]()
    step()
    step()
    return resident("VmHWM") - before


def main() -> None:
    """Print times, memory, ratios, and how far the results are apart."""
    lengths = bag_lengths()
    steps = {way: make() for way, make in WAYS.items()}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS + 1):
        for way, step in steps.items():
            start = time.perf_counter()
            step()
            times[way].append(time.perf_counter() - start)
    apart = (steps["padded"]()[0] - steps["ragged"]()[0]).abs().max()
    del steps, step
    ratio = statistics.median(
        a / b for a, b in zip(times["padded"][1:], times["ragged"][1:], strict=True)
    )
    peak = {way: afresh(batch_peak, way) for way in WAYS}
    print(
        f"bags: ragged against padded, {BAGS} bags of {min(lengths)} to {max(lengths):,} x "
        f"{FEATURES}, {sum(lengths):,} instances in all, gated attention {WIDTH}, forward, backward"
    )
    for way, values in times.items():
        middle = statistics.median(values[1:])
        print(f"  {way:<9} {middle:6.3f} s a step   peak {peak[way]:6.0f} MiB")
    print(f"  results   pooled vectors differ by at most {apart:.1e}")
    tell("speed", f"{ratio:.1f}x, median of paired ratios", "3x", ratio >= 3)
    share = peak["ragged"] / peak["padded"]
    tell("memory", f"{share:.2f}x", "0.33x", share <= 1 / 3)
