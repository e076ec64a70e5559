"""`attnvgg COMMAND ...`: the same commands as the scripts, for people without a checkout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a classifier and judge it on its test set",
    "train_bags": "train a classifier of bags and judge it on its test bags",
    "evaluate": "judge a run, or any predictions.csv, and write a report",
    "predict": "predict any number of images, into a table that evaluate can judge",
    "visualize": "draw images or bags with what the model attended to",
    "extract_features": "turn the tiles of slides into vectors, a file of features a slide",
    "launch_sagemaker": "train on Amazon SageMaker, or as its container would on this machine",
    "download": "fetch the Kaggle melanoma images",
    "sample": "make the built-in synthetic sample",
    "export": "write a model for ONNX Runtime, OpenVINO or PyTorch, compared with it first",
    "serve": "put a model behind an HTTP endpoint, with a page to try it on",
    "push": "upload a model and its card to the Hugging Face hub",
    "drift": "compare what a server was asked with what the model was trained on",
    "audit": "look for leaks, copies and shortcuts in a data set and its split",
    "audit_mil": "test which pools respect: positive if and only if one instance is",
    "audit_maps": "say how far to trust the maps of a run: localisation, faithfulness, sanity",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"error: there is no command {words[0]!r}\n{_usage()}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"attnvgg.cli.{words[0]}")
    code: int = module.main(words[1:])
    return code


def _usage() -> str:
    lines = [f"  {name:<16} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: attnvgg COMMAND [options]   (COMMAND --help tells more)", *lines])
