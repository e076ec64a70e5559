"""Optimisers and schedules against their definitions."""

import copy

import pytest
import torch
from torch import nn

from attnvgg.training.optim import make_average, make_optimizer, make_scheduler
from attnvgg.training.run_config import OptimConfig


def rates(config, epochs, steps):
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))], config)
    scheduler = make_scheduler(optimizer, config, epochs, steps)
    found = []
    for _ in range(epochs * steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_constant():
    assert rates(OptimConfig(lr=0.1), 2, 3) == [0.1] * 6


def test_step_divides_by_ten():
    config = OptimConfig(lr=1.0, schedule="step", step_epochs=2)
    assert rates(config, 5, 2) == pytest.approx([1] * 4 + [0.1] * 4 + [0.01] * 2)


def test_cosine_against_pytorch():
    found = rates(OptimConfig(lr=0.5, schedule="cosine"), 4, 5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert found == pytest.approx(expected)


def test_warmup_is_linear():
    assert rates(OptimConfig(lr=1.0, warmup_steps=4), 1, 6) == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 1]
    )


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (OptimConfig(lr=0.1), lambda p: torch.optim.Adam(p, 0.1)),
        (
            OptimConfig(name="adamw", lr=0.1, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
        ),
        (
            OptimConfig(name="sgd", lr=0.1, weight_decay=0.1),
            lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1, nesterov=True),
        ),
    ],
)
def test_fused_kernels_do_what_the_plain_ones_do(config, reference):
    torch.manual_seed(0)
    ours = nn.Linear(5, 3)
    theirs = copy.deepcopy(ours)
    pairs = [
        (ours, make_optimizer(ours.parameters(), config)),
        (theirs, reference(theirs.parameters())),
    ]
    for _ in range(3):
        for model, optimizer in pairs:
            optimizer.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_the_average_is_the_recursion_it_says():
    model = nn.BatchNorm1d(2)
    average = make_average(model, OptimConfig(average=0.3))
    expected = None
    for step in range(4):
        with torch.no_grad():
            model.weight.fill_(float(step))
            model.running_mean.fill_(2.0 * step)
            model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = step if expected is None else decay * expected + (1 - decay) * step
    assert average.module.weight[0].item() == pytest.approx(expected)
    assert average.module.running_mean[0].item() == pytest.approx(2 * expected)
    assert average.module.num_batches_tracked == 3


def test_no_average_unless_asked_for():
    assert make_average(nn.Linear(1, 1), OptimConfig()) is None
    assert make_average(nn.Linear(1, 1), OptimConfig(average=0.0)) is None


def test_an_average_shares_what_is_frozen_and_averages_the_rest():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    average = make_average(model, OptimConfig(average=0.5))
    assert average.module[0].weight.data_ptr() == model[0].weight.data_ptr()
    assert average.module[2].weight.data_ptr() != model[2].weight.data_ptr()
    before = copy.deepcopy(model)
    average.update_parameters(model)  # the first one copies
    with torch.no_grad():
        model[2].weight += 1
        model[1].running_mean += 1
    average.update_parameters(model)
    share = 1 - min(0.5, 2 / 11)
    torch.testing.assert_close(average.module[2].weight, before[2].weight + share)
    torch.testing.assert_close(average.module[1].running_mean, torch.full((2,), share))
    assert torch.equal(average.module[0].weight, before[0].weight)
