"""One training step at 224 px, batch 16, on the CPU: ours against the tutorial's.

Both start from the same weights and see the same images; losses and weights are compared after
the steps. For the time the two take turns in one process, so that a machine that slows down slows
both; for the memory each runs in a fresh process of its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from attnvgg.data.loaders import TrainingBatches
from attnvgg.models import AttnVGG, FocalLoss
from attnvgg.models.published import published_name
from attnvgg.training.checkpoint import Progress
from attnvgg.training.config import TrainConfig
from attnvgg.training.engine import make_accelerator
from attnvgg.training.optim import make_optimizer, make_scheduler
from attnvgg.training.run_config import OptimConfig
from attnvgg.training.steps import Trainer, train_step
from benchmarks.baseline import TutorialAttnVGG, tutorial_focal_loss

SIZE, BATCH, STEPS, RATE = 224, 16, 5, 1e-4
Step = Callable[[Tensor, Tensor], float]


def make_ours() -> tuple[nn.Module, Step]:
    """Return our model and the very step of `attnvgg train`."""
    torch.manual_seed(0)
    config = TrainConfig(optim=OptimConfig(lr=RATE), device="cpu")
    accelerator = make_accelerator(config)
    model = AttnVGG(1, normalize_attn=True).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model.parameters(), config.optim)
    trainer = Trainer(
        config=config,
        accelerator=accelerator,
        module=model,
        model=model,
        criterion=FocalLoss(2.0, alpha=[0.25, 0.25]),  # the tutorial weights both classes so
        optimizer=accelerator.prepare_optimizer(optimizer),
        scheduler=make_scheduler(optimizer, config.optim, 1, STEPS),
        loader=DataLoader([]),
        batches=TrainingBatches([1], 1),
        case_names=[],
    )

    def step(images: Tensor, labels: Tensor) -> float:
        with accelerator.accumulate(model):
            batch = {"image": images, "label": labels}
            return train_step(trainer, batch, Progress())[0]

    return model, step


def make_tutorial() -> tuple[nn.Module, Step]:
    """Return the tutorial's model with our weights, and its step."""
    ours, _ = make_ours()
    model = TutorialAttnVGG(1, normalize_attn=True)
    model.load_state_dict({published_name(k): v.contiguous() for k, v in ours.state_dict().items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def step(images: Tensor, labels: Tensor) -> float:
        optimizer.zero_grad()
        loss = tutorial_focal_loss(model(images)[0], labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return model.train(), step


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Return the same random batches for both."""
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, 3, SIZE, SIZE)
    return [
        (
            torch.randn(shape, generator=generator),
            torch.randint(0, 2, (BATCH,), generator=generator),
        )
        for _ in range(count)
    ]


def peak_memory(name: str) -> float:
    """Return the peak resident memory in MiB of three steps in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name,))


def _peak(name: str) -> float:
    _, step = {"ours": make_ours, "tutorial": make_tutorial}[name]()
    for images, labels in batches(3):
        step(images, labels)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print times, memory, their ratios, and how far the results are apart."""
    (ours, our_step), (theirs, their_step) = make_ours(), make_tutorial()
    times: dict[str, list[float]] = {"ours": [], "tutorial": []}
    worst = 0.0
    for images, labels in batches(STEPS + 1):
        losses = {}
        for name, step in (("tutorial", their_step), ("ours", our_step)):
            start = time.perf_counter()
            losses[name] = step(images, labels)
            times[name].append(time.perf_counter() - start)
        worst = max(worst, abs(losses["ours"] - losses["tutorial"]))
    seconds = {name: statistics.median(values[1:]) for name, values in times.items()}
    ratios = [a / b for a, b in zip(times["tutorial"][1:], times["ours"][1:], strict=True)]
    memory = {name: peak_memory(name) for name in times}
    same = {published_name(name): weight for name, weight in ours.named_parameters()}
    apart = torch.cat(
        [(same[k] - v).detach().abs().flatten() for k, v in theirs.named_parameters()]
    )

    print(f"train: one step, batch {BATCH}, {SIZE} px, CPU, {torch.get_num_threads()} threads")
    for name in ("tutorial", "ours"):
        print(f"  {name:<9} {seconds[name]:6.2f} s a step   peak {memory[name]:6.0f} MiB")
    print(f"  speed     {statistics.median(ratios):.2f}x the tutorial (median of paired ratios)")
    print(f"  memory    {memory['ours'] / memory['tutorial']:.2f}x the tutorial")
    print(
        f"  results   losses differ by at most {worst:.1e}, weights by {apart.mean():.1e} in the "
        f"mean and {apart.max():.1e} at most, after {STEPS + 1} steps of about {RATE:.0e} each"
    )
