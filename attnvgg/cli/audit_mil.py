"""`attnvgg audit_mil`: which bag pools keep to "a bag is positive iff one of its instances is"."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from attnvgg.cli.common import run_command
from attnvgg.data.mil_tests import TESTS
from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.training.mil_audit import (
    Budget,
    Structure,
    audit_learning,
    audit_structure,
    builder,
    judge,
    pool_variants,
)

logger = logging.getLogger(__name__)

STANDARD = "single_concept"  # the test of the assumption itself; the others assume two concepts
SHORT = {"single_concept": "single", "multi_concept": "multi", "false_frequency": "frequency"}

LEGEND = """\
lowered: share of random weights and bags where one more instance lowered the score of a bag
exceeded: share of them where a bag outscored each of its instances alone
flipped: share of detected positive bags lost by adding one instance that only negatives had
single: AUC where the cue helps > where it misleads; the standard assumption, which decides
multi, frequency: the same where a bag is positive iff it holds two concepts, another assumption"""


@dataclass(frozen=True)
class AuditMilConfig:
    """Test which bag pools keep to "a bag is positive iff one of its instances is"."""

    pools: list[str] | None = None
    """Names as in a model, of which each level is tested, or one level: "max (instance)"; null:
    all."""
    seeds: int = 3
    """Models a test; the worst decides."""
    size: int = 30_000
    """Bags to learn from, each seen once."""
    judged: int = 1000
    """Bags of each kind to be judged on."""
    output: Path = Path("mil_audit.csv")
    """Table to write, .csv or .json (which also holds the figures of each seed)."""
    threads: int = 1
    """CPU threads; the models are too small for more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(audit_mil, AuditMilConfig, argv, "audit_mil")


def audit_mil(config: AuditMilConfig) -> None:
    """Audit the pools, write the table and log it."""
    variants = choose_pools(config.pools)
    if min(config.seeds, config.threads) < 1 or min(config.size, config.judged) < 2:
        raise InputError("The audit needs at least 1 seed, 1 thread and 2 bags on either side.")
    if config.output.suffix not in (".csv", ".json"):
        raise InputError(f"--output {config.output}: the table is a .csv or a .json file.")
    torch.set_num_threads(config.threads)
    budget = Budget(config.size, config.judged)
    rows = [
        _audit(name, spec, config.seeds, budget)
        for name, spec in tqdm(variants.items(), desc="audit", unit="pool", disable=None)
    ]
    _write(rows, config)
    table = pd.DataFrame([_shown(row) for row in rows])
    logger.info("%s", table.to_string(index=False, float_format="{:.2f}".format, na_rep="-"))
    logger.info(LEGEND)
    for row in rows:
        logger.info("%s: %s.", row["pool"], row["why"])
    logger.info("Written: %s", config.output)


def choose_pools(names: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Return the specs of the pools asked for, by the name of their row.

    Raises:
        InputError: a name that no pool has.
    """
    variants = pool_variants()
    if names is None:
        return variants
    wanted = {row: spec for row, spec in variants.items() if row in names or spec["name"] in names}
    known = {*variants, *(spec["name"] for spec in variants.values())}
    strangers = [name for name in names if name not in known]
    if strangers or not wanted:
        raise InputError(f"Known pools are {', '.join(variants)}; unknown:", strangers)
    return wanted


def explain(verdict: str, structure: Structure) -> tuple[str, str]:
    """Return whether a pool keeps to the assumption ("yes", "no", "unclear"), and why.

    Args:
        verdict: of the test of the standard assumption; the other tests assume something else.
        structure: what the search for counterexamples found.
    """
    lowered, exceeded = structure
    found = {
        "it took the absence of a negative instance for a positive one": verdict == "fails",
        "negative instances cost it part of its ranking": verdict == "weakened",
        f"one more instance can lower the score ({lowered:.0%} of draws)": lowered > 0,
        f"bags can outscore each of their instances ({exceeded:.0%} of draws)": exceeded > 0,
    }
    reasons = [reason for reason, holds in found.items() if holds]
    if reasons:
        passed = ["though it passes the learned test"] if verdict == "passes" else []
        return "no", "; ".join([*reasons, *passed])
    if verdict != "passes":
        return "unclear", f"no counterexample found, but the learned test says: {verdict}"
    return "yes", "no counterexample found, and it did not follow the misleading cue"


def _audit(name: str, spec: Mapping[str, Any], seeds: int, budget: Budget) -> dict[str, Any]:
    """Return the row of one pool.

    Of each test: the verdict, means over the seeds, the lowest test AUC, and the figures of each
    seed, which are only written to JSON.
    """
    build = builder(spec)
    row: dict[str, Any] = {"pool": name}
    details = {}
    for test in TESTS:
        results = [audit_learning(build, test, seed, budget) for seed in range(seeds)]
        flips = [result.flipped for result in results if result.flipped is not None]
        row |= {
            f"{test}_verdict": judge(results, budget.judged),
            f"{test}_train_auc": float(np.mean([result.train_auc for result in results])),
            f"{test}_test_auc": float(np.mean([result.test_auc for result in results])),
            f"{test}_lowest_test_auc": min(result.test_auc for result in results),
            f"{test}_flipped": float(np.mean(flips)) if flips else None,
        }
        details[test] = [result._asdict() for result in results]
    structure = audit_structure(build, seed=0)
    respects, why = explain(row[f"{STANDARD}_verdict"], structure)
    return {**row, **structure._asdict(), "respects": respects, "why": why, "seeds": details}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what fits on the log: of each test `train AUC > test AUC verdict`."""
    shown = {key: row[key] for key in ("pool", "respects", "lowered", "exceeded")}
    shown["flipped"] = row[f"{STANDARD}_flipped"]
    for test, short in SHORT.items():
        train, turned = row[f"{test}_train_auc"], row[f"{test}_test_auc"]
        shown[short] = f"{train:.2f} > {turned:.2f} {row[f'{test}_verdict']}"
    return shown


def _write(rows: Sequence[Mapping[str, Any]], config: AuditMilConfig) -> None:
    with atomic_path(config.output) as temporary:
        if config.output.suffix == ".csv":
            pd.DataFrame(rows).drop(columns="seeds").to_csv(temporary, index=False)
        else:
            settings = {**asdict(config), "output": str(config.output)}
            text = json.dumps({"settings": settings, "pools": rows}, indent=2, allow_nan=False)
            temporary.write_text(text + "\n")
