"""Models that save themselves to a folder and come back from a folder or a hub."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.models import hub
from attnvgg.models.card import Kind, model_card
from attnvgg.models.card_text import card_markdown
from attnvgg.models.weights import State, digest, load_state, read_state

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
SUFFIX = ".safetensors"
RESERVED = {"format": int, "class": str, "arguments": dict, "digest": str}


class Pretrained(nn.Module):
    """A model that knows the arguments it was built with.

    Attributes:
        config: format, class, arguments, and whatever was saved beside them (preprocessing,
            threshold, metrics, classes).

    Args:
        arguments: what the constructor needs to build the same model without weights, as JSON.
    """

    config: dict[str, Any]
    kind: Kind = "images"  # what is classified
    preprocess: Callable[..., torch.Tensor]  # image -> (3, H, W), set by `attnvgg.load_model`

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.config = {"format": FORMAT, "class": type(self).__name__, "arguments": arguments}

    def save_pretrained(self, folder: str | os.PathLike[str], **extra: Any) -> None:
        """Write `model.safetensors` and `config.json`, each whole or not at all.

        The configuration is written into the file of weights too. When a save over an older one
        is cut between the two files, loading notices and takes the one that belongs to the
        weights.

        Args:
            folder: created when absent; an earlier model in it is replaced.
            extra: JSON entries added to `config`, in place of those of the same name.

        Raises:
            OSError: the disk is full or the folder cannot be written; an older model in it stays.
        TypeError: an entry that is not JSON.
            ValueError: an entry with a reserved name, or a number that is not finite.
        """
        taken = [name for name in RESERVED if name in extra]
        if taken:
            raise ValueError(f"Reserved by the format: {', '.join(taken)}.")
        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()
        }
        config = {**self.config, **extra, "digest": digest(state)}
        text = json.dumps(config, indent=2, allow_nan=False)
        with atomic_path(Path(folder) / WEIGHTS_FILE) as path:
            # Not save_file, whose error on a full disk is no OSError.
            path.write_bytes(save(state, metadata={"config": text}))
        with atomic_path(Path(folder) / CONFIG_FILE) as path:
            path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, path_or_hub: str | os.PathLike[str], revision: str | None = None
    ) -> Self:
        """Load a model of this class, in eval mode.

        Args:
            path_or_hub: a folder, its `model.safetensors`, or `owner/name` on the Hugging Face
                hub.
            revision: branch, tag or commit on the hub.

        Raises:
            InputError: nothing there, a corrupted file, another architecture.
        """
        folder = find_pretrained(path_or_hub, revision)
        config, state = read_pretrained(folder)
        if config["class"] != cls.__name__:
            raise InputError(f"The model in {folder} is {config['class']}, not {cls.__name__}.")
        return cls.restore(config, state, folder)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = True,
        license: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload the model with a generated card, and return its address.

        The token is taken from the variable HF_TOKEN.

        Args:
            repository: `owner/name`, made if it does not exist.
            private: of a repository that is made.
            license: identifier known to the hub, such as mit; None: none is claimed.
            data: what is known of the training data, see `model_card`.

        Raises:
            InputError: a name that is none, no token, or the hub refuses or cannot be reached.
        """
        card = card_markdown(self.describe(repository, data), license=license)
        return hub.push(self, repository, card, private=private)

    def describe(
        self, name: str | None = None, data: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what is known of the model, see `model_card`."""
        state = {key: tensor.detach().cpu() for key, tensor in self.state_dict().items()}
        return model_card(self.config, kind=self.kind, digest=digest(state), origin=name, data=data)

    @classmethod
    def restore(cls, config: dict[str, Any], state: State, origin: object) -> Self:
        """Build the model that `config` describes, give it its weights and set eval mode."""
        try:
            # Without `weights`: a saved file must not make us open or fetch another one.
            saved = config["arguments"].items()
            model = cls(**{name: value for name, value in saved if name != "weights"})
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"The {CONFIG_FILE} in {origin} builds no model: {error}") from error
        load_state(model, state, origin)
        model.config = {name: entry for name, entry in config.items() if name != "digest"}
        return model.eval()


def find_pretrained(path_or_hub: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return where a saved model lies, fetched from the hub when the name is none on disk.

    Args:
        path_or_hub: folder, file, `owner/name`, or `owner/name@revision`: what a server is to load
            should be pinned, as the owner may change the rest.
        revision: branch, tag or commit.

    Returns:
        Its folder; of a `.safetensors` file without its `config.json` beside it, that file.
    """
    path, name = Path(path_or_hub), str(path_or_hub)
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == SUFFIX:
        whole = path.name == WEIGHTS_FILE and (path.parent / CONFIG_FILE).is_file()
        return path.parent if whole else path
    on_disk = path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    if not on_disk and revision is None:
        name, revision = hub.split_revision(name)
    if on_disk or not hub.is_repository(name):
        raise InputError(f"There is no folder with a saved model at {name}, nor a {SUFFIX} file.")
    return hub.fetch(name, [CONFIG_FILE, WEIGHTS_FILE], revision)


def read_pretrained(place: Path) -> tuple[dict[str, Any], State]:
    """Read the configuration and the weights of a saved model, and check that they belong together.

    Args:
        place: folder, or file of weights that has the configuration in it.

    Raises:
        InputError: a file is missing or corrupted, or was written by a later version.
    """
    if place.is_file():
        return _read_file(place)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (place / name).is_file():
            raise InputError(f"There is no {name} in {place}, so it is not a saved model.")
    state = read_state(place / WEIGHTS_FILE)
    found = digest(state)
    config = _parse((place / CONFIG_FILE).read_bytes(), place)
    embedded = _embedded(place / WEIGHTS_FILE)
    if config["digest"] != found and embedded is not None:
        config = _parse(embedded, place)  # a save was cut between its two files
    _check(config, found, place)
    return config, state


def _read_file(path: Path) -> tuple[dict[str, Any], State]:
    """Read a model of a file of weights alone."""
    state = read_state(path)
    embedded = _embedded(path)
    if embedded is None:
        raise InputError(f"{path} holds weights, but no {CONFIG_FILE}: give the folder of a model.")
    config = _parse(embedded, path)
    _check(config, digest(state), path)
    return config, state


def _check(config: dict[str, Any], found: str, place: Path) -> None:
    if config["digest"] != found:
        raise InputError(f"The weights in {place} are corrupted: they are not those saved.")


def _parse(text: str | bytes, folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise InputError(f"The {CONFIG_FILE} in {folder} is corrupted: {error}.") from error
    if not isinstance(config, dict) or not all(
        isinstance(config.get(name), kind) for name, kind in RESERVED.items()
    ):
        raise InputError(f"The {CONFIG_FILE} in {folder} does not describe a model of ours.")
    if config["format"] != FORMAT:
        raise InputError(
            f"{folder} has format {config['format']}; this version reads format {FORMAT}."
        )
    return config


def _embedded(path: Path) -> str | None:
    """Return the configuration inside a file of weights, if there is one."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("config")
