"""The prior on attention where its images are spread over processes."""

from types import SimpleNamespace

import pytest
import torch

from attnvgg.models import AttentionPrior, ImageOutput
from attnvgg.training.steps import _mean_prior


def part_of(batch, count, processes):
    """Return what one of several processes adds to its loss; the sum of counts is made known."""
    accelerator = SimpleNamespace(
        device="cpu", num_processes=processes, reduce=lambda value, _: torch.tensor(count)
    )
    output = ImageOutput(torch.zeros(1), batch["attn1"], batch["attn2"])
    return _mean_prior(AttentionPrior(rescale=True), accelerator, output, batch)


def rows(batch, start, stop):
    return {name: values[start:stop] for name, values in batch.items()}


@pytest.mark.parametrize("known", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
def test_the_mean_is_over_the_images_with_a_mask_of_all_processes(known):
    random = torch.Generator().manual_seed(0)
    batch = {
        "attn1": torch.rand(6, 1, 4, 4, generator=random),
        "attn2": torch.rand(6, 1, 2, 2, generator=random),
        "mask": (torch.rand(6, 1, 32, 32, generator=random) > 0.5).float(),
        "has_mask": torch.tensor(known, dtype=torch.bool),
    }
    alone = part_of(batch, sum(known), processes=1)
    parts = [part_of(rows(batch, *ends), sum(known), processes=2) for ends in ((0, 3), (3, 6))]
    torch.testing.assert_close(sum(parts) / 2, alone)
    if sum(known):
        each = [part_of(rows(batch, i, i + 1), 1, 1) for i in range(6) if known[i]]
        torch.testing.assert_close(alone, sum(each) / len(each))
