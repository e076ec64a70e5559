"""Tensors in, tensors out: attention, the networks and their losses."""

from attnvgg.models.attention import AttentionBlock, attend
from attnvgg.models.attnvgg import VGGGAP, AttnVGG, AveragePool, ImageOutput, VGGDense
from attnvgg.models.backbone import BACKBONES, WeightsUnavailable
from attnvgg.models.losses import FocalLoss, balanced_alpha
from attnvgg.models.pretrained import Pretrained
from attnvgg.models.published import load_published
from attnvgg.models.registry import MODELS, load_pretrained

__all__ = [
    "BACKBONES",
    "MODELS",
    "VGGGAP",
    "AttentionBlock",
    "AttnVGG",
    "AveragePool",
    "FocalLoss",
    "ImageOutput",
    "Pretrained",
    "VGGDense",
    "WeightsUnavailable",
    "attend",
    "balanced_alpha",
    "load_pretrained",
    "load_published",
]
