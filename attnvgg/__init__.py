"""Attention-gated image classification whose maps and metrics can be audited."""

from attnvgg.models import AttentionBlock, AttnVGG, FocalLoss

__all__ = ["AttentionBlock", "AttnVGG", "FocalLoss"]
