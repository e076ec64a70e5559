"""Which engine suits this machine."""

from __future__ import annotations

import logging
from pathlib import Path

from attnvgg.deploy.engines.interface import Engine, Source
from attnvgg.deploy.engines.kinds import missing_packages, open_engine
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

AUTO = "auto"
SLOWER = ("openvino-int8", "openvino", "eager")  # what auto takes, and what takes its place
FAST_BYTES = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}  # products of 8-bit numbers
CPUINFO = Path("/proc/cpuinfo")


def choose(device: str, can_calibrate: bool) -> tuple[str, str]:
    """Return the engine for a device, and why it was chosen, in words.

    Args:
        device: "cpu" or "cuda".
        can_calibrate: whether there are images to choose the ranges of 8-bit numbers with.
    """
    if device == "cuda":
        return "eager", "a GPU is there"
    if missing_packages("openvino-int8"):
        return "eager", 'faster ones need pip install "attnvgg[export]"'
    if not (found := FAST_BYTES & features()):
        return "openvino", "this processor has no fast products of 8-bit numbers"
    if not can_calibrate:
        return "openvino", "there are no training images to calibrate 8 bits with"
    return "openvino-int8", f"this processor has {', '.join(sorted(found))}"


def open_chosen(
    kind: str, source: Source, *, threads: int | None, cache: Path | None, device: str
) -> tuple[Engine, str | None]:
    """Open an engine that was chosen, or the next slower one that can be had.

    Args:
        kind: what `choose` returned.
        source: the network.
        threads: see `open_engine`, as for the others.
        cache: folder of all engines.
        device: "cpu" or "cuda".

    Returns:
        The engine, and why it is another one, in words.
    """
    reason = None
    for instead in SLOWER[SLOWER.index(kind) + 1 :]:
        try:
            return open_engine(kind, source, threads=threads, cache=cache, device=device), reason
        except InputError as error:
            logger.warning("%s %s computes instead.", error, instead)
            reason, kind = reason or f"{kind} could not be had", instead
    return open_engine(kind, source, threads=threads, cache=cache, device=device), reason


def features() -> set[str]:
    """Return the instruction sets of this processor, as Linux calls them; empty elsewhere."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    return {
        word
        for line in lines
        if line.partition(":")[0].strip() in ("flags", "Features")
        for word in line.partition(":")[2].split()
    }
