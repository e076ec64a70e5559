"""What every command shares: its command line from a dataclass, its logging, its exit codes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings
from tqdm.contrib.logging import logging_redirect_tqdm

from attnvgg.errors import InputError
from attnvgg.training.signals import Interrupted

logger = logging.getLogger("attnvgg")

FAILED = 1
WRONG_INPUT = 2
SIGNAL = 128  # and the number of the signal: stopped in good order, but not finished

EXPECTED = (
    InputError, ArgumentError, OSError, Interrupted, KeyboardInterrupt, FloatingPointError
)  # fmt: skip

# The machine said no: the user can change that, a traceback cannot.
MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ESTALE,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


class Incomplete(InputError):
    """Part of the work could not be done for faults of the input; the rest is done."""


def run_command(
    function: Callable[[Any], None],
    config_class: type[Any],
    argv: Sequence[str] | None,
    command: str,
    parse: Callable[[type[Any], Sequence[str], str], Any] | None = None,
) -> int:
    """Parse the command line into `config_class`, call `function` with it, return the exit code.

    Args:
        function: the command.
        config_class: its options, a frozen dataclass; fields with `positional` in their metadata
            are positional arguments (the value is argparse's `nargs`).
        argv: words of the command line; those of the process if absent.
        command: its name, for the help text.
        parse: turns the words into the options, where `parse_config` is not enough.

    Returns:
        0; 2 for wrong input; 143 or 130 when told to stop; 1 for a failed computation, or one
        that had to leave out part of the input.
    """
    _start_logging()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with logging_redirect_tqdm([logger]):
            function((parse or parse_config)(config_class, words, command))
    except EXPECTED as error:
        return _tell(error)
    return 0


def _tell(error: BaseException) -> int:
    """Say in a sentence what ended the command, and return its exit code."""
    if isinstance(error, Interrupted):
        return _complain(str(error), SIGNAL + error.signum, "interrupted")
    if isinstance(error, KeyboardInterrupt):
        message = "by Ctrl-C; nothing is left half-written."
        return _complain(message, SIGNAL + signal.SIGINT, "interrupted")
    if isinstance(error, FloatingPointError | Incomplete):
        return _complain(str(error), FAILED)
    if isinstance(error, OSError):
        if error.errno not in MACHINE:
            raise error
        where = f": {error.filename}" if error.filename else ""
        advice = "make room or mend the permissions and run again (a training run: --resume it)"
        return _complain(
            f"{error.strerror}{where}; nothing is left half-written: {advice}.", WRONG_INPUT
        )
    return _complain(str(error), WRONG_INPUT)


def parse_with_output(config_class: type[Any], words: Sequence[str], command: str) -> Any:
    """Do as `parse_config`, with -o for --output, and with switches that need no "true"."""
    switches = {f"--{item.name}" for item in fields(config_class) if item.type in (bool, "bool")}
    found = ["--output" if word == "-o" else word for word in words]
    for place, word in enumerate(found):
        if word in switches and found[place + 1 : place + 2] not in (["true"], ["false"]):
            found[place] = f"{word}=true"
    return parse_config(config_class, found, command)


def parse_config(config_class: type[Any], words: Sequence[str], command: str) -> Any:
    """Return the instance of `config_class` that the command line and its YAML file describe."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=f"attnvgg {command}", description=config_class.__doc__, exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    positionals = [item for item in fields(config_class) if "positional" in item.metadata]
    for item in positionals:
        parser.add_argument(item.name, **item.metadata["positional"])
    parser.add_class_arguments(config_class, as_group=False, skip={i.name for i in positionals})
    try:
        values = dict(vars(parser.instantiate(parser.parse_args(words))))
    except UnicodeDecodeError as error:
        raise InputError("The file of --config is not a text file.") from error
    values.pop("config", None)
    return config_class(**values)


def _start_logging() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]  # not one more each time a command is called from Python
    logger.propagate = False
    logger.setLevel(logging.INFO)


def _complain(message: str, code: int, kind: str = "error") -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes, one speaks
        print(f"{kind}: {message}", file=sys.stderr)
    return code
