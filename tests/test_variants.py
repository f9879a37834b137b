"""Published networks with one thing changed: what changes, counted by hand."""

import json

import pytest
import torch
from torch import nn

import mnist_helpers as mh
from benchmarks import variants
from mnist_helpers.course import networks
from mnist_helpers.layers import count_parameters


@pytest.mark.parametrize(("network", "change", "difference"), [
    ("DoubleNorm", variants.as_published, 0),
    ("DoubleNorm", variants.no_norms, -2 * 2 * (16 + 32 + 64)),  # a scale and a shift a channel, twice a block
    ("DoubleNorm", variants.one_norm_a_block, -2 * (16 + 32 + 64)),
    ("DoubleNorm", variants.no_dropout, 0),
    ("TwentyEpochs", variants.wide_convolutions, (9 - 1) * (16 * 8 + 32 * 28)),
    ("Under20K", variants.as_published, 0),
    ("SixConvolutions", variants.wide_convolutions, (9 - 1) * 32 * 32),
    ("SixConvolutions", variants.no_norms, -2 * (8 + 16 + 16 + 32 + 32 + 32)),
    ("OptimizedMNISTNet", variants.no_norms, -2 * (8 + 16 + 16 + 32 + 16)),
    ("OptimizedMNISTNet", variants.wide_convolutions, (9 - 1) * (16 * 16 + 32 * 16)),
    ("OptimizedMNISTNet", variants.no_average_pooling, 10 * 16 * (7 * 7 - 1))])
def test_one_thing_is_changed(network, change, difference):
    before = networks.network(network)
    model = variants.untrained(network, change)
    assert count_parameters(model) - count_parameters(before) == difference
    dropped = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    rates = {"DoubleNorm": [0.1], "SixConvolutions": [0.05], "OptimizedMNISTNet": [0.1]}
    assert dropped == ([0.0] if change is variants.no_dropout else rates.get(network, []))
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_one_of_three_dropouts_is_called():
    before, after = networks.network("SixConvolutions"), variants.untrained("SixConvolutions", variants.one_dropout)
    seen = []
    after.dropout.register_forward_hook(lambda layer, inputs, output: seen.append(not output.equal(inputs[0])))
    for _ in range(2):
        after(torch.rand(2, 1, 28, 28))
    assert seen == [False, False, True] * 2
    after.load_state_dict(before.state_dict())
    images = torch.rand(2, 1, 28, 28)
    assert after.eval()(images).equal(before.eval()(images))


def test_without_average_pooling_only_the_classifier_differs():
    before = networks.network("OptimizedMNISTNet").eval()
    after = variants.untrained("OptimizedMNISTNet", variants.no_average_pooling).eval()
    with torch.no_grad():
        for name, layer in before.named_children():
            if name != "linear":
                after.get_submodule(name).load_state_dict(layer.state_dict())
        after.linear.weight.copy_(before.linear.weight.repeat_interleave(49, 1) / 49)  # the mean, as weights
        after.linear.bias.copy_(before.linear.bias)
        images = torch.rand(2, 1, 28, 28)
        torch.testing.assert_close(after(images), before(images), rtol=0, atol=1e-5)


def test_shifted_digits_move_one_way_each():
    images = torch.zeros(4, 1, 28, 28)
    images[:, 0, 10, 10] = 1
    places = variants.shifted(images, 3).nonzero()[:, 2:].tolist()
    assert places == [[10, 13], [10, 7], [13, 10], [7, 10]]
    assert variants.thicker(images).sum((1, 2, 3)).tolist() == [9, 9, 9, 9]


def test_a_variant_is_trained_once_under_each_planned_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "variants_file", lambda: tmp_path / "variants.jsonl")
    planned = variants.missing()
    assert [seed for variant, seed in planned if variant[0] == "Baseline, epochs: 20"] == [100, 101, 102, 103, 104]
    first = {"recipe": variants.digest(*planned[0][0][1:]), "seed": 100}
    variants.variants_file().write_text(json.dumps(first) + "\n", encoding="utf-8")
    assert variants.missing() == planned[1:]


def test_at_a_constant_rate_everything_is_the_same_but_for_the_drop(monkeypatch):
    """Up to the first step after the drop the losses are the same to the bit. Then they part."""
    monkeypatch.setitem(variants.TRAINED, "TwentyEpochs", variants.TRAINED["TwentyEpochs"] | {"drop_at": 1})
    images = torch.randint(0, 256, (96, 1, 28, 28), dtype=torch.uint8, generator=torch.manual_seed(0))
    split = mh.Split(images, torch.arange(96) % 10, "noise", "train", "mnist", "full")
    data = mh.data.Dataset("mnist", "full", split, split, split)
    lesson, constant = (variants.trainer("TwentyEpochs", change)("TwentyEpochs", change, 2, None, 7, data)
                        for change in (variants.as_published, variants.constant_rate))
    assert lesson.batch_loss[:3] == constant.batch_loss[:3] and lesson.batch_loss[3] != constant.batch_loss[3]
    assert (lesson.history["lr"], constant.history["lr"]) == ([2e-3, pytest.approx(2e-4)], [2e-3, 2e-3])
