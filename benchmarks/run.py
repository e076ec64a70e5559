"""Ours against the tutorial's way, as ratios: `python benchmarks/run.py [names]`."""

import importlib
import os
import sys
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks are not installed

NAMES = (
    "data",
    "train",
    "overlays",
    "bags",
    "slides",
    "evaluation",
    "audit",
    "infer",
    "predict",
    "frozen",
    "growth",
    "gpu",
    "bags_infer",
    "serve",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks, all when none is named."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"error: no benchmark {', '.join(unknown)}; choose from {', '.join(NAMES)}")
        return 2
    for name in names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
