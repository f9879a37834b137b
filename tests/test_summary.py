"""torchsummary's totals against the parameters themselves, and what the summary must not touch."""

import copy

import pytest
import torch
from torch import nn

import mnist_helpers as mh


class Odd(nn.Module):
    """A module never run, one run twice, and a parameter that is neither weight nor bias."""

    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.first = nn.Linear(784, 10)
        self.twice = nn.Linear(10, 10)
        self.unused = nn.BatchNorm1d(7)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.twice(self.twice(self.first(self.flatten(x)))) * self.scale[0]


def test_total_is_that_of_the_parameters(network, capsys):
    model = network()
    mh.summary(model, budget=2_500)
    said = capsys.readouterr().out
    by_hand = (9 * 4 + 4) + 2 * 4 + (4 * 7 * 7 * 10 + 10)
    assert by_hand == sum(p.numel() for p in model.parameters()) == 2_018
    assert "Total params: 2,018" in said and "2,018 of 2,500 parameters: within the budget" in said
    assert "torchsummary counts" not in said


def test_a_budget_that_is_overrun_says_by_how_much(network, capsys):
    mh.summary(network(), budget=2_000)
    assert "2,018 of 2,000 parameters: 18 over the budget" in capsys.readouterr().out


def test_a_difference_is_explained_by_name(capsys):
    mh.summary(Odd())
    said = capsys.readouterr().out
    assert "torchsummary counts 8,070 parameters, the model has 7,977 registered" in said
    assert "unused (BatchNorm1d, 14 parameters) is registered but never run" in said
    assert "twice (Linear, 110 parameters) is run 2 times" in said
    assert "the model itself (Odd, 3 parameters) has parameters torchsummary does not look for: scale" in said
    assert "first" not in said


def test_layers_in_a_plain_list_count_against_the_budget(capsys):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(784, 10)
            self.layers = [nn.Linear(784, 784, bias=False)]

        def forward(self, x):
            return self.last(self.layers[0](x.flatten(1)))

    mh.summary(Hidden(), (1, 28, 28), budget=10_000)
    said = capsys.readouterr().out
    assert f"{784 * 784:,}" in said and f"{784 * 784 + 7_850 - 10_000:,} over the budget" in said
    mh.summary(Odd(), budget=10_000)
    assert "7,977 of 10,000" in capsys.readouterr().out


def test_shared_weights_are_named(capsys):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 784), nn.Linear(784, 784))
    model[2].weight = model[1].weight
    mh.summary(model)
    said = capsys.readouterr().out
    assert "torchsummary counts 1,230,880 parameters, the model has 616,224 registered:\n  2 (Linear" in said
    assert "shares parameters with a module before it" in said


def test_model_and_random_state_stay_as_they_were(network):
    model = network().train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    mh.summary(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_another_device_is_summarised_and_stays_there(network, capsys):
    model = network().cuda()
    mh.summary(model)
    assert "Total params: 2,018" in capsys.readouterr().out
    assert all(parameter.is_cuda for parameter in model.parameters())


def test_a_wrong_input_size_is_named(network):
    with pytest.raises(ValueError, match=r"Sequential does not take an input of shape \(3, 28, 28\)"):
        mh.summary(network(), input_size=(3, 28, 28))


def test_a_model_without_parameters_is_named():
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        mh.summary(nn.ReLU())


def test_a_recurrent_network_is_one_sentence():
    """torchsummary fails on layers that return more than a tensor."""
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.last = nn.LSTM(28, 8, batch_first=True), nn.Linear(8, 10)

        def forward(self, x):
            return self.last(self.rows(x[:, 0])[0][:, -1])

    with pytest.raises(ValueError, match=r"nn\.LSTM.* has 1,306 parameters, and can be trained"):
        mh.summary(Rows())
    assert mh.layers.count_parameters(Rows()) == 4 * 8 * (28 + 8 + 2) + 90
