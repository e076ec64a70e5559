"""The same network, computed by PyTorch, ONNX Runtime or OpenVINO."""

from attnvgg.deploy.engines.choice import AUTO, choose, open_chosen
from attnvgg.deploy.engines.interface import Engine, Outputs, Source
from attnvgg.deploy.engines.kinds import ENGINES, open_engine, open_folder

__all__ = [
    "AUTO",
    "ENGINES",
    "Engine",
    "Outputs",
    "Source",
    "choose",
    "open_chosen",
    "open_engine",
    "open_folder",
]
