"""Tensors in, tensors out: attention, the networks of images and of bags, and their losses."""

from attnvgg.models.attention import AttentionBlock, attend
from attnvgg.models.attnvgg import VGGGAP, AttnVGG, AveragePool, ImageOutput, VGGDense
from attnvgg.models.backbone import BACKBONES, WeightsUnavailable
from attnvgg.models.bags import BagClassifier, BagOutput
from attnvgg.models.encoders import ENCODERS
from attnvgg.models.feature_encoders import Encoder
from attnvgg.models.heads import HEADS, Head
from attnvgg.models.losses import FocalLoss, balanced_alpha, elastic_net, kernel_decay
from attnvgg.models.pool import Pool
from attnvgg.models.pooling import POOLS, ScoredPool
from attnvgg.models.pretrained import Pretrained
from attnvgg.models.priors import AttentionPrior
from attnvgg.models.published import load_published
from attnvgg.models.registry import MODELS, load_pretrained

__all__ = [
    "BACKBONES",
    "ENCODERS",
    "HEADS",
    "MODELS",
    "POOLS",
    "VGGGAP",
    "AttentionBlock",
    "AttentionPrior",
    "AttnVGG",
    "AveragePool",
    "BagClassifier",
    "BagOutput",
    "Encoder",
    "FocalLoss",
    "Head",
    "ImageOutput",
    "Pool",
    "Pretrained",
    "ScoredPool",
    "VGGDense",
    "WeightsUnavailable",
    "attend",
    "balanced_alpha",
    "elastic_net",
    "kernel_decay",
    "load_pretrained",
    "load_published",
]
