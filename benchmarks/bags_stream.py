"""A bag of a million instances on the disk, pooled exactly: time, memory, and the same result.

The time is held against what no way can do without: reading the file, or the multiplications and
additions at the rate of this machine's products of large matrices, whichever takes longer.
"""

from __future__ import annotations

import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnvgg.models import BagClassifier
from benchmarks.bags_memory import FEATURES, WIDTH, afresh, resident, tell
from benchmarks.baseline_bags import PaddedAttention, attention_state

INSTANCES, DENSE, PART = 1_000_000, 50_000, 50_000
CHUNK = 65536  # what `auto` is for features
ROUNDS, SIDE = 3, 2048
MEMORY_BAR, TIME_BAR, EQUAL_BAR = 300, 1.5, 1e-5
# V and U, w, weighted sum: a multiplication and an addition each. Backward does it once more, and
# as much again for the gradients.
OPERATIONS = 2 * (2 * FEATURES * WIDTH + WIDTH + FEATURES)
PASSES = {"forward": 1, "forward, backward": 3}


class Timing(NamedTuple):
    """Medians of one kind of pass: seconds, seconds over those of the bound, and peak in MiB."""

    seconds: float
    ratio: float
    peak: float


def make_model() -> BagClassifier:
    """Return gated attention over features, the same in every process."""
    torch.manual_seed(0)
    encoder = {"name": "identity", "in_features": FEATURES}
    model = BagClassifier(encoder, {"name": "gated_attention", "width": WIDTH})
    model.chunk_size = CHUNK
    return model


def run_pass(model: BagClassifier, kind: str, instances: object) -> None:
    """Do one pass over a bag."""
    with torch.set_grad_enabled(kind != "forward"):
        logits = model(instances).logits
        if logits.requires_grad:
            logits.sum().backward()


def read_seconds(path: Path) -> float:
    """Return how long the file takes to read."""
    buffer = bytearray(2**23)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def product_rate(repeats: int = 20) -> float:
    """Return multiplications and additions a second, in products of large matrices."""
    left, right, out = torch.randn(3, SIDE, SIDE).unbind()
    torch.mm(left, right, out=out)
    start = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right, out=out)
    return repeats * 2 * SIDE**3 / (time.perf_counter() - start)


@contextmanager
def peak_anonymous(found: list[float]) -> Iterator[None]:
    """Append to `found` the most anonymous memory in MiB above the start, looking every 2 ms."""
    start = highest = resident("RssAnon")
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, resident("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        found.append(max(highest, resident("RssAnon")) - start)


def measure(path: str, kind: str) -> Timing:
    """Return the figures of one kind of pass; to be called in a process of its own.

    Memory is taken in the first round, before anything of the size of a chunk was allocated; its
    time is not counted.
    """
    model, bag = make_model(), np.load(path, mmap_mode="r")
    run_pass(model, kind, torch.zeros(2, FEATURES)[None])
    peaks: list[float] = []
    with peak_anonymous(peaks):
        run_pass(model, kind, bag)
    times, ratios = [], []
    for _ in range(ROUNDS):
        operations = len(bag) * OPERATIONS * PASSES[kind]
        rates = [product_rate()]
        start = time.perf_counter()
        run_pass(model, kind, bag)
        times.append(time.perf_counter() - start)
        rates.append(product_rate())
        bound = max(read_seconds(Path(path)), operations / statistics.mean(rates))
        ratios.append(times[-1] / bound)
    return Timing(statistics.median(times), statistics.median(ratios), peaks[0])


def difference() -> float:
    """Return how far streamed and dense are apart, results and gradients, in the worst entry.

    Relative to the largest entry of each: pooled vector, gradients of V, U and w.
    """
    bag = torch.randn(DENSE, FEATURES, generator=torch.Generator().manual_seed(1))
    model = make_model()
    dense = PaddedAttention(FEATURES, WIDTH, bias=True)
    dense.load_state_dict(attention_state(model.pool))
    heads = torch.randn(FEATURES, 1, generator=torch.Generator().manual_seed(2))
    streamed_bag, dense_bag = bag.clone().requires_grad_(), bag.clone().requires_grad_()
    model.head = torch.nn.Identity()
    pooled = model(streamed_bag, torch.tensor([0, DENSE])).logits
    (pooled @ heads).sum().backward()
    expected = dense(dense_bag[None])
    (expected @ heads).sum().backward()
    gradients = {name: p.grad for name, p in dense.named_parameters()}
    found = _gradient_state(model)
    pairs: list[tuple[Tensor, Tensor]] = [(pooled, expected), (streamed_bag.grad, dense_bag.grad)]
    pairs += [(found[name], gradient) for name, gradient in gradients.items()]
    return max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in pairs)


def _gradient_state(model: BagClassifier) -> dict[str, Tensor]:
    """Return the gradients of V, U and w under the names of the dense way."""
    with torch.no_grad():
        for parameter in model.pool.parameters():
            parameter.copy_(parameter.grad)
    return attention_state(model.pool)


def write_bag(path: Path) -> None:
    """Write a bag of normal numbers, a part at a time."""
    shape = (INSTANCES, FEATURES)
    bag = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    part = np.random.default_rng(0).standard_normal((PART, FEATURES), dtype=np.float32)
    for start in range(0, INSTANCES, PART):
        bag[start : start + PART] = part[: INSTANCES - start]
        part = np.roll(part, 7, axis=1)  # drawing two gigabytes would take longer than pooling
    bag.flush()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is deleted on errors too, and when the process is told to stop."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Print the figures; the file is deleted whatever happens."""
    size = 4 * INSTANCES * FEATURES
    print(f"bags: a bag of {INSTANCES:,} x {FEATURES} from a memory map, gated attention {WIDTH}")
    apart = difference()
    value = f"{apart:.1e}, streamed against dense on {DENSE:,} instances, with all gradients"
    tell("equality", value, f"{EQUAL_BAR:.0e}", apart <= EQUAL_BAR)
    with temporary_folder() as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.1 * size:
            print(
                f"  skipped: {folder} has {free / 1e9:.1f} GB free, and the bag takes "
                f"{size / 1e9:.1f} GB: choose another place with TMPDIR."
            )
            return
        path = folder / "bag.npy"
        write_bag(path)
        for kind in PASSES:
            seconds, ratio, peak = afresh(measure, str(path), kind)
            print(f"  {kind}: {seconds:.2f} s")
            tell("time", f"{ratio:.2f}x the bound", f"{TIME_BAR}x", ratio <= TIME_BAR)
            tell(
                "memory",
                f"{peak:.0f} MiB above the start",
                f"{MEMORY_BAR} MB",
                peak * 2**20 <= MEMORY_BAR * 1e6,
            )
