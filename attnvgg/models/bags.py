"""Bag models: encode every instance, pool each bag, classify (multiple-instance learning)."""

import os
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from attnvgg.errors import InputError
from attnvgg.models.assembly import REGISTRIES, Spec, assemble
from attnvgg.models.heads import Head
from attnvgg.models.pool import Pool
from attnvgg.models.pooling import ScoredPool
from attnvgg.models.pretrained import Pretrained
from attnvgg.models.ragged import lengths_of, pack, unpack
from attnvgg.models.streaming import read_rows, stream
from attnvgg.models.weights import State

PIECE = 2048  # instances at a time once a batch is streamed: what fits in a cache is fastest


class BagOutput(NamedTuple):
    """What every bag model returns.

    Attributes:
        logits: (B, K).
        attention: (sum N, M), one column a branch of the pool; (B, N, M) for a padded batch, 0 in
            the padding; None where the pool has no weights.
    """

    logits: Tensor
    attention: Tensor | None


class BagClassifier(Pretrained):
    """Encodes every instance, pools each bag and classifies it.

    Each part is a module, a specification `{"name": ..., **arguments}` or the bare name. The
    features that a part takes need not be said: they are those of the part before. A pool at
    the level of instances stands behind the head, which then runs on every instance.

    >>> model = BagClassifier("mlp", {"name": "gated_attention", "width": 256}, "linear")
    >>> model.pool.in_features, model.head.in_features
    (64, 64)

    Attributes:
        chunk_size: a batch of more instances than this is streamed, in pieces of this size or
            less, so that it need not fit into memory; None for never. It is not saved.
        frozen: the encoder stays as it is, in eval mode and without gradients. It is not saved.

    Args:
        encoder: one of `ENCODERS`, or any module with the attribute `out_features`.
        pool: one of `POOLS`.
        head: one of `HEADS`; K is its `num_classes`.

    Raises:
        InputError: an unknown part, or parts that do not fit each other.
    """

    kind = "bags"
    chunk_size: int | None = None
    frozen: bool = False

    def __init__(
        self,
        encoder: Spec | nn.Module,
        pool: Spec | Pool = "gated_attention",
        head: Spec | Head = "linear",
    ) -> None:
        encoder, pool, head = assemble(encoder, pool, head)
        # A module that is no part has no specification; such a model refuses to be saved.
        specification = getattr(encoder, "spec", None)
        super().__init__(encoder=specification, pool=pool.spec, head=head.spec)
        self.encoder = encoder
        self.pool = pool
        self.head = head

    def forward(
        self, instances: Any, offsets: Tensor | None = None, mask: Tensor | None = None
    ) -> BagOutput:
        """Classify bags, ragged (with offsets) or padded.

        Args:
            instances: (sum N, ...) with `offsets`, else (B, N, ...). One bag (N, ...) may be a
                memory map or an HDF5 data set, and needs no offsets.
            offsets: (B + 1), bag b is rows offsets[b] to offsets[b + 1].
            mask: (B, N), True where the instance of a padded batch is real; none for all.

        Raises:
            InputError: a bag without instances, or shapes that do not belong together.
        """
        if offsets is None and isinstance(instances, Tensor):
            return self._forward_padded(instances, mask)
        if mask is not None:
            raise InputError("Bags are either padded (a mask) or ragged (offsets), not both.")
        if offsets is None:
            offsets = torch.tensor([0, len(instances)])
        lengths_of(offsets, len(instances))  # checked before anything is computed
        if self.chunk_size is not None and len(instances) > self.chunk_size:
            return self._forward_streamed(instances, offsets, min(self.chunk_size, PIECE))
        return self._classify(self._embed(read_rows(instances, slice(None))), offsets)

    def _forward_padded(self, instances: Tensor, mask: Tensor | None) -> BagOutput:
        """Pack first: batch norm, for one, must not see the padding."""
        rows, offsets = pack(instances, mask)  # (sum N, ...), (B + 1)
        logits, attention = self(rows, offsets)
        if attention is not None:
            attention = unpack(attention, instances.shape[:2] if mask is None else mask)
        return BagOutput(logits, attention)  # (B, K), (B, N, M)

    def _forward_streamed(self, instances: Any, offsets: Tensor, chunk_size: int) -> BagOutput:
        """Hold one chunk at a time; backward computes it once more."""
        self._refuse_batch_statistics()
        if isinstance(pool := self.pool, ScoredPool):

            def embed(chunk: Tensor) -> tuple[Tensor, Tensor]:
                vectors = self._embed(chunk)  # (n, D)
                return vectors, pool.scores(vectors)

            pooled, attention = stream(embed, instances, offsets, chunk_size)
            return BagOutput(self.head(pooled.flatten(1)), attention)  # (B, K), (sum N, M)
        # These pools keep a vector an instance, but nothing of how it was computed.
        anchor = next(self.parameters(), None)  # tells `checkpoint` whose random state to keep
        chunks = [
            checkpoint(
                lambda start, _: self._embed(
                    read_rows(instances, slice(start, start + chunk_size))
                ),
                start,
                anchor,
                use_reentrant=False,
            )
            for start in range(0, len(instances), chunk_size)
        ]
        return self._classify(torch.cat(chunks), offsets)

    def _embed(self, instances: Tensor) -> Tensor:
        """Turn instances into what the pool takes: vectors (n, D), or logits (n, K)."""
        if not instances.is_floating_point():
            raise InputError(f"Instances must be floating-point numbers, not {instances.dtype}.")
        like = next(self.parameters(), instances)  # features on disk are often half precision
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            vectors = self.encoder(instances.to(like.device, like.dtype))  # (n, D)
        return self.head(vectors) if self.pool.level == "instance" else vectors

    def _classify(self, vectors: Tensor, offsets: Tensor) -> BagOutput:
        pooled, attention = self.pool(vectors, offsets=offsets)  # (B, D or K), (sum N, M)
        logits = pooled if self.pool.level == "instance" else self.head(pooled)  # (B, K)
        return BagOutput(logits, attention)

    def _refuse_batch_statistics(self) -> None:
        if any(isinstance(m, _BatchNorm) and m.training for m in self.modules()):
            raise InputError(
                "Batch norm in training mode looks at all instances at once, so a bag cannot be "
                "streamed: call model.encoder.eval(), or set model.chunk_size = None."
            )

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def instance_logits(self, instances: Tensor) -> Tensor:
        """Classify instances (n, ...) on their own, (n, K).

        Raises:
            InputError: the pool is at the level of embeddings, so the head knows only bags.
        """
        if self.pool.level != "instance":
            raise InputError(
                f"The pool {self.pool.spec['name']} pools embeddings, so its instances have no "
                'logits: choose noisy_and, or a pool with level="instance".'
            )
        size = self.chunk_size or len(instances)
        starts = range(0, len(instances), size)
        return torch.cat([self._embed(read_rows(instances, slice(at, at + size))) for at in starts])

    def save_pretrained(self, folder: str | os.PathLike[str], **extra: Any) -> None:
        """Write the model as `Pretrained` does.

        Raises:
            InputError: a part is a module of your own, which a file cannot describe.
        """
        foreign = [
            f"{name}: {type(part).__name__}"
            for name, registry in REGISTRIES.items()
            if type(part := getattr(self, name)) not in registry.values()
        ]
        if foreign:
            raise InputError(
                "A model with parts that stand in no registry cannot be saved for loading: derive "
                "them from Encoder, Pool or Head and add them to ENCODERS, POOLS or HEADS, or save "
                "its state_dict().",
                foreign,
            )
        super().save_pretrained(folder, **extra)

    @classmethod
    def restore(cls, config: dict[str, Any], state: State, origin: object) -> Self:
        """Build the model as `Pretrained` does; no part opens or fetches weights of its own."""
        arguments = {
            name: {key: value for key, value in spec.items() if key != "weights"}
            if isinstance(spec, dict)
            else spec
            for name, spec in config["arguments"].items()
        }
        return super().restore({**config, "arguments": arguments}, state, origin)
