"""Models that save themselves to a folder and come back from a folder or a hub."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.models.weights import State, digest, load_state, read_state

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
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
            path_or_hub: a folder, or `owner/name` on the Hugging Face hub.
            revision: branch, tag or commit on the hub.

        Raises:
            InputError: nothing there, a corrupted file, another architecture.
        """
        folder = find_pretrained(path_or_hub, revision)
        config, state = read_pretrained(folder)
        if config["class"] != cls.__name__:
            raise InputError(f"The model in {folder} is {config['class']}, not {cls.__name__}.")
        return cls.restore(config, state, folder)

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
    """Return the folder of a saved model, fetched from the hub when the name is none on disk."""
    path, name = Path(path_or_hub), str(path_or_hub)
    if path.is_dir():
        return path
    on_disk = path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    if on_disk or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise InputError(f"There is no folder with a saved model at {name}.")
    return _fetch(name, revision)


def _fetch(name: str, revision: str | None) -> Path:
    # Imported here, because it takes long and a model on disk does not need it.
    from huggingface_hub import snapshot_download

    try:
        files = [CONFIG_FILE, WEIGHTS_FILE]
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except Exception as error:  # its network library, hence its errors, change with versions
        wanted = name if revision is None else f"{name} at {revision}"
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{wanted} is neither a folder here nor could it be fetched from the hub: {reason}"
        ) from error


def read_pretrained(folder: Path) -> tuple[dict[str, Any], State]:
    """Read the configuration and the weights of a saved model, and check that they belong together.

    Raises:
        InputError: a file is missing or corrupted, or was written by a later version.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise InputError(f"There is no {name} in {folder}, so it is not a saved model.")
    state = read_state(folder / WEIGHTS_FILE)
    found = digest(state)
    config = _parse((folder / CONFIG_FILE).read_bytes(), folder)
    embedded = _embedded(folder / WEIGHTS_FILE)
    if config["digest"] != found and embedded is not None:
        config = _parse(embedded, folder)  # a save was cut between its two files
    if config["digest"] != found:
        raise InputError(f"The weights in {folder} are corrupted: they are not those saved.")
    return config, state


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
