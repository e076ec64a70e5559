"""Parts that fit each other: from names and specifications to an encoder, a pool and a head."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from attnvgg.errors import InputError
from attnvgg.models.encoders import ENCODERS
from attnvgg.models.feature_encoders import Encoder
from attnvgg.models.heads import HEADS, Head
from attnvgg.models.parts import Part
from attnvgg.models.pool import Pool
from attnvgg.models.pooling import POOLS

Spec: TypeAlias = str | Mapping[str, Any]
AnyPart = TypeVar("AnyPart", Pool, Head)

REGISTRIES: dict[str, Mapping[str, type[Part]]] = {
    "encoder": ENCODERS,
    "pool": POOLS,
    "head": HEADS,
}


def assemble(
    encoder: Spec | nn.Module, pool: Spec | Pool, head: Spec | Head
) -> tuple[nn.Module, Pool, Head]:
    """Build what is not built yet, and give every part as many features as it will get.

    At the level of embeddings the head follows the pool, at the level of instances the pool
    follows the head.

    Args:
        encoder: a part, its specification `{"name": ..., **arguments}` or its bare name; or any
            module with the attribute `out_features`.
        pool: a part, its specification or its name.
        head: likewise.

    Raises:
        InputError: an unknown part, or parts that do not fit each other.
    """
    encoder = _build_encoder(encoder)
    features: int = encoder.out_features  # type: ignore[assignment]
    if _level(pool) == "instance":
        head = _build(Head, HEADS, head, features)
        return encoder, _build(Pool, POOLS, pool, head.num_classes), head
    pool = _build(Pool, POOLS, pool, features)
    return encoder, pool, _build(Head, HEADS, head, pool.out_features)


def _build_encoder(encoder: Spec | nn.Module) -> nn.Module:
    if not isinstance(encoder, nn.Module):
        return Encoder.build(ENCODERS, _specification(encoder))
    if not isinstance(getattr(encoder, "out_features", None), int):
        raise InputError(
            f"The encoder, a {type(encoder).__name__}, must say in its attribute out_features how "
            "many features an instance has."
        )
    return encoder


def _level(pool: Spec | nn.Module) -> str:
    """Return where the pool stands or will stand, for it decides what feeds what."""
    if not isinstance(pool, nn.Module):
        with torch.device("meta"):  # without storage, only to be asked
            pool = Pool.build(POOLS, {"in_features": 1, **_specification(pool)})
    return getattr(pool, "level", "embedding")


def _build(
    kind: type[AnyPart],
    registry: Mapping[str, type[AnyPart]],
    part: Spec | nn.Module,
    features: int,
) -> AnyPart:
    """Return the part itself, or build it; either way it must take so many features."""
    if not isinstance(part, nn.Module):
        part = kind.build(registry, {"in_features": features, **_specification(part)})
    name = kind.__name__.lower()
    if not isinstance(part, kind):
        raise InputError(f"The {name} must be a {kind.__name__}, not a {type(part).__name__}.")
    if part.in_features != features:
        raise InputError(
            f"The {name} takes {part.in_features} features, but the part before it gives "
            f"{features}."
        )
    return part


def _specification(part: Spec) -> Mapping[str, Any]:
    if isinstance(part, str):
        return {"name": part}
    if not isinstance(part, Mapping):
        raise InputError(
            f"A part is a module, its name or a specification with a name, not {part!r}."
        )
    return part
