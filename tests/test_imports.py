"""The direction of imports, as data; docs/architecture.md draws it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "attnvgg"
FOUNDATION = {"errors", "files"}

# room -> what of ours it may import, beside itself and the foundation
MAY_IMPORT = {
    "models": set(),
    "data": set(),
    "evaluation": set(),
    "training": {"models", "data", "evaluation"},
    "explain": {"models", "data", "evaluation"},
    "deploy": {"models", "data", "evaluation", "explain", "training.checkpoint"},
    "cli": {"models", "data", "evaluation", "training", "explain", "deploy"},
}
# package -> the one file that may import it, and only inside a function
LAZY = {
    "kaggle": "data/download.py",
    "kagglesdk": "data/download.py",
    "huggingface_hub": "models/hub.py",
    "timm": "models/bodies.py",
    "torch.utils.tensorboard": "training/run.py",
    "openslide": "data/slides.py",
    "tifffile": "data/slide_writer.py",
    "imagecodecs": "data/slide_writer.py",
    "h5py": "data/feature_files.py",
    "pytorch_grad_cam": "explain/grad_cam.py",
    "ray": "deploy/fleet.py",
    "openvino": "deploy/engines/openvino_engine.py",
    "nncf": "deploy/engines/openvino_engine.py",
    "onnxruntime": "deploy/engines/onnx_engine.py",
    "sagemaker": "deploy/sagemaker.py",
    "boto3": "deploy/sagemaker.py",
    "skimage.data": "data/synthetic/tissue.py",
    "fastapi": "deploy/serving/app.py",
    "swagger_ui_bundle": "deploy/serving/app.py",
    "uvicorn": "deploy/serving/server.py",
    "prometheus_client": "deploy/serving/counters.py",
    "gradio": "deploy/serving/web.py",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield node.module, node


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_direction(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        return  # the front door and the foundation, tested below
    room = parts[0]
    for name, _ in imported(ast.parse(path.read_text())):
        if not name.startswith("attnvgg."):
            assert name != "attnvgg", "import the module, not the front door"
            continue
        inner = name.removeprefix("attnvgg.")
        target = inner.split(".")[0]
        allowed = target in FOUNDATION | {room} | MAY_IMPORT[room] or inner in MAY_IMPORT[room]
        assert allowed, f"{path.name}: {room} may not import {name}"


def test_foundation_stands_alone():
    for name in FOUNDATION:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        assert not [n for n, _ in imported(tree) if n.startswith("attnvgg")]


def test_every_room_is_known():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_optional_and_slow_packages_are_imported_lazily(path):
    tree = ast.parse(path.read_text())
    top_level = {id(node) for node in tree.body}
    for name, node in imported(tree):
        for package, owner in LAZY.items():
            if name == package or name.startswith(package + "."):
                assert path.relative_to(PACKAGE).as_posix() == owner
                assert id(node) not in top_level


def test_import_is_quiet_and_does_not_work():
    """Importing the package prints nothing, and needs neither network nor the commands."""
    code = (
        "import socket, sys; socket.socket.connect = None; import attnvgg;"
        "assert not [m for m in sys.modules if m.startswith('attnvgg.cli')]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_grab_bag():
    names = {p.stem for p in FILES}
    assert not names & {"utils", "helpers", "misc"}
