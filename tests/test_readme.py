"""The README is true: its snippets run, its commands exist, its links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from attnvgg.cli.common import parse_config, parse_with_output
from attnvgg.cli.main import COMMANDS
from attnvgg.training.bag_options import TrainBagsConfig

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "data/README.md",
    *ROOT.glob("docs/*.md"),
]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands(path):
    """Every command of ours in the page, as words after the script's or the command's name."""
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("#")[0].split("&&"):
                words = shlex.split(part)
                for i, word in enumerate(words):
                    if re.fullmatch(r"scripts/\w+\.py", word):
                        said = words[i + 1 :]
                        yield Path(word).stem, [one for one in said if not one.startswith("$")]
                    elif word == "attnvgg" and i == 0:
                        yield words[1], words[2:]


@pytest.mark.parametrize("snippet", blocks(ROOT / "README.md", "python"))
def test_snippets_run(snippet, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "runs/NAME")
    cv2.imwrite("photo.jpg", np.full((80, 60, 3), 120, np.uint8))
    exec(compile(snippet, "README.md", "exec"), {})


def test_snippets_show_what_they_say():
    """Shapes in the comments are those that the code gives."""
    space = {}
    exec(blocks(ROOT / "README.md", "python")[0], space)
    line = re.search(r"= model\(images\) +# (.*)", (ROOT / "README.md").read_text())
    shapes = ", ".join(str(tuple(space[name].shape)) for name in ("logits", "attn1", "attn2"))
    assert line[1] == shapes


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(*found, id=" ".join([found[0], *found[1]]))
        for page in PAGES
        for found in commands(page)
    ],
)
def test_commands_parse(command, words):
    """Each command of the documentation exists, with those options."""
    import importlib

    assert command in COMMANDS
    assert (ROOT / "scripts" / f"{command}.py").is_file()
    module = importlib.import_module(f"attnvgg.cli.{command}")
    config = next(
        value for name, value in vars(module).items()
        if name.endswith("Config") and value.__name__.lower().startswith(command[:5])
    )  # fmt: skip
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    if command != "launch_sagemaker":
        parse_with_output(config, words, command)
        return
    _, theirs = module.parse_launch(config, words, command)  # the rest is for the training script
    parse_config(TrainBagsConfig, theirs, "train_bags")


def test_the_test_command_is_found_by_ci():
    block = (ROOT / "README.md").read_text().split("<!-- tests -->")[1].split("```")[1]
    assert "pytest" in block
    assert block.count("python3 -m venv") == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_option_file_is_packaged_or_named():
    """The recipes that the README names exist."""
    for name in re.findall(r"configs/\w+\.yaml", (ROOT / "README.md").read_text()):
        assert (ROOT / name).is_file()
