"""The command: its table, and what it says of wrong options."""

import json
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from attnvgg.cli.audit_mil import explain, main
from attnvgg.training.mil_audit import Structure

QUICK = ["--seeds=1", "--size=400", "--judged=60"]


def test_the_table_as_csv_and_json(tmp_path, capsys):
    options = [*QUICK, "--pools=[max, attention]"]
    for name in ("audit.csv", "audit.json"):
        assert main([*options, f"--output={tmp_path / name}"]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "audit.csv")
    assert table["pool"].tolist() == ["attention", "max (embedding)", "max (instance)"]
    document = json.loads((tmp_path / "audit.json").read_text())
    assert document["settings"]["size"] == 400
    for row, (_, line) in zip(document["pools"], table.iterrows(), strict=True):
        assert row["pool"] in said
        assert row["why"] in said
        for test in ("single_concept", "multi_concept", "false_frequency"):
            (seed,) = row["seeds"][test]
            assert row[f"{test}_train_auc"] == line[f"{test}_train_auc"] == seed["train_auc"]
            assert row[f"{test}_test_auc"] == line[f"{test}_test_auc"] == seed["test_auc"]
            assert row[f"{test}_verdict"] == line[f"{test}_verdict"]
        assert row["respects"] == line["respects"]
    assert [row["lowered"] > 0 for row in document["pools"]] == [True, True, False]
    assert {path.name for path in tmp_path.iterdir()} == {"audit.csv", "audit.json"}


def test_one_level_of_one_pool(tmp_path):
    output = tmp_path / "audit.csv"
    assert main([*QUICK, '--pools=["max (instance)"]', f"--output={output}"]) == 0
    assert pd.read_csv(output)["pool"].tolist() == ["max (instance)"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--pools=[max, minimum]", "minimum"),
        ("--pools=[]", "Known pools"),
        ("--seeds=0", "at least 1 seed"),
        ("--size=1", "2 bags"),
        ("--judged=1", "2 bags"),
        ("--threads=0", "1 thread"),
        ("--output=audit.txt", ".csv or a .json"),
        ("--colour=red", "colour"),
    ],
)
def test_wrong_options(option, message, capsys):
    assert main([*QUICK, option]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("verdict", "structure", "answer", "reason"),
    [
        ("passes", Structure(0, 0), "yes", "no counterexample"),
        ("fails", Structure(0, 0), "no", "absence of a negative"),
        ("weakened", Structure(0, 0), "no", "part of its ranking"),
        ("passes", Structure(0.25, 0), "no", "lower the score (25% of draws); though it passes"),
        ("passes", Structure(0, 0.5), "no", "outscore each of their instances (50% of draws)"),
        ("half learned", Structure(0, 0), "unclear", "half learned"),
        ("not learned", Structure(0.1, 0), "no", "10% of draws"),
    ],
)
def test_what_is_said_and_why(verdict, structure, answer, reason):
    respects, why = explain(verdict, structure)
    assert respects == answer
    assert reason in why


def test_the_script_is_the_command(monkeypatch, capsys):
    script = Path(__file__).parents[2] / "scripts" / "audit_mil.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--pools=[minimum]"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2
    assert "minimum" in capsys.readouterr().err
