"""Figures: what they show, their titles and labels, and that the digits sample announces itself in each."""

import io

import matplotlib.pyplot as plt
import pytest
import torch

import mnist_helpers as mh
from mnist_helpers import plots
from mnist_helpers.data import Split

SAMPLE = "the digits sample, not MNIST"


@pytest.fixture
def split(tiny):
    return Split(*tiny, "MNIST")


def history(source="MNIST", epochs=3):
    values = [0.9 - 0.1 * epoch for epoch in range(epochs)]
    return {"train_loss": values, "val_loss": values, "train_accuracy": values, "val_accuracy": values,
            "batch_loss": values * 4, "source": source}


def all_figures(split):
    logits = torch.nn.functional.one_hot(split.labels.roll(1), 10) * 5.0
    return {
        "samples": plots.samples(split),
        "augmentation": plots.augmentation(split, mh.Augment(mh.Rotation(15))),
        "curves": plots.curves(history(split.source)),
        "losses_by_step": plots.losses_by_step({"a": history(split.source), "b": history(split.source)}),
        "confusion": plots.confusion(split, logits),
        "mistakes": plots.mistakes(split, logits),
        "kernels": plots.kernels(torch.randn(4, 1, 3, 3), split.source),
        "feature_maps": plots.feature_maps(torch.randn(12, 14, 14), split.source),
        "accuracies": plots.accuracies(["a", "b"], [0.99, 0.98], [(0.985, 0.995), (0.97, 0.99)], [0.98, None],
                                       [None, 0.995], split.source),
        "seeds": plots.seeds({"a": [0.99, 0.98], "b": [0.97]}, split.source),
        "pictures": plots.pictures(split.images[:3], ["a", "b\nc", ""], split.source, "Pictures"),
    }


def test_every_figure_has_a_title_and_renders_on_white(split):
    for name, figure in all_figures(split).items():
        assert figure.get_suptitle(), name
        assert "[" not in figure.get_suptitle(), name
        assert figure.get_facecolor() == (1, 1, 1, 1), name
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        assert len(picture.getvalue()) > 1000, name
    assert not plt.get_fignums(), "figures left open are shown twice"


def test_the_sample_announces_itself_in_every_title(tiny):
    for name, figure in all_figures(Split(*tiny, SAMPLE)).items():
        assert SAMPLE in figure.get_suptitle(), name


@pytest.mark.parametrize("name", ["curves", "losses_by_step", "confusion", "accuracies", "seeds"])
def test_axes_are_labelled(split, name):
    for axis in all_figures(split)[name].axes:
        assert axis.get_ylabel() and axis.get_xlabel()


def test_confusion_counts(split):
    logits = torch.nn.functional.one_hot(split.labels, 10) * 5.0
    logits[0] = torch.nn.functional.one_hot((split.labels[0] + 1) % 10, 10) * 5.0
    figure = plots.confusion(split, logits)
    assert figure.get_suptitle() == "Confusions: 1 of 100 images"
    texts = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
             for text in figure.axes[0].texts}
    label = int(split.labels[0])
    assert texts[label, (label + 1) % 10] == "1"
    assert sum(int(text) for text in texts.values()) == 100


def test_mistakes_are_the_surest_wrong_answers_first(split):
    logits = torch.nn.functional.one_hot(split.labels, 10).float() * 9
    for index, sure in ((3, 2.0), (8, 6.0)):
        logits[index] = torch.nn.functional.one_hot((split.labels[index] + 1) % 10, 10) * sure
    titles = [axis.get_title() for axis in plots.mistakes(split, logits).axes]
    labels = split.labels.tolist()
    assert len(titles) == 2
    assert titles[0].startswith(f"{labels[8]} taken for {(labels[8] + 1) % 10}")
    assert titles[0].endswith("98% sure")  # e^6 / (e^6 + 9)
    assert titles[1].startswith(f"{labels[3]} taken for")
    assert plots.mistakes(split, torch.nn.functional.one_hot(split.labels, 10) * 9.0).get_suptitle() == "No mistakes"


def test_curves_show_percent(split):
    accuracy = plots.curves(history()).axes[1]
    assert accuracy.get_lines()[0].get_ydata() == pytest.approx([90, 80, 70])
    assert [text.get_text() for text in accuracy.figure.axes[0].get_legend().get_texts()] == [
        "training (while learning)", "validation"]
