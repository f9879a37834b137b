"""Published networks with one thing changed: what changes, counted by hand."""

import json

import pytest
from torch import nn

from benchmarks import variants
from mnist_helpers.course import networks
from mnist_helpers.layers import count_parameters


@pytest.mark.parametrize(("network", "change", "difference"), [
    ("DoubleNorm", variants.as_published, 0),
    ("DoubleNorm", variants.no_norms, -2 * 2 * (16 + 32 + 64)),  # a scale and a shift a channel, twice a block
    ("DoubleNorm", variants.one_norm_a_block, -2 * (16 + 32 + 64)),
    ("DoubleNorm", variants.no_dropout, 0),
    ("TwentyEpochs", variants.wide_convolutions, (9 - 1) * (16 * 8 + 32 * 28)),
    ("Under20K", variants.as_published, 0)])
def test_one_thing_is_changed(network, change, difference):
    before = networks.network(network)
    model = variants.untrained(network, change)
    assert count_parameters(model) - count_parameters(before) == difference
    dropped = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert dropped == ([0.0] if change is variants.no_dropout else [0.1] if network == "DoubleNorm" else [])


def test_a_variant_is_trained_once_under_each_planned_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "variants_file", lambda: tmp_path / "variants.jsonl")
    planned = variants.missing()
    assert [seed for variant, seed in planned if variant[0] == "Baseline, epochs: 20"] == [100, 101, 102, 103, 104]
    first = {"recipe": variants.digest(*planned[0][0][1:]), "seed": 100}
    variants.variants_file().write_text(json.dumps(first) + "\n", encoding="utf-8")
    assert variants.missing() == planned[1:]
