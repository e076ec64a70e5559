"""Properties that every model must have; a model's tests inherit them and say how to build it."""

import copy
import inspect

import pytest
import torch

from attnvgg.errors import InputError
from attnvgg.models import load_pretrained


def randomise_batch_norm(model):
    """Give batch norm statistics that are not the initial ones, as after training."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


class ModelContract:
    """What holds for any model: image, bag or slide.

    A subclass defines `build(num_classes, **arguments)` and `inputs(batch)`, and names in
    `indifferent` the parameters whose gradient is zero by mathematics, not by accident.
    """

    indifferent: tuple[str, ...] = ()
    tolerance = 1e-5

    def build(self, num_classes=2, **arguments):
        raise NotImplementedError

    def inputs(self, batch=2):
        raise NotImplementedError

    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return randomise_batch_norm(self.build()).eval()

    @pytest.mark.parametrize("num_classes", [1, 3])
    def test_logits_have_a_column_a_class(self, num_classes):
        model = self.build(num_classes).eval()
        with torch.inference_mode():
            assert model(self.inputs()).logits.shape == (2, num_classes)

    def test_no_class_is_refused(self):
        with pytest.raises(InputError, match="at least one class"):
            self.build(0)

    def test_batch_equals_its_members_alone(self, model):
        batch = self.inputs(3)
        with torch.inference_mode():
            together = model(batch)
            for index in range(3):
                alone = model(batch[index : index + 1])
                for one, all_ in zip(alone, together, strict=True):
                    if one is not None:
                        torch.testing.assert_close(
                            one[0], all_[index], rtol=self.tolerance, atol=self.tolerance
                        )

    def test_evaluation_mutates_nothing(self, model):
        before = copy.deepcopy(model.state_dict())
        with torch.inference_mode():
            first, second = model(self.inputs()), model(self.inputs())
        assert_same_state(before, model.state_dict())
        assert_same_output(first, second)

    def test_training_mode_leaves_no_trace_in_eval_mode(self, model):
        with torch.inference_mode():
            before = model(self.inputs())
            after = model.train().eval()(self.inputs())
        assert_same_output(before, after)

    def test_training_counts_batches(self, model):
        counted = [b for name, b in model.named_buffers() if name.endswith("num_batches_tracked")]
        model.train()(self.inputs())
        assert all(count == 1 for count in counted)

    def test_gradients_reach_every_parameter(self, model):
        # In eval mode: training-mode batch norm makes the biases before it indifferent.
        logits = model(self.inputs()).logits
        (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            if name not in self.indifferent:
                assert parameter.grad.abs().max() > 0, name

    def test_half_precision_is_finite_and_close(self, model):
        with torch.inference_mode():
            full = model(self.inputs()).logits
            with torch.autocast("cpu", torch.bfloat16):
                half = model(self.inputs()).logits
        assert half.isfinite().all()
        torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)

    def test_config_holds_every_argument_but_the_weights(self, model):
        parameters = set(inspect.signature(type(model)).parameters)
        assert set(model.config["arguments"]) == parameters - {"weights"}

    def test_saved_model_comes_back_bit_exact(self, model, tmp_path):
        model.save_pretrained(tmp_path, threshold=0.25, classes=["benign", "malignant"])
        state = torch.get_rng_state()
        for load in (type(model).from_pretrained, load_pretrained):
            torch.set_rng_state(state)
            loaded = load(tmp_path)
            assert type(loaded) is type(model)
            assert not loaded.training
            assert loaded.config["arguments"] == model.config["arguments"]
            assert loaded.config["threshold"] == 0.25
            assert loaded.config["classes"] == ["benign", "malignant"]
            assert_same_state(model.state_dict(), loaded.state_dict())
            with torch.inference_mode():
                assert_same_output(model(self.inputs()), loaded(self.inputs()))

    def test_copy_is_equal_and_independent(self, model):
        twin = copy.deepcopy(model)
        with torch.inference_mode():
            expected = model(self.inputs())
            assert_same_output(expected, twin(self.inputs()))
            for parameter in twin.parameters():
                parameter.zero_()
            assert_same_output(expected, model(self.inputs()))

    def test_state_fits_a_fresh_model_strictly(self, model):
        torch.manual_seed(1)
        fresh = self.build().eval()
        with torch.inference_mode():
            assert not torch.equal(fresh(self.inputs()).logits, model(self.inputs()).logits)
            fresh.load_state_dict(model.state_dict(), strict=True)
            assert_same_output(fresh(self.inputs()), model(self.inputs()))


class ImageModelContract(ModelContract):
    """What holds for any model of images.

    A subclass names the image `sizes` it takes and whether its maps are "softmax", "sigmoid" or
    None.
    """

    sizes: tuple[tuple[int, int], ...] = ((32, 32), (33, 65), (96, 40))
    attention: str | None = None

    def inputs(self, batch=2, size=None):
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch, 3, *(size or self.sizes[-1]), generator=generator)

    def test_every_size_gives_logits_and_maps(self, model):
        for height, width in self.sizes:
            with torch.inference_mode():
                logits, attn1, attn2 = model(self.inputs(size=(height, width)))
            assert logits.shape == (2, 2)
            assert logits.isfinite().all()
            if self.attention is None:
                assert attn1 is None
                assert attn2 is None
                continue
            assert attn1.shape == (2, 1, height // 8, width // 8)
            assert attn2.shape == (2, 1, height // 16, width // 16)
            self.check_maps(attn1, attn2)

    def check_maps(self, *maps):
        for attention in maps:
            assert (attention > 0).all()
            assert (attention < 1).all()
            totals = attention.sum(dim=(1, 2, 3))
            if self.attention == "softmax":
                torch.testing.assert_close(totals, torch.ones_like(totals))
            else:
                assert (totals - 1).abs().min() > 1e-3

    @pytest.mark.parametrize("shape", [(2, 1, 224, 224), (3, 224, 224)])
    def test_images_without_three_channels_are_refused(self, model, shape):
        with pytest.raises(InputError, match=r"must be \(B, 3, H, W\)|takes images of 224"):
            model(torch.zeros(shape))

    @pytest.mark.parametrize("size", [(31, 224), (224, 31), (1, 1)])
    def test_images_below_32_pixels_are_refused(self, model, size):
        with pytest.raises(InputError, match=r"at least 32 pixels a side|takes images of 224"):
            model(torch.zeros(1, 3, *size))

    def test_memory_format_does_not_matter(self, model):
        with torch.inference_mode():
            expected = model(self.inputs())
            last = copy.deepcopy(model).to(memory_format=torch.channels_last)
            output = last(self.inputs().to(memory_format=torch.channels_last))
        for one, other in zip(expected, output, strict=True):
            if one is not None:
                torch.testing.assert_close(one, other, rtol=self.tolerance, atol=self.tolerance)


def assert_same_state(expected, actual):
    assert expected.keys() == actual.keys()
    for name in expected:
        assert expected[name].dtype == actual[name].dtype, name
        assert torch.equal(expected[name], actual[name]), name


def assert_same_output(expected, actual):
    for one, other in zip(expected, actual, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
