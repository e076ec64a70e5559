"""The GPU path: images a second in training and in use, against the published loop.

Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnvgg.deploy.engines import Source, open_engine
from attnvgg.models import AttnVGG, FocalLoss
from benchmarks.baseline import TutorialAttnVGG, tutorial_focal_loss

SIZE, BATCH, STEPS, ROUNDS = 224, 100, 10, 5
GIGA = 1e9
Step = Callable[[], object]


def product_rate(dtype: torch.dtype) -> float:
    """Return operations a second of a large matrix product."""
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    return 2 * 8192**3 / seconds(lambda: a @ a, 20)


def seconds(step: Step, repeats: int) -> float:
    """Return the seconds of one step, all work on the device included."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


def published_step(images: Tensor, labels: Tensor) -> Step:
    """Return the tutorial's step: 32 bits, channels first."""
    model = TutorialAttnVGG(1, normalize_attn=True).cuda().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        tutorial_focal_loss(model(images)[0], labels).backward()
        optimizer.step()

    return step


def our_step(images: Tensor, labels: Tensor, *, compiled: bool) -> Step:
    """Return ours: bf16, channels last, fused Adam, perhaps compiled."""
    model: nn.Module = AttnVGG(1, normalize_attn=True).cuda().train()
    model = model.to(memory_format=torch.channels_last)
    criterion = FocalLoss(2.0, alpha=[0.25, 0.25]).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    last = images.contiguous(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits = forward(last)[0]
        criterion(logits.float(), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    """Print images a second, the share of the ceiling, and the ratio to the published loop."""
    if not torch.cuda.is_available():
        print("gpu: PyTorch sees no GPU: not run.")
        return
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.randn(BATCH, 3, SIZE, SIZE, device="cuda")
    labels = torch.randint(0, 2, (BATCH,), device="cuda")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        AttnVGG(1).cuda().eval()(images[:1])
    each = 3 * counter.get_total_flops()
    half = product_rate(torch.bfloat16)
    torch.backends.cuda.matmul.allow_tf32 = True  # as cuDNN's convolutions have it by default
    single = product_rate(torch.float32)
    print(
        f"gpu: {torch.cuda.get_device_name()}: products {half / GIGA:.0f} G operations/s (bf16), "
        f"{single / GIGA:.0f} (TF32)"
    )
    ways = {
        "published": published_step(images, labels),
        "ours": our_step(images, labels, compiled=False),
        "ours compiled": our_step(images, labels, compiled=True),
    }
    rounds = [{name: seconds(step, STEPS) for name, step in ways.items()} for _ in range(ROUNDS)]
    for name in ways:
        rate = BATCH / statistics.median(found[name] for found in rounds)
        ratios = [found["published"] / found[name] for found in rounds]
        ceiling = single if name == "published" else half
        print(
            f"  training, {name}: {rate:.0f} images/s, {100 * rate * each / ceiling:.0f}% of the "
            f"ceiling, {statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"
        )
    in_use(images)
    augmentation()


def in_use(images: Tensor) -> None:
    """Print images a second of the engine that a predictor takes, transfers included."""
    model = AttnVGG(1, normalize_attn=True).eval()
    engine = open_engine("eager", Source(model, "AttnVGG", SIZE), device="cuda")
    theirs = TutorialAttnVGG(1, normalize_attn=True).cuda().eval()
    pixels = images.cpu().numpy()

    def published() -> None:
        with torch.no_grad():
            theirs(torch.from_numpy(pixels).cuda())[0].cpu()

    pairs = [(seconds(published, STEPS), seconds(lambda: engine(pixels), STEPS)) for _ in range(5)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"  in use: {BATCH / statistics.median(b for _, b in pairs):.0f} images/s, {ratio:.2f}x")


def augmentation() -> None:
    """Print whether the loader keeps up: images a second that one process prepares."""
    import numpy as np

    from attnvgg.data.augmentation import augmentation as make
    from attnvgg.data.transforms import Preprocess

    preprocess = Preprocess(SIZE, SIZE)
    augment = make("tutorial", preprocess)
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 4), np.uint8)
    started = time.perf_counter()
    for _ in range(300):
        preprocess.normalise(augment(image=pixels)["image"])
    rate = 300 / (time.perf_counter() - started)
    print(f"  augmentation of cached images: {rate:.0f} images/s a loader process")


if __name__ == "__main__":
    main()
