"""OpenVINO: in 32 bits, and quantised to 8 by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from attnvgg.deploy.engines.interface import Engine, Images, Outputs, Source
from attnvgg.deploy.engines.network import traced
from attnvgg.errors import InputError

FILE = "model.xml"
FEWEST = 16  # images to calibrate with


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """Keep OpenVINO and NNCF from reporting their use to Google Analytics, as they do unasked.

    The one place in which they look for a refusal, beside a file in the user's home, is the
    variable of build servers.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        del os.environ["CI"]
        if before is not None:
            os.environ["CI"] = before


@unreported()
def build_openvino(source: Source, folder: Path) -> None:
    """Write the network as OpenVINO's two files, in 32 bits."""
    import openvino

    openvino.save_model(_converted(source), folder / FILE, compress_to_fp16=False)


@unreported()
def build_openvino_int8(source: Source, folder: Path) -> None:
    """Write the network as OpenVINO's two files, its convolutions in 8 bits.

    Ranges are those seen on the calibration images.

    Raises:
        InputError: there are too few of them.
    """
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    _core()  # before NNCF has cores of its own come and go
    images = source.calibration() if callable(source.calibration) else source.calibration
    single = [image[None] for batch in images or () for image in batch]
    if len(single) < FEWEST:
        raise InputError(
            f"8 bits are calibrated on training images: {len(single)} are too few, give at least "
            f"{FEWEST}."
        )
    for name in ("nncf", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)  # nothing in them is for users
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantised = nncf.quantize(
            _converted(source),
            nncf.Dataset(single),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(single),
            fast_bias_correction=False,
            # From the least to the largest value seen. The default, their mean over images, cuts
            # off what is strongest in each: ten times the error of the probability on the sample.
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    openvino.save_model(quantised, folder / FILE, compress_to_fp16=False)


def _converted(source: Source) -> Any:
    import openvino

    model = openvino.convert_model(traced(source), verbose=False)
    side = -1 if source.any_size else source.side
    shape = [-1, source.channels, side, side]
    model.reshape({model.input(0): openvino.PartialShape(shape)})
    return model


@lru_cache(maxsize=1)
def _core() -> Any:
    """Return the one core of this process, its plugin loaded.

    With the last core the plugin is unloaded, and what it has left to be called at a fork is called
    all the same: the next process that is started ends this one.
    """
    import openvino

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


class OpenVINOEngine(Engine):
    """OpenVINO on the CPU.

    Args:
        folder: what one of the builders wrote.
        threads: None: as OpenVINO chooses.
        name: openvino or openvino-int8.
    """

    def __init__(self, folder: Path, threads: int | None, name: str) -> None:
        import openvino

        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",  # all cores on one batch
            "INFERENCE_PRECISION_HINT": "f32",  # else 16 bits, where the processor has them
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self.name = name
        self.model = _core().compile_model(folder / FILE, "CPU", settings)
        self.count = len(self.model.outputs)
        self.own = threading.local()
        bits = "8 bits" if name.endswith("int8") else "32 bits"
        self.words = f"OpenVINO {openvino.__version__.partition('-')[0]} (CPU, {bits})"

    def __call__(self, images: Images) -> Outputs:
        if not hasattr(self.own, "request"):
            self.own.request = self.model.create_infer_request()
        request = self.own.request
        request.infer([np.ascontiguousarray(images)], share_inputs=True)
        return tuple(request.get_output_tensor(n).data.copy() for n in range(self.count))
