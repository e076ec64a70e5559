"""Every model that a saved folder may name; a new model is added to this one line."""

import os

from attnvgg.errors import InputError
from attnvgg.models.attnvgg import VGGGAP, AttnVGG, VGGDense
from attnvgg.models.bags import BagClassifier
from attnvgg.models.pretrained import Pretrained, find_pretrained, read_pretrained

MODELS: dict[str, type[Pretrained]] = {
    model.__name__: model for model in (AttnVGG, VGGGAP, VGGDense, BagClassifier)
}


def load_pretrained(path_or_hub: str | os.PathLike[str], revision: str | None = None) -> Pretrained:
    """Load any saved model, in eval mode, from a folder, a file or `owner/name` on the hub.

    Args:
        path_or_hub: a folder, its `model.safetensors`, or `owner/name` on the Hugging Face hub.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: nothing there, a corrupted file, an unknown architecture.
    """
    folder = find_pretrained(path_or_hub, revision)
    config, state = read_pretrained(folder)
    if config["class"] not in MODELS:
        known = ", ".join(MODELS)
        raise InputError(f"The model in {folder} is {config['class']}; known are {known}.")
    return MODELS[config["class"]].restore(config, state, folder)
