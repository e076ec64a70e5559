"""Attention over bags that do not fit in memory: chunk by chunk, and yet exact."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.dlpack import from_dlpack

from attnvgg.errors import InputError
from attnvgg.models.ragged import lengths_of, logsumexp_bags, sum_bags, to_rows

Embed = Callable[[Tensor], tuple[Tensor, Tensor]]


def stream(
    embed: Embed, source: Any, offsets: Tensor | None = None, chunk_size: int = 2048
) -> tuple[Tensor, Tensor]:
    """Pool bags by attention as `attend` does, with one chunk of instances in memory at a time.

    The softmax runs on: what a bag has pooled so far is rescaled when a chunk brings more of it
    (Milakov and Gimelshein, 2018). Backward embeds each chunk once more instead of keeping what
    that computed, with the same random numbers and precision. What stays in memory are scores,
    (sum N, M), not values, (sum N, D).

    Args:
        embed: turns instances (n, ...) into values (n, D) and scores (n, M), each on its own, and
            writes into none. Gradients reach every parameter that it uses.
        source: (sum N, ...): a tensor, a numpy array or memory map, an HDF5 data set.
        offsets: (B + 1), bag b is rows offsets[b] to offsets[b + 1]; one bag without.
        chunk_size: instances; the fastest is one whose values fit in the cache.

    Returns:
        The pooled values (B, M, D) and the weights (sum N, M), both as `attend` gives them.

    Raises:
        InputError: offsets that do not fit, a bag without instances, or no chunk size.
    """
    if chunk_size < 1:
        raise InputError(f"A chunk has at least one instance, not {chunk_size}.")
    offsets = torch.tensor([0, len(source)]) if offsets is None else offsets.cpu()
    lengths_of(offsets, len(source))
    offsets = offsets.long()
    chunks = _Chunks(source, offsets, chunk_size)
    tracked = source if isinstance(source, Tensor) else None
    return _Stream.apply(embed, chunks, tracked, *_leaves_of(embed, chunks))


@dataclass(frozen=True)
class _Chunks:
    """Rows of a source, so many at a time.

    Iterating gives the rows of each chunk, the bags that lie in it, and their offsets in it.
    """

    source: Any
    offsets: Tensor
    size: int

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        total = len(self.source)
        for start in range(0, total, self.size):
            stop = min(start + self.size, total)
            first = int(torch.searchsorted(self.offsets, start, right=True)) - 1
            last = int(torch.searchsorted(self.offsets, stop))
            inside = self.offsets[first : last + 1].clamp(start, stop) - start
            yield slice(start, stop), slice(first, last), inside

    def read(self, rows: slice) -> Tensor:
        return read_rows(self.source, rows)


def read_rows(source: Any, rows: slice) -> Tensor:
    """Return rows of a tensor, a numpy array or memory map, or an HDF5 data set, not to be written.

    A view where there can be one: a copy of a memory map costs as much as reading it.
    """
    part = source[rows]
    # DLPack, unlike from_numpy, takes arrays that may not be written into.
    return part if isinstance(part, Tensor) else from_dlpack(np.asarray(part))


def _leaves_of(embed: Embed, chunks: _Chunks) -> list[Tensor]:
    """Find the parameters behind what `embed` returns, by asking it about one instance."""
    if not torch.is_grad_enabled():
        return []
    with torch.random.fork_rng(_cuda()):
        outputs = embed(chunks.read(slice(0, 1)).detach())
    nodes = [output.grad_fn for output in outputs]
    seen, leaves = set(nodes), []
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        fresh = {after for after, _ in node.next_functions} - seen
        seen |= fresh
        nodes += fresh
    return leaves


class _Stream(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embed: Embed, chunks: _Chunks, source: Tensor | None, *leaves: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.surroundings = _Surroundings()
        # Freed at once and never touched: from now on glibc keeps blocks up to this size for the
        # next chunk instead of returning each to the system, which costs 5 % of the time.
        torch.empty(24 * 2**20, dtype=torch.uint8)
        scores = pooled = masses = torch.empty(0)
        for rows, bags, inside in chunks:
            values, score = embed(chunks.read(rows))  # (n, D), (n, M)
            score = score.to(torch.promote_types(score.dtype, torch.float32))
            inside = inside.to(score.device)
            mass = logsumexp_bags(score, inside)  # (b, M)
            vectors, _ = _pool(values, score, mass, inside)  # (b, M, D)
            if rows.start == 0:
                # Memory for what stays, once: small tensors left between the big ones of each
                # chunk would keep the allocator from using theirs again.
                count = len(chunks.offsets) - 1
                scores = score.new_empty(len(chunks.source), score.shape[1])
                pooled = vectors.new_zeros(count, *vectors.shape[1:])
                masses = score.new_full((count, score.shape[1]), -torch.inf)
            scores[rows] = score
            total = torch.logaddexp(masses[bags], mass)
            pooled[bags] *= (masses[bags] - total).exp().unsqueeze(2)
            pooled[bags] += (mass - total).exp().unsqueeze(2) * vectors
            masses[bags] = total
        offsets = chunks.offsets.to(scores.device)
        weights = scores.sub_(to_rows(masses, offsets, len(scores))).exp_()
        ctx.embed, ctx.chunks = embed, chunks
        ctx.save_for_backward(pooled, masses, weights, source, *leaves)
        return pooled.to(values.dtype), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pooled, masses, weights, source, *leaves = ctx.saved_tensors
        pull, weight_pull = gradients[0].to(pooled.dtype), gradients[1]  # (B, M, D), (sum N, M)
        # All instances of a bag share what the normalisation of its softmax takes from each.
        offsets = ctx.chunks.offsets.to(pull.device)
        shared = (pull * pooled).sum(dim=2) + sum_bags(weights * weight_pull, offsets)  # (B, M)
        totals = [torch.zeros_like(leaf) for leaf in leaves]
        into_source = torch.zeros_like(source) if ctx.needs_input_grad[2] else None
        with ctx.surroundings.again(), torch.enable_grad():
            for rows, bags, inside in ctx.chunks:
                inside = inside.to(pull.device)
                part = ctx.chunks.read(rows).detach()
                wanted = [*leaves, *([] if into_source is None else [part.requires_grad_()])]
                values, scores = ctx.embed(part)
                vectors, powers = _pool(values, scores, masses[bags], inside)
                rest = weight_pull[rows] - to_rows(shared[bags], inside, len(scores))  # (n, M)
                found = torch.autograd.grad(
                    [vectors, powers], wanted, [pull[bags], rest], allow_unused=True
                )
                for total, gradient in zip(totals, found, strict=False):
                    if gradient is not None:
                        total += gradient
                if into_source is not None and found[-1] is not None:
                    into_source[rows] = found[-1]
        return None, None, into_source, *totals


def _pool(values: Tensor, scores: Tensor, masses: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Pool by exp(score - mass of its bag), masses (b, M): vectors (b, M, D) and powers (n, M)."""
    powers = (scores.to(masses.dtype) - to_rows(masses, offsets, len(scores))).exp()
    return sum_bags(values.to(powers.dtype), offsets, powers), powers


class _Surroundings:
    """The random state and the precision that a computation finds, to do it once more alike."""

    def __init__(self) -> None:
        self.random = torch.get_rng_state()
        self.cuda = {device: torch.cuda.get_rng_state(device) for device in _cuda()}
        self.precision = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
            for kind in ("cpu", *(["cuda"] if self.cuda else []))
        ]

    def again(self) -> ExitStack:
        """Enter them; the caller leaves them."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(list(self.cuda)))
            torch.set_rng_state(self.random)
            for device, state in self.cuda.items():
                torch.cuda.set_rng_state(state, device)
            for kind, dtype, enabled in self.precision:
                stack.enter_context(torch.autocast(kind, dtype, enabled))
            return stack.pop_all()


def _cuda() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
