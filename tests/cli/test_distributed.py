"""Two processes on one machine: the same figures as one, every case counted once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg import FocalLoss
from attnvgg.cli.evaluate import main as evaluate

ROOT = Path(__file__).parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def two_processes(csv_options, tmp_path_factory):
    """A run of one epoch by two processes."""
    out = tmp_path_factory.mktemp("torchrun")
    command = [*TORCHRUN, str(ROOT / "scripts" / "train.py"), *csv_options]
    command += ["--epochs=1", f"--out={out}", "--name=two", "--eval_batch_size=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "two", done


def test_every_case_is_counted_once(two_processes):
    run, _ = two_processes
    table = pd.read_csv(run / "predictions.csv")
    manifest = pd.read_csv(run / "manifest.csv")
    wanted = manifest.index[manifest["split"] != "train"]
    assert table["index"].tolist() == wanted.tolist()
    assert len(table) % 2 == 1, "an odd number, so that a padded sampler would show"


def test_one_process_finds_the_same(two_processes):
    run, _ = two_processes
    before = pd.read_csv(run / "predictions.csv")
    row = json.loads((run / "metrics.jsonl").read_text())["validation"]
    assert evaluate([str(run), "--threads=1", "--device=cpu"]) == 0
    after = pd.read_csv(run / "predictions.csv")
    np.testing.assert_allclose(before["probability"], after["probability"], atol=1e-6)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["val"]["auc"]["value"] == pytest.approx(row["auc"], abs=1e-6)


def test_validation_judged_the_weights_that_were_saved(two_processes):
    """Each process has statistics of its own; the validation must not mix them."""
    run, _ = two_processes
    row = json.loads((run / "metrics.jsonl").read_text())["validation"]
    table = pd.read_csv(run / "predictions.csv")
    table = table[table["split"] == "val"]
    logits, labels = (torch.tensor(table[name].to_numpy()) for name in ("logit", "label"))
    assert row["loss"] == pytest.approx(float(FocalLoss(2.0)(logits, labels)), abs=1e-6)


def test_bad_input_is_told_once_and_does_not_hang(pictures, tmp_path):
    command = [*TORCHRUN, str(ROOT / "scripts" / "train.py"), "--data.source=csv"]
    command += [f"--data.root={pictures}", f"--out={tmp_path}", "--batch_size=7"]
    command += ["--model.weights=null", "--device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert done.stderr.count("error: --batch_size 7 cannot be shared") == 1


def test_only_one_process_speaks(two_processes):
    _, done = two_processes
    assert done.stdout.count("Run folder:") == 1
