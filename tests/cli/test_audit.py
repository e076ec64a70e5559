"""The command: where its cases come from, what it writes, and its exit code."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from attnvgg.cli.audit import main
from attnvgg.data.manifest import read_manifest, write_manifest
from attnvgg.data.sample import make_sample


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The folder of a small synthetic sample; read only."""
    return make_sample(tmp_path_factory.mktemp("audited") / "sample", 60, 3, workers=1, size=64)


@pytest.fixture
def audited(photographs, tmp_path):
    """A manifest of it with the split of training."""
    options = ["--data.source=kaggle", f"--data.root={photographs}", f"--out={tmp_path / 'first'}"]
    assert main(options) == 0
    from attnvgg.data.sources import load_source
    from attnvgg.data.splits import split_manifest

    write_manifest(split_manifest(load_source("kaggle", photographs)), tmp_path / "cases.csv")
    return tmp_path / "cases.csv"


def report_in(folder):
    return json.loads((folder / "audit.json").read_text())


def test_a_source_is_split_as_for_training(photographs, tmp_path, capsys):
    options = ["--data.source=kaggle", f"--data.root={photographs}", f"--out={tmp_path}"]
    assert main([*options, "--data.fractions=[0.6,0.2,0.2]"]) == 0
    report = report_in(tmp_path)
    assert sum(report["classes"]["val"].values()) == pytest.approx(12, abs=2)
    assert "split drawn as for training" in report["origin"]
    said = capsys.readouterr()
    assert (tmp_path / "audit.txt").read_text() in said.out + "\n"
    assert said.err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "audit.txt"}


def test_a_leak_is_exit_code_1_and_everything_is_written(audited, tmp_path, capsys):
    table = read_manifest(audited)
    row = table[table["split"] == "train"].iloc[0].to_dict()
    shutil.copy(row["image"], tmp_path / "copy.jpg")
    table.loc[len(table)] = row | {"image": str(tmp_path / "copy.jpg"), "split": "test"}
    write_manifest(table, audited)
    assert main([str(audited), f"--out={tmp_path / 'out'}"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: The split leaks: 1 group")
    assert "1 the same file" in said.err
    assert "copy.jpg" in said.out
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"audit.json", "audit.txt", "audit.png"}
    assert report_in(tmp_path / "out")["leak"]


def test_the_sheet_of_an_older_audit_does_not_stay(audited, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audit.png").write_bytes(b"old")
    assert main([str(audited), f"--out={tmp_path / 'out'}"]) == 0
    assert not (tmp_path / "out" / "audit.png").exists()


def test_a_table_without_a_split_gets_one(audited, tmp_path):
    table = pd.read_csv(audited).drop(columns="split")
    table.to_csv(audited, index=False)
    assert main([str(audited), f"--out={tmp_path / 'out'}"]) == 0
    assert set(report_in(tmp_path / "out")["classes"]) == {"train", "val", "test"}


def test_a_run(trained, tmp_path):
    """Its discs are painted so alike that copies may be found; its split is that of the run."""
    assert main([str(trained), f"--out={tmp_path}"]) in (0, 1)
    report = report_in(tmp_path)
    assert report["images"] == 62
    counts = read_manifest(trained / "manifest.csv")["split"].value_counts()
    assert {side: sum(n.values()) for side, n in report["classes"].items()} == counts.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing.csv"], "missing.csv does not exist"),
        (["."], "no config.yaml"),
        (["--data.source=csv"], "--data.root"),
        (["--shown=-1"], "0 or more"),
        (["--data.source=csv", "--data.root=missing.csv"], "missing.csv does not exist"),
        (["--colour=red"], "colour"),
    ],
)
def test_wrong_input(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_folds_are_audited_one_by_one(tmp_path, capsys):
    (tmp_path / "run" / "fold-0").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("task: images\n")
    assert main([str(tmp_path / "run"), f"--out={tmp_path}"]) == 2
    assert f"such as {tmp_path / 'run' / 'fold-0'}." in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--data.root=x"], ["--data.source=csv"]])
def test_one_thing_at_a_time(options, audited, capsys):
    assert main([str(audited), *options]) == 2
    assert "not both at once" in capsys.readouterr().err


def test_what_could_not_be_found_is_said(audited, tmp_path, capsys):
    table = read_manifest(audited)
    write_manifest(table.assign(split="train"), tmp_path / "one.csv")
    assert main([str(tmp_path / "one.csv"), f"--out={tmp_path / 'out'}"]) == 0
    assert "NOT LOOKED FOR: leaks, for training has no other side here (train)." in (
        capsys.readouterr().out
    )
    write_manifest(table.drop(columns="group"), tmp_path / "nobody.csv")
    assert main([str(tmp_path / "nobody.csv"), f"--out={tmp_path / 'out'}"]) == 0
    assert "NOT LOOKED FOR: patients on two sides, for none are known" in capsys.readouterr().out


def test_a_run_on_bags_is_refused(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("task: bags\n")
    assert main([str(tmp_path)]) == 2
    assert "trained on bags" in capsys.readouterr().err


def test_the_script_is_the_command(monkeypatch, capsys):
    script = Path(__file__).parents[2] / "scripts" / "audit.py"
    monkeypatch.setattr(sys, "argv", [str(script), "missing.csv"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2
    assert "missing.csv" in capsys.readouterr().err
