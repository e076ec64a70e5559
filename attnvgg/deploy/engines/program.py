"""A traced program of PyTorch: written for others, opened here only to be compared.

Reading one may unpickle, so those of strangers are never opened.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from attnvgg.deploy.engines.interface import Engine, Images, Outputs, Source
from attnvgg.deploy.engines.network import traced

PROGRAM = "model.pt2"
LEAST = 64


def build_program(source: Source, folder: Path) -> None:
    """Write the network as a program that `torch.export.load` opens.

    It takes images of `LEAST` pixels a side or more: of smaller ones the last map has one position,
    which PyTorch compiles apart. A model of smaller images is bound to their size.
    """
    if source.side < LEAST:
        source = replace(source, any_size=False)
    torch.export.save(traced(source), folder / PROGRAM)


class ProgramEngine(Engine):
    """A program of PyTorch, of our own making.

    Args:
        path: what `build_program` wrote just now.
    """

    name = "torch"
    words = "PyTorch program (CPU, 32 bits)"

    def __init__(self, path: Path) -> None:
        self.module = torch.export.load(path).module()

    def __call__(self, images: Images) -> Outputs:
        with torch.inference_mode():
            found = self.module(torch.from_numpy(np.ascontiguousarray(images)))
        return tuple(part.numpy() for part in found)
