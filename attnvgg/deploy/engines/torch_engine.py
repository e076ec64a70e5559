"""PyTorch itself: as it is, or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from attnvgg.deploy.engines.interface import Engine, Images, Source
from attnvgg.deploy.engines.interface import Outputs as Arrays
from attnvgg.deploy.engines.network import Outputs, folded


class TorchEngine(Engine):
    """PyTorch with batch normalisation folded, in channels-last order; on a GPU in 16 bits.

    Args:
        source: the network.
        threads: on the CPU; None: as PyTorch has it. It counts for the whole process.
        compiled: let Inductor write code for it, within the first call for each rank of sizes.
        device: "cpu" or "cuda".
    """

    def __init__(
        self, source: Source, threads: int | None, *, compiled: bool = False, device: str = "cpu"
    ) -> None:
        self.name = "compiled" if compiled else "eager"
        self.device = torch.device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        network = Outputs(folded(source.network)).to(self.device).eval()
        self.network = network.to(memory_format=torch.channels_last)
        self.compute: Callable[..., Any] = self.network
        if compiled:
            options: dict[str, Any] = {"freezing": self.device.type == "cpu"}
            self.compute = torch.compile(self.network, dynamic=True, options=options)
        where = "GPU, 16 bits" if self.device.type == "cuda" else "CPU, 32 bits"
        self.words = f"PyTorch {'compiled' if compiled else 'eager'} ({where})"

    def __call__(self, images: Images) -> Arrays:
        tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        tensor = tensor.contiguous(memory_format=torch.channels_last)
        half = self.device.type == "cuda"
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=half):
            found = self.compute(tensor)
        return tuple(part.float().cpu().numpy() for part in found)
