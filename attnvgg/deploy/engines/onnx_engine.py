"""ONNX: the file, and ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attnvgg.deploy.engines.interface import Engine, Images, Outputs, Source
from attnvgg.deploy.engines.network import traced

FILE = "model.onnx"


def build_onnx(source: Source, folder: Path) -> None:
    """Write the network as one ONNX file (opset 20), its weights inside."""
    import torch

    with _quiet():
        program = torch.onnx.export(traced(source), dynamo=True, external_data=False, verbose=False)
    assert program is not None
    program.save(str(folder / FILE), external_data=False)


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU.

    Args:
        folder: what `build_onnx` wrote.
        threads: None: one a physical core.
    """

    name = "onnx"

    def __init__(self, folder: Path, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(
            str(folder / FILE), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.words = f"ONNX Runtime {onnxruntime.__version__} (CPU, 32 bits)"

    def __call__(self, images: Images) -> Outputs:
        return tuple(self.session.run(None, {self.input: images}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own insides from users."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
