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

WRONG_INPUT = 2
SIGNAL = 128  # and the number of the signal: stopped in good order, but not finished

# The machine said no: the user can change that, a traceback cannot.
MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


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
        0; 2 for wrong input; 143 or 130 when told to stop; 1 for a failed computation.
    """
    _start_logging()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with logging_redirect_tqdm([logger]):
            function((parse or parse_config)(config_class, words, command))
    except (InputError, ArgumentError) as error:
        return _complain(str(error), WRONG_INPUT)
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        where = f": {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror}{where}; nothing is left half-written", WRONG_INPUT)
    except Interrupted as stop:
        return _complain(str(stop), SIGNAL + stop.signum, "interrupted")
    except KeyboardInterrupt:
        return _complain(
            "by Ctrl-C; nothing is left half-written.", SIGNAL + signal.SIGINT, "interrupted"
        )
    except FloatingPointError as error:
        return _complain(str(error), 1)
    return 0


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
