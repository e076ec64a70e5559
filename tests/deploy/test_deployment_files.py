"""Dockerfile, compose file and entry point: what can be known of them without Docker."""

import configparser
import json
import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from attnvgg.deploy.endpoint import TOKEN
from attnvgg.deploy.serving.limits import Limits
from attnvgg.deploy.serving_simulator import ENTRY, VARIABLES

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "docker"
MOUNT = "/opt/ml/model"  # where SageMaker puts a model


def instructions():
    """Return (word, rest) of each instruction of the Dockerfile, lines joined, comments gone."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


def last_stage():
    """Return what makes the image itself, not what is left behind."""
    found = instructions()
    start = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    return found[start + 1 :]


@pytest.fixture(scope="module")
def service():
    content = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    (only,) = content["services"].values()
    return only


def test_the_base_is_the_plain_official_image():
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert set(bases) == {"python:3.11-slim"}


def test_nothing_is_added_from_the_network_and_all_that_is_copied_exists():
    stages = [rest.split()[-1] for word, rest in instructions() if word == "FROM"]
    assert "ADD" not in {word for word, _ in instructions()}
    defaults = dict(rest.split("=") for word, rest in instructions() if word == "ARG")
    for word, rest in instructions():
        if word != "COPY":
            continue
        *sources, _ = [part for part in rest.split() if not part.startswith("--")]
        if "--from=" in rest:
            assert re.search(r"--from=(\w+)", rest)[1] in stages
            continue
        for source in sources:
            name = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], source)
            assert (ROOT / name).exists(), name


def test_what_is_copied_is_sent_to_docker_and_no_data_or_secrets():
    lines = (ROOT / ".dockerignore").read_text().split()
    lines = [line for line in lines if not line.startswith("#") and re.match(r"[*!]", line)]
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert lines[0] == "*"  # all is left out that is not named

    def is_sent(name):
        return any(fnmatch(name, kind) or name.startswith(f"{kind}/") for kind in kept)

    wanted = ["attnvgg", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", ENTRY]
    assert all(map(is_sent, [*wanted, "docker/model", "runs/main/best"]))
    unwanted = [
        "data",
        ".git",
        "runs/main/last",
        "docker/token.env",
        "tests",
        "docker/compose.yaml",
    ]
    assert not any(map(is_sent, unwanted))
    assert "/docker/token.env" in (ROOT / ".gitignore").read_text().split()


def test_the_image_runs_as_nobody_special():
    users = [rest for word, rest in last_stage() if word == "USER"]
    (user,) = users
    assert int(user) > 0  # a number: Kubernetes' runAsNonRoot can check it
    after = last_stage()[[word for word, _ in last_stage()].index("USER") :]
    assert not {"RUN", "COPY"} & {word for word, _ in after}
    made = " ".join(rest for word, rest in last_stage() if word == "RUN")
    assert f"--uid {user}" in made


def test_the_image_is_watched_by_ping_and_started_by_the_word_that_sagemaker_says():
    found = dict(last_stage())
    options, command = found["HEALTHCHECK"].split("CMD")
    program = json.loads(command)
    assert program[:2] == ["python", "-c"]
    compile(program[2], "HEALTHCHECK", "exec")
    assert "http://127.0.0.1:8080/ping" in program[2]
    assert "--start-period=" in options
    assert json.loads(found["CMD"]) == ["serve"]
    assert "ENTRYPOINT" not in found  # `serve` is looked for in PATH
    assert found["EXPOSE"] == "8080"
    assert found["STOPSIGNAL"] == "SIGTERM"


def test_all_that_the_image_writes_lies_below_tmp_and_the_simulator_sets_the_same():
    (text,) = [rest for word, rest in last_stage() if word == "ENV"]
    variables = dict(pair.split("=", 1) for pair in text.split())
    del variables["PATH"]
    told = {key: value.replace("TEMPORARY", "/tmp") for key, value in VARIABLES.items()}
    assert variables == told
    assert {"HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"} <= set(variables)
    assert TOKEN not in variables


def test_the_ranges_of_pytorch_are_those_of_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    ranges = {line for line in lines if line.startswith(("torch>", "torchvision>"))}
    (command,) = [rest for _, rest in instructions() if "download.pytorch.org" in rest]
    assert set(re.findall(r'"([^"]+)"', command)) == ranges
    assert "--index-url https://download.pytorch.org/whl/cpu" in command  # not beside PyPI


def test_the_extras_of_the_image_exist():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    (command,) = [rest for _, rest in instructions() if 'install ".[' in rest]
    extras = re.search(r"\.\[([\w,]+)\]", command)[1].split(",")
    assert set(extras) <= set(config["options.extras_require"])
    assert {"serve", "web", "export"} <= set(extras)


def test_compose_takes_away_what_the_server_does_not_need(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert [place.split(":")[0] for place in service["tmpfs"]] == ["/tmp"]
    assert "privileged" not in service


def test_compose_shows_the_port_to_this_machine_only_and_mounts_the_model_read_only(service):
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    (volume,) = service["volumes"]
    assert (volume["target"], volume["read_only"]) == (MOUNT, True)
    assert volume["source"].startswith("${MODEL:?")  # a missing one is told


def test_compose_builds_this_image_and_takes_the_token_from_a_file(service):
    build = service["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert service["env_file"] == ["token.env"]
    assert TOKEN not in str(service.get("environment", ""))
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > Limits().seconds + 2  # of a request that was accepted


LIMIT = ["--limits.seconds", "25"]  # SageMaker kills 30 s after it has said stop


def run_entry(tmp_path, *words, **variables):
    """Run the entry point with a command of ours that says how it was called."""
    program = tmp_path / "attnvgg"
    program.write_text('#!/bin/sh\necho "$$"\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    process = subprocess.Popen(
        [ROOT / ENTRY, *words], stdout=subprocess.PIPE, text=True,
        env={"PATH": f"{tmp_path}:{os.defpath}", **variables},
    )  # fmt: skip
    said = process.communicate(timeout=10)[0].split("\n")
    assert process.returncode == 0
    return int(said[0]) == process.pid, said[1:-1]


def test_the_entry_point_becomes_the_server_so_that_it_gets_the_signal(tmp_path):
    assert os.access(ROOT / ENTRY, os.X_OK)
    is_same, words = run_entry(tmp_path)
    assert is_same
    assert words == ["serve", MOUNT, "--host", "0.0.0.0", "--port", "8080", *LIMIT]


def test_the_entry_point_takes_port_and_more_options(tmp_path):
    _, words = run_entry(
        tmp_path, "--threads", "2", SAGEMAKER_BIND_TO_PORT="9000", ATTNVGG_MODEL="/a model"
    )
    wanted = ["serve", "/a model", "--host", "0.0.0.0", "--port", "9000", *LIMIT]
    assert words == [*wanted, "--threads", "2"]
