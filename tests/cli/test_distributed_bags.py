"""Two processes on bags: every bag is counted once, and one process finds the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnvgg.cli.evaluate import main as evaluate

ROOT = Path(__file__).parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def torchrun(*options):
    command = [*TORCHRUN, str(ROOT / "scripts" / "train_bags.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def two_processes(feature_options, tmp_path_factory):
    """Two pools of two seeds by two processes; of 18 bags judged, each process has an odd share."""
    out = tmp_path_factory.mktemp("torchrun")
    options = [*feature_options, "--pools=[mean,attention]", "--seeds=2", "--eval_batch_size=4"]
    done = torchrun(*options, f"--out={out}", "--name=two")
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "two", done


def test_every_bag_is_counted_once(two_processes):
    run, _ = two_processes
    manifest = pd.read_csv(run / "manifest.csv")
    wanted = manifest.index[manifest["split"] != "train"].tolist()
    for folder in (run, run / "seed-0", run / "seed-1"):
        assert pd.read_csv(folder / "predictions.csv")["index"].tolist() == wanted


def test_every_instance_is_counted_once(two_processes):
    run, _ = two_processes
    candidates = sorted(run.glob("seed-*/candidates/attention-*/instances.csv"))
    assert len(candidates) == 2
    for path in candidates:
        table = pd.read_csv(path)
        assert not table.duplicated(["index", "instance"]).any()
        np.testing.assert_allclose(table.groupby("index")["weight"].sum(), 1, atol=1e-6)


def test_one_process_finds_the_same(two_processes, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(two_processes[0], run)
    assert evaluate([str(run), "--threads=1", "--device=cpu"]) == 0
    for name in ("predictions.csv", "seed-0/predictions.csv", "seed-1/predictions.csv"):
        before, after = (pd.read_csv(folder / name) for folder in (two_processes[0], run))
        np.testing.assert_allclose(before["probability"], after["probability"], atol=1e-6)
    rows = (run / "seed-1" / "metrics.jsonl").read_text().splitlines()
    best = min((json.loads(row)["validation"] for row in rows), key=lambda row: row["loss"])
    metrics = json.loads((run / "seed-1" / "metrics.json").read_text())
    assert metrics["val"]["auc"]["value"] == pytest.approx(best["auc"], abs=1e-6)


def test_only_one_process_speaks(two_processes):
    _, done = two_processes
    assert done.stdout.count("Run folder:") == 1
    assert done.stdout.count("The average of 2 models:") == 1
