"""The engines by name: how each is built and opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attnvgg.deploy.engines.interface import Engine, Source
from attnvgg.deploy.engines.onnx_engine import OnnxEngine, build_onnx
from attnvgg.deploy.engines.openvino_engine import (
    OpenVINOEngine,
    build_openvino,
    build_openvino_int8,
)
from attnvgg.deploy.engines.store import is_whole, kept, key_of, read_about
from attnvgg.deploy.engines.torch_engine import TorchEngine
from attnvgg.errors import InputError


@dataclass(frozen=True)
class Files:
    """An engine that is built into files.

    Attributes:
        build: writes them into a folder.
        open: makes an engine of the folder, with so many threads.
        packages: that both need.
        names: of the files.
    """

    build: Callable[[Source, Path], None]
    open: Callable[[Path, int | None], Engine]
    packages: tuple[str, ...]
    names: tuple[str, ...]


OPENVINO = ("model.xml", "model.bin")
FROM_FILES = {
    "onnx": Files(build_onnx, OnnxEngine, ("onnx", "onnxscript", "onnxruntime"), ("model.onnx",)),
    "openvino": Files(
        build_openvino, partial(OpenVINOEngine, name="openvino"), ("openvino",), OPENVINO
    ),
    "openvino-int8": Files(
        build_openvino_int8,
        partial(OpenVINOEngine, name="openvino-int8"),
        ("openvino", "nncf"),
        OPENVINO,
    ),
}
MOST_THREADS = 1024
ENGINES = ("eager", "compiled", *FROM_FILES)


def open_engine(
    kind: str,
    source: Source,
    *,
    threads: int | None = None,
    cache: Path | None = None,
    device: str = "cpu",
) -> Engine:
    """Return an engine of a network; its files are built when they are not kept already.

    Args:
        kind: one of `ENGINES`.
        source: the network.
        threads: on the CPU; None: the choice of its library.
        cache: folder of all engines; None: that of the user.
        device: "cpu" or "cuda", of PyTorch.

    Raises:
        InputError: unknown engine, missing package, an engine of the CPU asked for on a GPU, no
            images to calibrate with, or answers too far from those of PyTorch.
    """
    check_available(kind)
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InputError(f"{threads} threads: from 1 to {MOST_THREADS} can be had.")
    if kind not in FROM_FILES:
        return TorchEngine(source, threads, compiled=kind == "compiled", device=device)
    if device != "cpu":
        raise InputError(f"The engine {kind} computes on the CPU: take eager or compiled on a GPU.")
    files = FROM_FILES[kind]

    def build(folder: Path) -> None:
        files.build(source, folder)

    def verify(folder: Path) -> dict[str, Any] | None:
        return None if source.verify is None else source.verify(files.open(folder, None))

    folder = kept(key_of(source, kind, files.packages), kind, build, verify, cache)
    return _opened(folder, read_about(folder), threads)


def open_folder(folder: Path, threads: int | None = None) -> tuple[Engine, dict[str, Any]]:
    """Return the engine in a folder, and what its `engine.json` says.

    Raises:
        InputError: files are missing or damaged, or the package that runs them is.
    """
    about = read_about(folder)
    kind = about.get("kind")
    if kind == "torch":
        raise InputError(
            f"{folder} is a program for torch.export.load, and is not opened here, because that "
            "may unpickle: give the run, or export it --to onnx or openvino."
        )
    if not isinstance(kind, str) or kind not in FROM_FILES:
        raise InputError(f"{folder} holds an engine of another version: {kind}.")
    check_available(kind)
    if not is_whole(folder) or not set(FROM_FILES[kind].names) <= set(about["files"]):
        raise InputError(f"The files in {folder} are not those exported: export the model again.")
    return _opened(folder, about, threads), about


def _opened(folder: Path, about: dict[str, Any], threads: int | None) -> Engine:
    try:
        engine = FROM_FILES[about["kind"]].open(folder, threads)
    except Exception as error:  # each runtime has errors of its own for files that are no model
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"The engine in {folder} cannot be opened: {reason}") from error
    engine.agreement = about.get("agreement")
    return engine


def check_available(kind: str) -> None:
    """Raise InputError where there is no such engine, or what it needs is not installed."""
    if kind not in ENGINES:
        raise InputError(f'There is no engine "{kind}"; choose from {", ".join(ENGINES)} or auto.')
    if missing := missing_packages(kind):
        raise InputError(
            f'The engine {kind} needs {", ".join(missing)}: pip install "attnvgg[export]".'
        )


def missing_packages(kind: str) -> list[str]:
    """Return the packages that an engine needs and that are not installed."""
    packages = FROM_FILES[kind].packages if kind in FROM_FILES else ()
    return [package for package in packages if find_spec(package) is None]
