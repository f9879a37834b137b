"""A learner's mistakes: each gives one sentence with the remedy, and the course's networks give none."""

import math
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mnist_helpers as mh
from mnist_helpers import check
from mnist_helpers.course import catalogue, networks


class Net(nn.Module):
    """Two layers; ``change`` puts one mistake in."""

    def __init__(self, change=None):
        super().__init__()
        self.change = change
        self.conv = nn.Conv2d(3 if change == "channels" else 1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(8 if change == "norm" else 4)
        self.linear = nn.Linear({"size": 100}.get(change, 4 * 14 * 14), 12 if change == "twelve" else 10)
        self.hidden = [nn.Linear(10, 10)]

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        if self.change == "maps":
            return x
        if self.change == "dropout":
            x = F.dropout(x, 0.5)
        x = self.linear(x if self.change == "flat" else x.flatten(1))
        if self.change == "list":
            return self.hidden[0](x)
        if self.change in ("softmax", "relu"):
            return x.softmax(1) if self.change == "softmax" else x.relu()
        if self.change == "two":
            return x, x
        return None if self.change == "return" else x


def looked_at(model, labels=range(10), loss_fn=F.cross_entropy, classes=10):
    torch.manual_seed(0)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            check.check_network(model, torch.rand(10, 1, 28, 28), torch.tensor(list(labels)), loss_fn, classes)
        finally:
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "only a look"
            assert all(module.training for module in model.modules())
    return [str(warning.message) for warning in told]


@pytest.mark.parametrize(("change", "sentence"), [
    ("channels", r"conv \(Conv2d\) takes 3 channels and was given 1: its first argument has to be 1"),
    ("norm", r"norm \(BatchNorm2d\) takes 8 channels and was given 4: write 4"),
    ("flat", r"linear \(Linear\) takes 784 numbers .*given \(10, 4, 14, 14\): flatten .*`x\.flatten\(1\)`.* 784 of it"),
    ("size", r"linear \(Linear\) takes 100 numbers .* was given 784: write nn\.Linear\(784, 10\)"),
    ("return", "Net.forward returns nothing: end it with `return`"),
    ("two", "returns a tuple, not a tensor of logits"),
    ("maps", r"makes \(10, 4, 14, 14\) of 10 images, and logits are \(images, classes\)"),
    ("list", "110 weights are computed with and not registered.*nn.ModuleList")])
def test_what_cannot_be_meant_is_an_error(change, sentence):
    with pytest.raises(check.NetworkError, match=sentence) as refused:
        looked_at(Net(change))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("change", "sentence"), [
    ("twelve", "12 outputs, and the labels are 0 to 9: 10 are enough"),
    ("softmax", "ends in a softmax, and cross-entropy applies one itself"),
    ("relu", "ends in a ReLU"), ("dropout", "random numbers in eval mode too.*training=self.training")])
def test_what_is_hardly_meant_is_a_warning(change, sentence):
    (told,) = looked_at(Net(change))
    assert re.search(sentence, told)


@pytest.mark.parametrize(("labels", "sentence"), [
    ([*range(9), 10], "a label is 10, and the network has 10 outputs, for the classes 0 to 9"),
    (range(1, 11), "labels that count from 1 are to be given as `labels - 1`"), ([-1] * 10, "a label is -1")])
def test_labels_outside_the_classes_are_named(labels, sentence):
    with pytest.raises(check.NetworkError, match=sentence):
        looked_at(Net(), labels)


def test_nll_loss_takes_log_probabilities():
    for loss_fn in (F.nll_loss, nn.NLLLoss()):
        with pytest.raises(check.NetworkError, match=r"log-probabilities.*F\.cross_entropy"):
            looked_at(Net(), loss_fn=loss_fn)
        assert looked_at(nn.Sequential(Net(), nn.LogSoftmax(1)), loss_fn=loss_fn) == []


class Rows(nn.Module):
    """An LSTM over the rows, whose sums round otherwise where no gradient is asked for."""

    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(28, 32, 2, batch_first=True), nn.Linear(32, 10)

    def forward(self, x):
        return self.linear(self.lstm(x[:, 0])[0][:, -1])


def test_other_networks_and_those_of_the_course_raise_no_alarm():
    attention = nn.Sequential(nn.Flatten(2), nn.Linear(784, 32), nn.TransformerEncoderLayer(32, 4, batch_first=True),
                              nn.Flatten(), nn.Linear(32, 10))
    for model in (Rows(), attention, *(networks.network(each.name) for each in catalogue.networks())):
        assert looked_at(model) == [], type(model).__name__


def test_fit_looks_before_its_first_step():
    model, images = Net("flat"), torch.zeros(20, 1, 28, 28, dtype=torch.uint8)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(check.NetworkError, match="flatten before"):
        mh.fit(model, (images, torch.arange(20) % 10), None, epochs=1, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_loss_above_that_of_guessing_names_the_rate():
    with pytest.warns(UserWarning, match=r"loss is 557, and guessing has 2\.30: the learning rate, 10, is probably too"):
        check.check_loss(557.0, 10, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check.check_loss(math.log(10), 10, 10)


def test_dark_ink_on_paper_is_noticed_where_a_network_is_evaluated(recwarn):
    """Also as floats; and never on images of MNIST's kind, of a few bright ones, of one colour, or on none."""
    mnist, model = mh.load_mnist(profile="quick", verbose=False).test, Net()
    some = mnist.images[:40].clone()
    some[:20] = 255 - some[:20]
    for images in (mnist.images[:500], some, torch.full((5, 1, 28, 28), 200, dtype=torch.uint8), mnist.images[:500] / 255):
        mh.evaluate(model, (images, mnist.labels[: len(images)]))
    assert not recwarn.list
    for images in (255 - mnist.images[:40], 1 - mnist.images[:40] / 255):
        with pytest.warns(UserWarning, match=r"bright border.*255 - images.*prepare_photo"):
            mh.evaluate(model, (images, mnist.labels[:40]))
