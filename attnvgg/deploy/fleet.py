"""Slides spread over processes (torchrun) and over a Ray cluster."""

from __future__ import annotations

import datetime
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed

from attnvgg.deploy.extraction import Outcome, Pace, extract
from attnvgg.deploy.feature_settings import FeatureSettings
from attnvgg.deploy.slide_job import LOOK
from attnvgg.deploy.tile_encoders import EncoderChoice, open_encoder
from attnvgg.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = datetime.timedelta(days=30)  # the first process to finish waits for the last


class Process(NamedTuple):
    """One of the processes that torchrun has started, or the only one.

    Attributes:
        rank: its number over all machines.
        local_rank: its number on this machine.
        world: how many there are.
    """

    rank: int
    local_rank: int
    world: int

    def from_first(self, make: Callable[[], Result]) -> Result:
        """Return what the first process makes, in every process.

        Raises:
            InputError, OSError: it could not, also in every process: none waits for it in vain.
        """
        made: list[Any] = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except (InputError, OSError) as error:
                made[1] = error
        if self.world > 1:
            torch.distributed.broadcast_object_list(made)
        result: Result = made[0]
        if made[1] is not None:
            raise made[1]
        return result

    def gather(self, item: Item) -> list[Item]:
        """Return what each process has, in every process; waits for the last."""
        if self.world == 1:
            return [item]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, item)
        return found


@contextmanager
def joined_process() -> Iterator[Process]:
    """Join the other processes of torchrun, where there are some, until the end of the block."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Process(0, 0, 1)
        return
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Process(int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), world)
    finally:
        torch.distributed.destroy_process_group()


def share_of(slides: Sequence[Path], process: Process) -> list[Path]:
    """Return the slides of one process: dealt from the largest file to the smallest, and back.

    Args:
        slides: the same in every process.
        process: whose share it is.
    """
    ordered = sorted(slides, key=lambda path: (-_size(path), path))
    turns = [*range(process.world), *reversed(range(process.world))]
    return [
        path for number, path in enumerate(ordered) if turns[number % len(turns)] == process.rank
    ]


def _size(slide: Path) -> int:
    return slide.stat().st_size if slide.exists() else 0  # a broken link is told when it is opened


def over_ray(
    setup: Callable[[], Callable[[Item], Result]],
    items: Sequence[Item],
    gpus: bool | None,
    between: Callable[[], None] = lambda: None,
    lost: Callable[[Item], Result] | None = None,
) -> Iterator[Result]:
    """Yield what workers on a Ray cluster make of items, as each is done.

    The cluster is that of `RAY_ADDRESS` or of this machine, or else is started here and ended
    with the work. There is a worker a GPU or a CPU core; each gets the next item when it is done
    with one. A worker that is lost is started again with the item that it had, three times.

    Args:
        setup: called once in each worker; returns what is called with the items.
        items: what to work on.
        gpus: whether a worker needs a GPU; None: where the cluster has some.
        between: called twice a second; may raise to stop.
        lost: what an item gives that no worker outlives; otherwise that is an error.

    Raises:
        InputError: Ray is missing, or the cluster has no GPU; whatever a call raises.
    """
    if not items:
        return
    ray = _ray()
    begun_here = not ray.is_initialized()
    if begun_here:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        there = ray.cluster_resources()
        kind = "GPU" if gpus or (gpus is None and there.get("GPU", 0) >= 1) else "CPU"
        if not (places := int(there.get(kind, 0))):
            raise InputError(f"The Ray cluster has no {kind}: use --device cpu, or wait for one.")
        worker = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=int(kind == "GPU"), max_restarts=-1, max_task_retries=3
        )
        idle = [worker.remote(setup) for _ in range(min(places, len(items)))]
        yield from _work(ray, idle, deque(items), between, lost)
    finally:
        if begun_here:
            ray.shutdown()


def slide_worker(
    choice: EncoderChoice, out: Path, settings: FeatureSettings, pace: Pace
) -> Callable[[Path], Outcome]:
    """Open the encoder on the machine where this runs; return what extracts one slide there.

    Args:
        choice: of the encoder.
        out: folder of the feature files, as all machines see it.
        settings: which tiles.
        pace: how they are read and computed; the device "auto" is a GPU where there is one.
    """
    if pace.device == "auto":
        pace = replace(pace, device="cuda" if torch.cuda.is_available() else "cpu")
    encoder = open_encoder(choice)
    return lambda slide: next(extract([slide], out, encoder, settings, pace))


def _work(
    ray: ModuleType,
    idle: list[Any],
    items: deque[Item],
    between: Callable[[], None],
    lost: Callable[[Item], Any] | None,
) -> Iterator[Any]:
    """Keep every worker busy with one item, and yield results as they come."""
    busy: dict[Any, tuple[Any, Item]] = {}
    while items or busy:
        while items and idle:
            worker, item = idle.pop(), items.popleft()
            busy[worker.run.remote(item)] = worker, item
        ready, _ = ray.wait(list(busy), timeout=LOOK)
        between()
        for reference in ready:
            worker, item = busy.pop(reference)
            idle.append(worker)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayActorError:
                if lost is None:
                    raise
                yield lost(item)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError | OSError):
                    raise error.cause from None
                raise


class _Worker:
    """What runs on the cluster: set up once, then called with one item after another."""

    def __init__(self, setup: Callable[[], Callable[[Any], Any]]) -> None:
        self.call = setup()

    def run(self, item: Any) -> Any:
        return self.call(item)


def _ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError:
        raise InputError('A Ray cluster needs ray: pip install "attnvgg[fleet]".') from None
    module: ModuleType = ray
    return module
