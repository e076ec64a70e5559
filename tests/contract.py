"""Properties that every model must have; a model's tests inherit them and say how to build it."""

import copy
import inspect

import pytest
import torch

from attnvgg.errors import InputError
from attnvgg.models import BagClassifier, load_pretrained


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


class BagModelContract(ModelContract):
    """What holds for any model of bags.

    A subclass names the specifications of `encoder` and `pool`, and the shape of an instance.
    """

    encoder: dict[str, object]
    pool: dict[str, object]
    instance_shape: tuple[int, ...]
    lengths = (3, 1, 6, 2)

    def build(self, num_classes=2):
        head = {"name": "linear", "num_classes": num_classes}
        return BagClassifier(self.encoder, self.pool, head)

    def inputs(self, batch=2):
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch, 5, *self.instance_shape, generator=generator)

    @pytest.fixture
    def ragged(self):
        """Instances of all bags, and the offsets."""
        generator = torch.Generator().manual_seed(3)
        rows = torch.randn(sum(self.lengths), *self.instance_shape, generator=generator)
        return rows, torch.tensor([0, *self.lengths]).cumsum(0)

    def pad(self, rows, filler):
        """Return the bags as a padded batch and its mask, the padding between real instances."""
        mask = torch.zeros(len(self.lengths), 2 * max(self.lengths), dtype=torch.bool)
        for bag, length in enumerate(self.lengths):
            mask[bag, bag % 2 : bag % 2 + 2 * length : 2] = True
        padded = torch.full((*mask.shape, *self.instance_shape), filler)
        padded[mask] = rows
        return padded, mask

    def close(self, one, other):
        torch.testing.assert_close(one, other, rtol=self.tolerance, atol=self.tolerance)

    @pytest.mark.parametrize("filler", [0.0, 1e30, torch.nan])
    def test_padding_changes_nothing(self, model, ragged, filler):
        rows, offsets = ragged
        padded, mask = self.pad(rows, filler)
        expected = model(rows, offsets)
        output = model(padded, mask=mask)
        self.close(output.logits, expected.logits)
        gradients = [
            torch.autograd.grad(logits.square().sum(), list(model.parameters()))
            for logits in (expected.logits, output.logits)
        ]
        for one, other in zip(*gradients, strict=True):
            self.close(other, one)
        if expected.attention is not None:
            assert output.attention.shape[:2] == mask.shape
            self.close(output.attention[mask], expected.attention)
            assert not output.attention[~mask].any()

    def test_ragged_bags_equal_the_bags_alone(self, model, ragged):
        rows, offsets = ragged
        with torch.inference_mode():
            together = model(rows, offsets)
            for bag, part in enumerate(rows.split(self.lengths)):
                alone = model(part[None])
                self.close(alone.logits[0], together.logits[bag])
                if together.attention is not None:
                    attention = together.attention.split(self.lengths)[bag]
                    self.close(alone.attention[0], attention)

    def test_order_of_the_instances_changes_nothing(self, model, ragged):
        rows, offsets = ragged
        generator = torch.Generator().manual_seed(4)
        order = torch.cat(
            [
                start + torch.randperm(length, generator=generator)
                for start, length in zip(offsets.tolist(), self.lengths, strict=False)
            ]
        )
        assert not torch.equal(order, order.sort().values)
        with torch.inference_mode():
            expected, output = model(rows, offsets), model(rows[order], offsets)
        self.close(output.logits, expected.logits)
        if expected.attention is not None:
            self.close(output.attention, expected.attention[order])

    def test_attention_of_a_bag_sums_to_one(self, model, ragged):
        with torch.inference_mode():
            attention = model(*ragged).attention
        assert (attention is not None) == model.pool.has_weights
        if attention is not None:
            assert attention.shape == (sum(self.lengths), model.pool.branches)
            assert (attention >= 0).all()
            for part in attention.split(self.lengths):
                self.close(part.sum(dim=0), torch.ones(model.pool.branches))

    def test_every_instance_has_its_say(self, model, ragged):
        rows, offsets = ragged
        rows = rows.requires_grad_()
        model(rows, offsets).logits.square().sum().backward()
        touched = rows.grad.flatten(1).abs().amax(dim=1) > 0
        if "max" not in model.pool.name.split("_"):  # a maximum may overlook instances
            assert touched.all()
        assert touched[3]  # the only instance of its bag

    def test_bags_without_instances_are_named(self, model, ragged):
        rows, _ = ragged
        with pytest.raises(InputError, match="without instances") as caught:
            model(rows, torch.tensor([0, 4, 4, 12, 12]))
        assert caught.value.offenders == ["bag 1", "bag 3"]
        padded, mask = self.pad(rows, 0.0)
        mask[2] = False
        with pytest.raises(InputError, match="without instances") as caught:
            model(padded, mask=mask)
        assert caught.value.offenders == ["bag 2"]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_weights_are_close(self, model, ragged, dtype):
        rows, offsets = ragged
        with torch.inference_mode():
            full = model(rows, offsets)
            half = copy.deepcopy(model).to(dtype)(rows.to(dtype), offsets)
        assert half.logits.dtype == dtype
        torch.testing.assert_close(half.logits.float(), full.logits, rtol=0.05, atol=0.05)
        if full.attention is not None:
            assert half.attention.dtype == torch.float32

    @pytest.mark.parametrize("chunk_size", [1, 2, 4])
    def test_streaming_changes_nothing(self, model, ragged, chunk_size):
        rows, offsets = ragged
        rows = rows.requires_grad_()
        outputs, gradients = [], []
        for model.chunk_size in (None, chunk_size):
            output = model(rows, offsets)
            wanted = [rows, *model.parameters()]
            for tensor in wanted:
                tensor.grad = None
            output.logits.square().sum().backward()
            outputs.append(output)
            gradients.append([tensor.grad for tensor in wanted])
        for one, other in zip(*outputs, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                self.close(other, one)
        for one, other in zip(*gradients, strict=True):
            self.close(other, one)


def assert_same_state(expected, actual):
    assert expected.keys() == actual.keys()
    for name in expected:
        assert expected[name].dtype == actual[name].dtype, name
        assert torch.equal(expected[name], actual[name]), name


def assert_same_output(expected, actual):
    for one, other in zip(expected, actual, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
