"""Two processes on bags: weights and figures of one, every bag counted once, one writer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train_bags import main as train

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

# What may part two processes from one. Training has 18 bags of 2 to 7 instances: batches of 8
# leave two of them, and the halves of a batch differ in length. Of 18 bags judged, validation
# and test have 9 each, so that one process judges more than the other.
RECIPES = {
    "ragged": ["--batch_size=8"],
    "penalties": ["--batch_size=8", "--loss.elastic_net=0.1", "--loss.gamma=2", "--optim.clip=0.1"],
    "accumulated": ["--batch_size=4", "--accumulate=2", "--optim.average=0.9"],
    "streamed": ["--batch_size=6", "--model.chunk_size=4", "--optim.name=adamw"],
    "streamed_max": ["--batch_size=6", "--model.chunk_size=4", "--model.pool=max"],
    "one_bag_each": ["--batch_size=2", "--model.pool=noisy_and", "--optim.name=sgd"],
    "branches": ["--batch_size=8", "--model.pool=multi_branch", "--model.num_classes=2"],
}  # fmt: skip
SEEDS = ["--batch_size=8", "--pools=[mean,attention]", "--seeds=2", "--epochs=1"]


@pytest.fixture(scope="module")
def runs(feature_options, tmp_path_factory):
    """Folders of runs by one process and by two that share no disk, and what the two said."""
    out = tmp_path_factory.mktemp("processes")
    common = [*feature_options, "--epochs=3", "--patience=null", "--eval_batch_size=4"]
    plan = {name: [*common, *options] for name, options in RECIPES.items()}
    for name, options in plan.items():
        assert train([*options, f"--out={out / 'alone'}", f"--name={name}"]) == 0
    (out / "plan.json").write_text(json.dumps(plan | {"seeds": [*common, *SEEDS]}))
    command = [*TORCHRUN, str(HERE / "two_processes.py"), str(out / "plan.json"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[:3000]
    return out, done


def state_of(run):
    return torch.load(run / "last" / "state.pt", weights_only=True)


@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_are_those_of_one_process(runs, name):
    """After all steps, of the same global batches. None of these models has batch norm."""
    alone, together = (state_of(runs[0] / by / name) for by in ("alone", "process-0"))
    for part in ("model", "average") if name == "accumulated" else ("model",):
        weights, others = alone["states"][part], together["states"][part]
        assert weights.keys() == others.keys()
        for key, values in weights.items():
            torch.testing.assert_close(others[key], values, rtol=0, atol=1e-5, msg=key)
    assert alone["states"]["scheduler"]["_step_count"] > 3


@pytest.mark.parametrize("name", RECIPES)
def test_the_figures_of_every_epoch_are_those_of_one_process(runs, name):
    """Of all cases that were trained on, and of the whole validation set."""
    alone, together = (
        [
            json.loads(row)
            for row in (runs[0] / by / name / "metrics.jsonl").read_text().splitlines()
        ]
        for by in ("alone", "process-0")
    )
    assert len(alone) == len(together) == 3
    for row, other in zip(alone, together, strict=True):
        for part in ("train", "validation"):
            assert other[part] == pytest.approx(row[part], abs=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_every_bag_and_instance_is_judged_once(runs, name):
    for table in ("predictions.csv", "instances.csv"):
        paths = [runs[0] / by / name / table for by in ("alone", "process-0")]
        if not paths[0].is_file():  # these pools say nothing of instances
            assert not paths[1].is_file()
            continue
        alone, together = map(pd.read_csv, paths)
        pd.testing.assert_frame_equal(together, alone, rtol=0, atol=1e-5)


def test_one_process_writes_and_the_other_needs_nothing_of_its_disk(runs):
    """The other one's folder is not even made, and nothing of a file that was begun is left."""
    out, _ = runs
    assert not (out / "process-1").exists()
    for run in (out / "process-0").iterdir():
        assert not [path for path in run.rglob(".*") if path.name != ".lock"]
    events = list((out / "process-0" / "ragged" / "tensorboard").iterdir())
    assert len(events) == 1


def test_every_bag_is_counted_once_in_every_seed(runs):
    run = runs[0] / "process-0" / "seeds"
    manifest = pd.read_csv(run / "manifest.csv")
    wanted = manifest.index[manifest["split"] != "train"].tolist()
    for folder in (run, run / "seed-0", run / "seed-1"):
        assert pd.read_csv(folder / "predictions.csv")["index"].tolist() == wanted


def test_every_instance_is_counted_once(runs):
    candidates = sorted((runs[0] / "process-0").glob("seeds/seed-*/candidates/*/instances.csv"))
    assert len(candidates) == 2, "of the pool that has weights, one a seed"
    for path in candidates:
        table = pd.read_csv(path)
        assert not table.duplicated(["index", "instance"]).any()
        np.testing.assert_allclose(table.groupby("index")["weight"].sum(), 1, atol=1e-6)


def test_one_process_judges_them_the_same(runs, tmp_path):
    before, run = runs[0] / "process-0" / "seeds", tmp_path / "copy"
    shutil.copytree(before, run)
    assert evaluate([str(run), "--threads=1", "--device=cpu"]) == 0
    for name in ("predictions.csv", "seed-0/predictions.csv", "seed-1/predictions.csv"):
        first, again = (pd.read_csv(folder / name) for folder in (before, run))
        np.testing.assert_allclose(first["probability"], again["probability"], atol=1e-6)


def test_only_one_process_speaks(runs):
    _, done = runs
    assert done.stdout.count("Run folder:") == len(RECIPES) + 1
    assert done.stdout.count("The average of 2 models:") == 1
