"""Options of a command line travel as hyperparameters and come back as the same options."""

import json
import subprocess

import pytest

from attnvgg.cli.common import parse_config
from attnvgg.deploy.words import checked, grouped, option, to_hyperparameters, to_words
from attnvgg.errors import InputError
from attnvgg.training.bag_config import TrainBagsConfig

WORDS = [
    "--epochs", "3", "--optim.lr=1e-4", "--optim.name", "sgd", "--pools", "[mean, max]",
    "--data.root=labels.csv", "--data.classes=[a,b]", "--data.redraw", "true", "--threads=null",
    "--model.chunk_size", "auto", "--loss.alpha", "[0.25, 0.75]",
]  # fmt: skip


def test_options_are_grouped_with_their_values():
    assert grouped(["--a", "1", "2", "--b=3"]) == [["--a", "1", "2"], ["--b=3"]]
    assert [option(group) for group in grouped(["--a.b", "1", "--c=3"])] == ["a.b", "c"]
    with pytest.raises(InputError, match="belongs to no option"):
        grouped(["value"])


def test_options_come_back_as_they_went():
    """Through the JSON of the service, as texts by name and in any order."""
    values = to_hyperparameters(WORDS)
    stored = {key: value if isinstance(value, str) else json.dumps(value)
              for key, value in reversed(values.items())}  # fmt: skip
    before = parse_config(TrainBagsConfig, WORDS, "train_bags")
    after = parse_config(TrainBagsConfig, to_words(stored), "train_bags")
    assert after == before
    assert (after.optim.lr, after.pools, after.data.classes) == (1e-4, ("mean", "max"), ("a", "b"))


def test_a_shell_takes_every_name_and_value(tmp_path):
    """The container exports them in a script with `set -e`; a dot in a name would end it."""
    values = to_hyperparameters(WORDS)
    lines = [f"export SM_HP_{key.upper()}='{json.dumps(value)}'\n" for key, value in values.items()]
    (tmp_path / "env").write_text("".join(lines))
    script = f'set -e; source {tmp_path / "env"}; echo "$SM_HP_OPTIM"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20)
    assert json.loads(done.stdout) == {"lr": 1e-4, "name": "sgd"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--redraw"], "needs one value"),
        (["--a", "1", "2"], "needs one value"),
        (["--optim", "x", "--optim.lr", "1"], "said twice"),
        (["--name", "it's"], "no ' in a value"),
        (["--a-b", "1"], "letters, digits and _ only"),
        (["--note", "x" * 2501], "at most 2,500"),
    ],
)
def test_what_cannot_travel_is_refused(words, reason):
    with pytest.raises(InputError, match=reason):
        to_hyperparameters(words)


def test_dotted_names_are_refused():
    with pytest.raises(InputError, match=r"optim\.lr"):
        checked({"optim.lr": 1})
