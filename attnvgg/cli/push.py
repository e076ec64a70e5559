"""`attnvgg push`: a trained model and its card onto the Hugging Face hub."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnvgg.cli.common import parse_with_output, run_command
from attnvgg.deploy.card import training_data
from attnvgg.deploy.engines.store import ABOUT
from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.models.card_text import card_markdown
from attnvgg.models.hub import TOKEN, is_repository, push, write_folder
from attnvgg.training.checkpoint import load_model

logger = logging.getLogger(__name__)

MODEL = {"type": str, "help": "run folder, saved model, its file, or owner/name on the hub"}
REPOSITORY = {"type": str, "help": "owner/name on the hub; made if it does not exist"}


@dataclass(frozen=True)
class PushConfig:
    """Upload a model with a generated model card: tells what it would do, does it with --run true.

    The token is that of the variable HF_TOKEN.
    """

    model: str = field(metadata={"positional": MODEL})
    repository: str = field(metadata={"positional": REPOSITORY})
    private: bool = True
    """Of a repository that is made: only you can see it. An existing one stays as it is."""
    license: str | None = None
    """Identifier known to the hub, such as mit; null: none is claimed."""
    card: Path = Path("model_card.md")
    """Where the card is written, to be read before it is uploaded."""
    run: bool = False
    """true: really upload; else only tell what would be uploaded."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(push_model, PushConfig, argv, "push", parse_with_output)


def push_model(config: PushConfig) -> None:
    """Write the card, tell what is uploaded, and with `run` upload it."""
    if not is_repository(config.repository):
        raise InputError(f"{config.repository} is no name of a repository: give owner/name.")
    if config.card.suffix.lower() != ".md" or config.card.is_dir():
        raise InputError(f"--card {config.card}: must be a file that ends with .md")
    place = Path(config.model)
    if (place / ABOUT).is_file():
        raise InputError(f"{place} was exported for one runtime: give the run that it is of.")
    model: Any = load_model(place if place.exists() else config.model)
    about = model.describe(config.repository, training_data(place, model.config))
    card = card_markdown(about, license=config.license)
    with atomic_path(config.card) as temporary:
        temporary.write_text(card, encoding="utf-8")
    _tell(config, model, card)
    if config.run:
        address = push(model, config.repository, card, private=config.private)
        logger.info("Uploaded: %s", address)
        return
    logger.info("This was a dry run: nothing is uploaded without --run true and %s.", TOKEN)


def _tell(config: PushConfig, model: Any, card: str) -> None:
    """Say which files go where."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_folder(model, Path(folder), card)
    seen = "private" if config.private else "public"
    logger.info("Model card, to be read first: %s", config.card)
    logger.info("To https://huggingface.co/%s (%s if new):", config.repository, seen)
    for name, size in files.items():
        logger.info("  %-18s %12s bytes", name, f"{size:,}")
