"""Files of weights: read them safely and say by name what does not fit."""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from attnvgg.errors import InputError

State = Mapping[str, Tensor]

UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
)


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or PyTorch file, without running any code in it.

    A state dict inside `{"state_dict": ...}` and names with the prefix `module.`, which
    nn.DataParallel leaves behind, are unwrapped.

    Raises:
        InputError: there is no such file, or it holds something else than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file of weights at {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as weights: it is corrupted or holds more than tensors."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not _only_tensors(content):
        raise InputError(f"{path} does not hold named tensors (a state dict).")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def _only_tensors(content: Mapping[object, object]) -> bool:
    return len(content) > 0 and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    )


def load_state(
    module: nn.Module,
    state: State,
    origin: object,
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Load weights strictly; when they do not fit, list every difference.

    Args:
        module: what to load into; untouched when the weights do not fit.
        state: tensors by name.
        origin: where they come from, for the message.
        rename: from the module's names to those used in `state`.

    Raises:
        InputError: missing, unexpected or differently shaped tensors.
    """
    expected = {rename(name): tensor for name, tensor in module.state_dict().items()}
    # PyTorch before 0.4.1 did not count batches, and the count is not used.
    uncounted = (name for name in expected if name.endswith("num_batches_tracked"))
    state = {**{name: torch.tensor(0) for name in uncounted}, **state}
    differences = list(_differences(expected, state))
    if differences:
        raise InputError(f"The weights in {origin} do not fit the model:", differences)
    module.load_state_dict({name: state[rename(name)] for name in module.state_dict()})


def _differences(expected: State, state: State) -> Iterator[str]:
    for name, tensor in expected.items():
        if name not in state:
            yield f"missing: {name}"
        elif state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)} in the file, {list(tensor.shape)} in ours"
            yield f"wrong shape: {name} is {shapes}"
    for name in state:
        if name not in expected:
            yield f"unexpected: {name}"


def digest(state: State) -> str:
    """Fingerprint names, types, shapes and bits of the weights; the same for the same weights."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
