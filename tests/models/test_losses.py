import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from attnvgg.errors import InputError
from attnvgg.models import FocalLoss, balanced_alpha, elastic_net, kernel_decay


@pytest.fixture
def binary():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 1, generator=generator)
    return logits, (torch.rand(40, generator=generator) < 0.3).long()


@pytest.fixture
def classes():
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(40, 4, generator=generator), torch.arange(40) % 4


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.9])
def test_binary_equals_torchvision(binary, gamma, alpha):
    logits, labels = binary
    expected = sigmoid_focal_loss(
        logits[:, 0], labels.float(), -1 if alpha is None else alpha, gamma, "mean"
    )
    torch.testing.assert_close(FocalLoss(gamma, alpha)(logits, labels), expected)


def test_without_gamma_and_alpha_it_is_cross_entropy(binary, classes):
    loss = FocalLoss(gamma=0.0)
    logits, labels = binary
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    torch.testing.assert_close(loss(logits, labels), expected)
    torch.testing.assert_close(loss(*classes), F.cross_entropy(*classes))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_classes_equal_the_formula(classes, gamma):
    logits, labels = classes
    alpha = [0.1, 0.2, 0.3, 0.4]
    total = 0.0
    for row, label in zip(logits.double(), labels, strict=True):
        p = (row.exp() / row.exp().sum())[label]
        total += -alpha[label] * (1 - p) ** gamma * p.log()
    loss = FocalLoss(gamma, alpha)(logits, labels)
    torch.testing.assert_close(loss.double(), total / len(labels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [None, 0.2])
def test_two_classes_equal_one_logit(binary, alpha):
    logits, labels = binary
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    loss = FocalLoss(2.0, alpha)
    torch.testing.assert_close(loss(two, labels), loss(logits, labels))


def test_alpha_weights_the_positive_class():
    logits = torch.zeros(1)
    loss = FocalLoss(gamma=0.0, alpha=0.9)
    positive, negative = loss(logits, torch.tensor([1])), loss(logits, torch.tensor([0]))
    assert positive / negative == pytest.approx(9.0)


def test_a_column_and_a_vector_are_the_same(binary):
    logits, labels = binary
    loss = FocalLoss()
    expected = loss(logits, labels)
    assert loss(logits[:, 0], labels) == expected
    assert loss(logits[:, 0], labels[:, None]) == expected
    assert loss(logits, labels[:, None].float()) == expected


def test_sample_weights_multiply_before_the_plain_mean(binary):
    logits, labels = binary
    weight = torch.linspace(0, 2, 40)
    singles = [FocalLoss()(logits[i], labels[i : i + 1]) for i in range(40)]
    expected = sum(w * single for w, single in zip(weight, singles, strict=True)) / 40
    torch.testing.assert_close(FocalLoss()(logits, labels, weight=weight), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [50.0, 1e4])
def test_huge_logits_keep_loss_and_gradient_finite(gamma, scale):
    logits = torch.tensor([[scale], [-scale], [scale], [-scale], [0.0]], requires_grad=True)
    labels = torch.tensor([1, 0, 0, 1, 1])
    three = torch.tensor([[scale, -scale, 0], [-scale, scale, -scale]], requires_grad=True)
    for inputs, targets in ((logits, labels), (three, torch.tensor([0, 2]))):
        loss = FocalLoss(gamma)(inputs, targets)
        (gradient,) = torch.autograd.grad(loss, inputs)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert gradient.any()  # a sample that is badly wrong still teaches
    certain = FocalLoss(gamma)(torch.tensor([scale, -scale]), torch.tensor([1, 0]))
    assert certain == pytest.approx(0.0, abs=1e-20)


def test_gradients_are_right(classes):
    logits, labels = classes
    loss = FocalLoss(1.5, [1.0, 2.0, 3.0, 4.0])
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels[:5]), logits[:5].double().requires_grad_()
    )
    assert torch.autograd.gradcheck(
        lambda x: FocalLoss(1.5)(x, torch.tensor([0, 1, 1])),
        torch.tensor([0.3, -2.0, 4.0], dtype=torch.double, requires_grad=True),
    )


def test_half_precision_logits_are_judged_in_full(classes):
    logits, labels = classes
    loss = FocalLoss()(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, FocalLoss()(logits.bfloat16().float(), labels))


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(4, 1), torch.zeros(3)),
        (torch.zeros(4), torch.zeros(1)),
        (torch.zeros(4), torch.zeros(4, 4)),
        (torch.zeros(4, 1), torch.zeros(1, 4)),
        (torch.zeros(4, 3), torch.zeros(4, 3)),
        (torch.zeros(4, 3, 2), torch.zeros(4, 2)),
    ],
)
def test_shapes_that_would_spread_are_refused(logits, labels):
    with pytest.raises(InputError, match="do not belong together"):
        FocalLoss()(logits, labels)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(2), torch.tensor([0, 2])),
        (torch.zeros(2), torch.tensor([0, -1])),
        (torch.zeros(2), torch.tensor([0.0, 0.5])),
        (torch.zeros(2, 3), torch.tensor([0, 3])),
    ],
)
def test_labels_that_are_no_class_are_refused(logits, labels):
    with pytest.raises(InputError, match="Labels must be integers"):
        FocalLoss()(logits, labels)


def test_alpha_of_another_number_of_classes_is_refused(classes):
    for alpha in (0.25, [0.1, 0.9], [1.0] * 5):
        with pytest.raises(InputError, match="4 classes"):
            FocalLoss(alpha=alpha)(*classes)


@pytest.mark.parametrize("arguments", [{"gamma": -1}, {"alpha": 1.5}, {"alpha": [[1.0, 2.0]]}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(InputError):
        FocalLoss(**arguments)


def test_weights_of_another_shape_are_refused(binary):
    with pytest.raises(InputError, match="weights for 40 samples"):
        FocalLoss()(*binary, weight=torch.ones(40, 1))


def test_alpha_moves_with_the_module(classes):
    loss = FocalLoss(alpha=[1.0, 2.0, 3.0, 4.0])
    assert loss.to("meta").alpha.is_meta


def test_balanced_alpha_of_one_logit_is_the_share_of_negatives():
    assert balanced_alpha([0, 0, 0, 1], num_classes=1) == pytest.approx(0.75)


def test_balanced_alpha_of_classes_equals_scikit_learn():
    labels = [0] * 5 + [1] * 2 + [2] * 9
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_alpha(torch.tensor(labels), 3).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_balanced_alpha_makes_classes_count_alike(num_classes):
    labels = torch.tensor([0] * 6 + [1] * 3 + [2] * 1)[: 10 if num_classes == 3 else 9]
    alpha = balanced_alpha(labels, num_classes)
    weights = FocalLoss(alpha=alpha).alpha
    totals = weights * torch.bincount(labels)
    torch.testing.assert_close(totals, totals[:1].expand_as(totals))


def test_balanced_alpha_needs_every_class():
    with pytest.raises(InputError) as caught:
        balanced_alpha([0, 0, 2], num_classes=4)
    assert caught.value.offenders == ["class 1", "class 3"]
    with pytest.raises(InputError, match="Labels"):
        balanced_alpha([0, 1, 2], num_classes=1)
    with pytest.raises(InputError, match="Labels"):
        balanced_alpha([], num_classes=1)


@pytest.fixture
def layers():
    """Matrices [[1, -2]] and [[3], [0]], a convolution of one 4, and vectors that do not count."""
    module = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 2), nn.Conv2d(1, 1, 1), nn.LayerNorm(2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(100.0)
        module[0].weight.copy_(torch.tensor([[1.0, -2.0]]))
        module[1].weight.copy_(torch.tensor([[3.0], [0.0]]))
        module[2].weight.fill_(4.0)
    return module


@pytest.mark.parametrize(
    ("mix", "expected"), [(0.0, 10 / 5), (1.0, 30 / 5), (0.5, 4.0), (0.25, 3.0)]
)
def test_elastic_net_by_hand(layers, mix, expected):
    assert elastic_net(layers, strength=1.0, mix=mix).item() == pytest.approx(expected)
    assert elastic_net(layers, mix=mix).item() == pytest.approx(0.005 * expected)


def test_kernel_decay_by_hand(layers):
    assert kernel_decay(layers).item() == pytest.approx(0.01 * 30)
    assert kernel_decay(layers[:1], strength=2.0).item() == pytest.approx(10)


@pytest.mark.parametrize("penalty", [elastic_net, kernel_decay])
def test_penalties_pull_at_matrices_alone(layers, penalty):
    penalty(layers).backward()
    for name, parameter in layers.named_parameters():
        if parameter.ndim < 2:
            assert parameter.grad is None, name
        else:
            # Downhill is towards zero, and a weight of zero stays.
            assert torch.equal(parameter.grad.sign(), parameter.detach().sign()), name


@pytest.mark.parametrize("penalty", [elastic_net, kernel_decay])
def test_penalties_of_half_precision_weights_are_summed_in_full(penalty):
    layer = nn.Linear(1000, 1000).half()
    nn.init.constant_(layer.weight, 0.5)  # half precision ends at 65,504, the sum is 250,000
    expected = {elastic_net: 0.005 * 0.375, kernel_decay: 2500.0}[penalty]
    assert penalty(layer).item() == pytest.approx(expected, rel=1e-4)


def test_penalties_without_matrices_are_zero():
    assert elastic_net(nn.ReLU()) == 0
    assert kernel_decay(nn.LayerNorm(3)) == 0


def test_impossible_penalties_are_refused(layers):
    for wrong in ({"strength": -1}, {"mix": 1.5}, {"mix": -0.1}, {"strength": float("nan")}):
        with pytest.raises(InputError, match="must be"):
            elastic_net(layers, **wrong)
    with pytest.raises(InputError, match="at least 0"):
        kernel_decay(layers, strength=-1)
