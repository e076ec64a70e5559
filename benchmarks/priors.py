"""What a prior on attention does, on the built-in SYNTHETIC sample, which has masks.

`python benchmarks/priors.py --help`. It trains Mel-CNN, AttnMel, +Lesion and +Background with
several seeds each, both priors with the weights of the paper and with larger ones. The larger ones
are chosen on validation, with the first seed: of those that do not take the AUC below the interval
of AttnMel, the one whose maps overlap the lesions most. Test is looked at afterwards. Called again,
it goes on where it ended. A table is printed, and `priors.json` written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from attnvgg.cli.common import run_command  # noqa: E402
from attnvgg.cli.train import main as train  # noqa: E402
from attnvgg.data.images import ImageDataset  # noqa: E402
from attnvgg.data.manifest import read_manifest  # noqa: E402
from attnvgg.data.sample import make_sample  # noqa: E402
from attnvgg.evaluation import read_predictions  # noqa: E402
from attnvgg.evaluation.bootstrap import group_bootstrap  # noqa: E402
from attnvgg.evaluation.paired import auc_difference  # noqa: E402
from attnvgg.explain.localisation import localise  # noqa: E402
from attnvgg.files import atomic_path  # noqa: E402
from attnvgg.training.checkpoint import load_model  # noqa: E402

POOLS = ("pool-3", "pool-4")
PLAIN = "AttnMel"


@dataclass(frozen=True)
class PriorsConfig:
    """Train all arms of the paper on the synthetic sample and print their table."""

    out: Path = Path("runs/priors")
    """Folder of all runs."""
    root: Path = Path("data/sample")
    """The sample; painted if it is not there."""
    count: int = 2000
    """Pictures of a sample that is painted."""
    size: int = 512
    """Their side in pixels."""
    seeds: int = 3
    """Models an arm."""
    larger: tuple[tuple[float, float], ...] = ((0.01, 0.1), (0.1, 1.0), (1.0, 1.0))
    """Weights of pool-3 and pool-4 that are tried beside those of the paper."""
    options: tuple[str, ...] = ()
    """Options of training that all arms share, such as --epochs=3."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    return run_command(compare, PriorsConfig, argv, "priors")


def compare(config: PriorsConfig) -> None:
    """Train, choose, judge, print."""
    make_sample(config.root, count=config.count, size=config.size)
    lesion, background = _arm("lesion"), _arm("background")
    arms = {"Mel-CNN": _arm("melcnn"), PLAIN: [], "+Lesion": lesion, "+Background": background}
    folders = {name: _trained(config, name, words, config.seeds) for name, words in arms.items()}
    tried = {
        weights: _trained(config, f"tried-{_short(weights)}", [*lesion, _say(weights)], seeds=1)
        for weights in config.larger
    }
    chosen, choice = _choose(folders[PLAIN] / "seed-0", tried)
    for name, words in (("+Lesion", lesion), ("+Background", background)):
        title = f"{name} {_short(chosen)}"
        folders[title] = _trained(config, title, [*words, _say(chosen)], config.seeds)
    rows = _judge(folders)
    content = {"synthetic": True, "choice": choice, "chosen": list(chosen), "arms": rows}
    with atomic_path(config.out / "priors.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(_table(rows, config.seeds))
    for line in choice:
        print(line)


def _arm(name: str) -> list[str]:
    return ["--config", str(ROOT / "configs" / f"arm_{name}.yaml")]


def _say(weights: tuple[float, float]) -> str:
    return f"--loss.prior_weights=[{weights[0]},{weights[1]}]"


def _short(weights: tuple[float, float]) -> str:
    return f"{weights[0]:g}/{weights[1]:g}".replace("/", "-")


def _trained(config: PriorsConfig, name: str, words: Sequence[str], seeds: int) -> Path:
    """Return the folder of a finished run, trained as far as it is not yet."""
    run = config.out / name.replace(" ", "-")
    done = run / ("summary.json" if seeds > 1 else "metrics.json")
    if done.is_file():
        return run
    if (run / "config.yaml").is_file():
        code = train(["--resume", str(run)])
    else:
        sample = ["--data.source=sample", f"--data.root={config.root.absolute()}", "--seed=0"]
        place = [f"--out={config.out}", f"--name={run.name}", f"--seeds={seeds}"]
        code = train([*words, *sample, *config.options, *place])
    if code:
        sys.exit(code)
    return run


def _choose(
    plain: Path, tried: dict[tuple[float, float], Path]
) -> tuple[tuple[float, float], list[str]]:
    """Return the larger weights that validation asks for, and why in words."""
    auc = _metrics(plain)["val"]["auc"]
    floor = auc["value"] if auc["lower"] is None else auc["lower"]
    lines, best, highest = [f"Validation AUC must reach {floor:.4f}, one seed:"], None, -1.0
    for weights, run in tried.items():
        auc = _metrics(run)["val"]["auc"]["value"]
        overlap = float(np.nanmean(_overlaps(run, "val")[0]))
        lines.append(f"  {_short(weights)}: AUC {auc:.4f}, mean Jaccard of both maps {overlap:.4f}")
        if auc >= floor and overlap > highest:
            best, highest = weights, overlap
    if best is None:
        best = min(tried)
        lines.append("None does: the smallest is taken.")
    return best, [*lines, f"Chosen: {_short(best)}"]


def _overlaps(run: Path, split: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the Jaccard of the maps of pool-3 and pool-4 with the lesion, (n, 2), and the cases.

    Min-max and threshold .5, as in the paper; NaN where a mask is empty.
    """
    model: Any = load_model(run)
    cases = read_manifest(run / "manifest.csv")
    cases = cases[cases["split"] == split].reset_index(drop=True)
    dataset = ImageDataset(cases, model.preprocess)
    maps: list[list[np.ndarray]] = [[], []]
    masks, known = [], []
    with torch.inference_mode():
        for sample in dataset:
            _, *found = model(sample["image"][None])
            for kept, attention in zip(maps, found, strict=True):
                kept.append(attention[0, 0].numpy())
            masks.append(sample["mask"][0].numpy())
            known.append(sample["has_mask"])
    found = [localise(np.stack(one), np.stack(masks), known).inside[:, 0] for one in maps]
    return np.stack(found, axis=1), cases


def _judge(folders: dict[str, Path]) -> dict[str, Any]:
    """Return the figures of each arm on test, and its differences from AttnMel."""
    rows: dict[str, Any] = {}
    overlaps: dict[str, np.ndarray] = {}
    reference = _test(folders[PLAIN])
    for name, run in folders.items():
        table = _test(run)
        summary = json.loads((run / "summary.json").read_text())["test"]
        rows[name] = {key: summary[key] for key in ("auc", "average_precision")}
        rows[name]["auc_of_the_average"] = _metrics(run)["test"]["auc"]
        if name != PLAIN:
            difference = auc_difference(
                table["label"], table["probability"], reference["probability"], table["group"]
            )
            rows[name]["auc_difference"] = difference
        if name == "Mel-CNN":
            continue  # it has no maps
        found = [_overlaps(folder, "test") for folder in sorted(run.glob("seed-*"))]
        overlaps[name] = np.stack([values for values, _ in found])  # (seeds, n, 2)
        cases = found[0][1]
        rows[name]["jaccard"] = _intervals(overlaps[name], cases)
        if name != PLAIN:
            assert PLAIN in overlaps  # it stands before all that have maps
            rows[name]["jaccard_difference"] = _intervals(overlaps[name] - overlaps[PLAIN], cases)
    return rows


def _intervals(values: np.ndarray, cases: pd.DataFrame) -> dict[str, Any]:
    """Return for each pool the mean over images and seeds, its interval over patients, its spread.

    Args:
        values: (seeds, n, 2).
        cases: (n,).
    """
    found = {}
    for number, pool in enumerate(POOLS):
        each = values[:, :, number].mean(axis=0)
        kept = np.isfinite(each)
        sums = np.stack([each[kept], np.ones(kept.sum())], axis=1)
        positive = cases["label"].to_numpy()[kept] > 0
        whole = group_bootstrap(sums, positive, lambda s: s[:, 0] / s[:, 1], cases["group"][kept])
        seeds = values[:, kept, number].mean(axis=1)
        found[pool] = {**asdict(whole), "seeds": seeds.tolist()}
    return found


def _table(rows: dict[str, Any], seeds: int) -> str:
    """Return the table as Markdown."""
    lines = [
        f"SYNTHETIC sample, test, mean of {seeds} seeds ± standard deviation; in brackets 95 %: of "
        "the AUC of the averaged models (Obuchowski), of the Jaccard by patients (bootstrap).",
        "",
        "| | AP | AUC | averaged models: AUC | against AttnMel | Jaccard pool-3 | pool-4 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [_spread(row["average_precision"]), _spread(row["auc"])]
        cells.append(_interval(row["auc_of_the_average"]))
        cells.append(_interval(row["auc_difference"], "+") if "auc_difference" in row else "")
        cells += [_interval(row["jaccard"][p]) if "jaccard" in row else "-" for p in POOLS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(figures: dict[str, Any]) -> str:
    return f"{figures['mean']:.4f} ± {figures['deviation']:.4f}"


def _interval(found: dict[str, Any], sign: str = "") -> str:
    if found["lower"] is None:
        return f"{found['value']:{sign}.4f}"
    return f"{found['value']:{sign}.4f} ({found['lower']:{sign}.4f} to {found['upper']:{sign}.4f})"


def _test(run: Path) -> pd.DataFrame:
    table = read_predictions(run / "predictions.csv")
    return table[table["split"] == "test"]


def _metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


if __name__ == "__main__":
    sys.exit(main())
