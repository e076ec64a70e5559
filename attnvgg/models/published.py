"""Reading the checkpoints that the authors of the paper published."""

import os

from attnvgg.models.attnvgg import AttnVGG
from attnvgg.models.weights import load_state, read_state

# Our names and theirs; the rest of a name is the same.
PUBLISHED = {
    **{f"stages.{index}.": f"conv_block{index + 1}." for index in range(5)},
    **{
        f"{block}.{ours}.": f"{block}.{theirs}."
        for block in ("attn1", "attn2")
        for ours, theirs in {"project_local": "W_l", "project_guide": "W_g", "score": "phi"}.items()
    },
    "classifier.": "cls.",
}


def published_name(name: str) -> str:
    """Translate the name of a parameter of `AttnVGG` to the paper's.

    >>> published_name("attn1.project_local.weight")
    'attn1.W_l.weight'
    """
    for ours, theirs in PUBLISHED.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def load_published(
    path: str | os.PathLike[str],
    num_classes: int | None = None,
    normalize_attn: bool = False,
    dropout: float | None = None,
) -> AttnVGG:
    """Load a checkpoint of the paper into a VGG16-BN `AttnVGG`, in eval mode.

    Whether it has attention is read from its names. Softmax or sigmoid is not written in it: the
    paper's own are sigmoid.

    Args:
        path: a PyTorch file, the state dict alone or inside `{"state_dict": ...}`, with or without
            the prefix `module.`.
        num_classes: K; read from the checkpoint when not given.
        normalize_attn: whether it was trained with softmax attention.
        dropout: for training on.

    Raises:
        InputError: the file is missing or corrupted, or its parameters do not fit; each is named.
    """
    state = read_state(path)
    if num_classes is None:
        num_classes = len(state["cls.weight"]) if "cls.weight" in state else 1
    attention = any(name.startswith(("attn1.", "attn2.")) for name in state)
    model = AttnVGG(num_classes, normalize_attn, dropout, attention=attention)
    load_state(model, state, path, rename=published_name)
    return model.eval()
