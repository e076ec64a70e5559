"""Words of a command line and hyperparameters of a training job: two spellings of the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from attnvgg.errors import InputError

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def grouped(words: Sequence[str]) -> list[list[str]]:
    """Return each option with its values: `["--a", "1", "--b=2"]` is `[["--a", "1"], ["--b=2"]]`.

    Raises:
        InputError: a value before the first option.
    """
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            groups.append([word])
        elif groups:
            groups[-1].append(word)
        else:
            raise InputError(f"{word!r} belongs to no option: options begin with --.")
    return groups


def option(group: Sequence[str]) -> str:
    """Return the name of an option: that of `["--optim.lr=1"]` is `optim.lr`."""
    return group[0].removeprefix("--").partition("=")[0]


def to_hyperparameters(words: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line as hyperparameters.

    An option of a group goes into a mapping, `optim.lr` into `{"optim": {"lr": ...}}`: SageMaker's
    container writes every name into a shell's environment, where a dot ends the job.

    Raises:
        InputError: an option without a value, or one that the container cannot be told.
    """
    found: dict[str, Any] = {}
    for group in grouped(words):
        name, _, attached = group[0].removeprefix("--").partition("=")
        values = [*([attached] if "=" in group[0] else []), *group[1:]]
        if len(values) != 1:
            raise InputError(f"--{name} needs one value to travel to a job, not {len(values)}.")
        *parents, leaf = name.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"--{parent} is said twice, as a whole and in parts.")
        place[leaf] = _value(values[0])
    return checked(found)


def checked(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse what breaks the shell script with which the container hands them over.

    Raises:
        InputError: listing them.
    """
    names = [name for name in hyperparameters if not PLAIN.fullmatch(name)]
    quoted = [name for name, value in hyperparameters.items() if "'" in as_text(value)]
    long = [name for name, value in hyperparameters.items() if len(as_text(value)) > 2500]
    wrong = [f"{name}: letters, digits and _ only" for name in names]
    wrong += [f"{name}: no ' in a value" for name in quoted]
    wrong += [f"{name}: at most 2,500 characters" for name in long]
    if wrong:
        raise InputError("SageMaker cannot hand over these hyperparameters:", wrong)
    return dict(hyperparameters)


def to_words(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return hyperparameters as a command line, as the container's driver does."""
    named = ((f"--{name}", as_text(value)) for name, value in hyperparameters.items())
    return [word for pair in named for word in pair]


def as_text(value: Any) -> str:
    """Return a value as the service keeps it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str) -> Any:
    """Return lists, mappings, numbers, truth values and null as such, and all else as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    if text[:1] not in ("[", "{"):
        return text
    try:
        return yaml.safe_load(text)  # [mean, max], as on a command line
    except yaml.YAMLError:
        return text
