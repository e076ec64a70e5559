"""A model forgets from the last layer down; maps are compared by ranks."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from attnvgg import AttnVGG
from attnvgg.errors import InputError
from attnvgg.explain.sanity import cascade, rank_correlation
from attnvgg.models import VGGGAP

ORDER = ["classifier", "attn2", "attn1", *(f"stages.{n}" for n in (4, 3, 2, 1, 0))]


@pytest.fixture(scope="module")
def models():
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(AttnVGG(1, backbone="vgg11").eval())
    return found


def test_correlation_is_that_of_scipy():
    random = np.random.default_rng(0)
    maps = random.integers(0, 5, (6, 4, 5))  # with ties
    others = maps + random.integers(0, 4, (6, 4, 5))
    expected = [
        spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(maps, others), expected, atol=1e-12)


def test_only_the_order_counts():
    maps = np.random.default_rng(0).random((3, 4, 4))
    np.testing.assert_allclose(rank_correlation(maps, np.exp(9 * maps)), 1)
    np.testing.assert_allclose(rank_correlation(maps, -maps), -1)


def test_a_map_that_is_the_same_everywhere_has_no_ranks():
    maps = np.random.default_rng(0).random((1, 4, 4))
    assert np.isnan(rank_correlation(maps, np.ones((1, 4, 4))))


def test_maps_of_another_shape():
    with pytest.raises(InputError):
        rank_correlation(np.ones((1, 4, 4)), np.ones((1, 2, 2)))


def test_it_goes_from_the_last_layer_down_and_ends_untrained(models):
    model, fresh = models
    before = {name: value.clone() for name, value in model.state_dict().items()}
    new = fresh.state_dict()
    replaced = set()
    for number, (block, copy) in enumerate(cascade(model, fresh)):
        assert block == ORDER[number]
        replaced |= {name for name in new if name.startswith(block)}
        for name, value in copy.state_dict().items():
            assert torch.equal(value, new[name] if name in replaced else before[name])
    assert replaced == set(new)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_maps_change_with_what_they_pass_through_and_with_nothing_else(models):
    """A map of attention does not pass through the classifier, nor through the other's block."""
    model, fresh = models
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    _, first, second = model(images)
    changed = {}
    for block, copy in cascade(model, fresh):
        _, one, two = copy(images)
        changed[block] = (not torch.equal(first, one), not torch.equal(second, two))
    assert changed["classifier"] == (False, False)
    assert changed["attn2"] == (False, True)
    assert changed["attn1"] == (True, True)


def test_models_of_another_shape(models):
    with pytest.raises(InputError, match="shape"):
        next(cascade(models[0], VGGGAP(1, backbone="vgg11")))
