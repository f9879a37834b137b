"""Figures: what they show, their titles and labels, and that the digits sample announces itself in each."""

import io
import math
import re

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from torch import nn
from torch.nn.functional import max_pool2d, one_hot
from torch.utils.data import DataLoader, TensorDataset

import mnist_helpers as mh
from mnist_helpers import diagram, figures, plots, words
from mnist_helpers.data import Split

SAMPLE = "the digits sample, not MNIST"


@pytest.fixture
def split(tiny):
    return Split(*tiny, "MNIST")


class Answers(nn.Module):
    """A network that gives these logits whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits.float()


def evaluation(split, logits=None):
    """By default every image is taken for the label before it."""
    return mh.evaluate(Answers(one_hot(split.labels.roll(1), 10) * 5 if logits is None else logits), split)


def trained(split, val=True):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return mh.fit(model, mh.Loader(split, 32), split if val else None, epochs=3,
                  optimizer=torch.optim.SGD(model.parameters(), lr=0.01))


class Small(nn.Module):
    def __init__(self, channels=4, dropout=None):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.linear = nn.Linear(channels * 14 * 14, 10)

    def forward(self, x):
        return self.linear(self.dropout(max_pool2d(self.norm(self.conv(x)).relu(), 2)).flatten(1))


FIGURES = {}  # drawn once for all tests, {source: {name: figure}}


def all_figures(split):
    if split.source not in FIGURES:
        FIGURES[split.source] = drawn(split)
    return FIGURES[split.source]


def drawn(split):
    run = trained(split)
    return {
        "samples": plots.samples(split),
        "augmentation": plots.augmentation(split, mh.Augment(mh.Rotation(15))),
        "curves": plots.curves(run),
        "curves without validation": plots.curves(trained(split, val=False)),
        "losses_by_step": plots.losses_by_step({"a": run, "b": run}),
        "confusion": plots.confusion(evaluation(split)),
        "mistakes": plots.mistakes(evaluation(split)),
        "kernels": plots.kernels(torch.randn(4, 1, 3, 3), split.source),
        "feature_maps": plots.feature_maps(torch.randn(12, 14, 14), split.source),
        "accuracies": plots.accuracies(["a", "b"], [0.99, 0.98], [(0.985, 0.995), (0.97, 0.99)], [0.98, None],
                                       [None, 0.995], split.source),
        "seeds": plots.seeds({"a": [0.99, 0.98], "b": [0.97]}, split.source),
        "frontier": plots.frontier({"a": (3_000, 0.994, 0.0004), "b": (20_000, 0.95, math.nan)}, [(9_000, 0.995)],
                                   "parameters", "Accuracy", split.source),
        "pictures": plots.pictures(split.images[:3], ["a", "b\nc", ""], split.source, "Pictures"),
        "marked": plots.marked(split.images[:3], split.images[:3] > 99, [], split.source, "Marked"),
        "network": plots.network(Small(), nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), f"A network {split.source}"),
        "channels": plots.channels({"a": torch.randn(4, 3, 5, 5), "b": torch.randn(4, 3, 5, 5)}, split.source),
        "before_and_after": plots.before_and_after({"a": (torch.randn(9), torch.randn(9))}, split.source, "A layer"),
    }


def test_every_figure_has_a_title_and_renders_on_white(split):
    plt.close("all")  # what tests of other files in this worker left open
    for name, figure in all_figures(split).items():
        assert figure.get_suptitle(), name
        assert "[" not in figure.get_suptitle(), name
        assert figure.get_facecolor() == (1, 1, 1, 1), name
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        assert len(picture.getvalue()) > 1000, name
    assert not plt.get_fignums(), "figures left open are shown twice"


def test_the_words_of_figures_are_in_one_list(split):
    """But for names, and what a notebook says."""
    names = {"a", "b", "c", "A", "Accuracy", "Marked", "MNIST", "Pictures", "Identity", "Sequential", "mathdefault"}
    spoken = dict.fromkeys(words.WORDS, "")
    for name, figure in all_figures(split).items():
        for text in figure.findobj(Text):
            assert set(re.findall("[A-Za-z]+", words.said(text.get_text(), spoken))) <= names, (name, text.get_text())


def test_the_sample_announces_itself_in_every_title(tiny):
    for name, figure in all_figures(Split(*tiny, SAMPLE)).items():
        assert SAMPLE in figure.get_suptitle(), name


@pytest.mark.parametrize("name", ["curves", "losses_by_step", "confusion", "accuracies", "seeds", "frontier"])
def test_axes_are_labelled(split, name):
    for axis in all_figures(split)[name].axes:
        assert axis.get_ylabel() and axis.get_xlabel()


@pytest.mark.parametrize("name", ["channels", "before_and_after"])
def test_shared_axes_are_labelled_on_the_outside(split, name):
    axes = all_figures(split)[name].axes
    assert axes[0].get_ylabel() and all(axis.get_xlabel() and axis.get_title() for axis in axes)
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in axes}) == 1


def test_a_smoothed_loss_lies_on_a_straight_one(split):
    """A mean drawn at the end of its steps would lag behind."""
    run = trained(split)
    run.batch_loss = [3 - step / 100 for step in range(200)]
    raw, smooth = plots.losses_by_step({"a": run}, window=51).axes[0].lines
    places = smooth.get_xdata().astype(int)
    assert (places[0], places[-1]) == (26, 175)
    assert smooth.get_ydata() == pytest.approx(raw.get_ydata()[places - 1])


def test_confusion_counts(split):
    logits = one_hot(split.labels, 10) * 5
    logits[0] = one_hot((split.labels[0] + 1) % 10, 10) * 5
    figure = plots.confusion(evaluation(split, logits))
    assert figure.get_suptitle() == "Confusions: 1 of 100 images"
    texts = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
             for text in figure.axes[0].texts}
    label = int(split.labels[0])
    assert texts[label, (label + 1) % 10] == "1"
    assert sum(int(text) for text in texts.values()) == 100


def test_mistakes_are_the_surest_wrong_answers_first(split):
    logits = one_hot(split.labels, 10) * 9
    for index, sure in ((3, 2), (8, 6)):
        logits[index] = one_hot((split.labels[index] + 1) % 10, 10) * sure
    titles = [axis.get_title() for axis in plots.mistakes(evaluation(split, logits)).axes]
    labels = split.labels.tolist()
    assert len(titles) == 2
    assert titles[0].startswith(f"{labels[8]} taken for {(labels[8] + 1) % 10}")
    assert titles[0].endswith("98% sure")  # e^6 / (e^6 + 9)
    assert titles[1].startswith(f"{labels[3]} taken for")
    assert len(plots.mistakes(evaluation(split, logits), count=1).axes) == 1
    assert plots.mistakes(evaluation(split, one_hot(split.labels, 10) * 9)).get_suptitle() == "No mistakes"
    with pytest.raises(ValueError, match="images"):  # of batches, which are gone
        plots.mistakes(mh.evaluate(Answers(logits), DataLoader(TensorDataset(split.images, split.labels), 100)))


def test_curves_show_percent_and_steps_are_all_there(split):
    run = trained(split)
    run.history["train_accuracy"] = [0.9, 0.8, 0.7]
    accuracy = plots.curves(run).axes[1]
    assert accuracy.get_lines()[0].get_ydata() == pytest.approx([90, 80, 70])
    for steps, drawn in ((None, run.batch_loss), (5, run.batch_loss[:5])):
        (line,) = plots.losses_by_step({"a": run}, steps=steps).axes[0].get_lines()
        assert list(line.get_ydata()) == drawn and line.get_xdata()[0] == 1
    assert [text.get_text() for text in accuracy.figure.axes[0].get_legend().get_texts()] == [
        "training (while learning)", "validation"]


def test_rows_of_pictures_are_labelled_and_take_room_for_their_own_titles_only(split):
    titles = ["a", "b\nc", "", ""]
    figure = plots.pictures(split.images[:4], titles, "MNIST", "Pictures", columns=2, row_labels=["one", "two"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["one", "", "two", ""]
    everywhere = plots.pictures(split.images[:4], ["b\nc"] * 4, "MNIST", "Pictures", columns=2)
    assert figure.get_figheight() < everywhere.get_figheight()


def test_marks_are_orange_as_strong_as_given(split):
    marks = torch.rand(2, 1, 28, 28)
    figure = plots.marked(split.images[:2], marks, [], "MNIST", "Marked")
    for axis, mark, image in zip(figure.axes, marks[:, 0], split.images[:2, 0], strict=True):
        below, above = (each.get_array() for each in axis.get_images())
        assert (below == image.numpy()).all() and (above[..., 3] == mark.numpy()).all()
        assert above.data[0, 0, :3] == pytest.approx(to_rgb(plots.ORANGE))


def test_channels_show_mean_and_quantiles_of_each_channel():
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(20, 3, 5, 5, generator=generator) + torch.arange(3).view(1, 3, 1, 1)
    (axis,) = plots.channels({"a": activations}, "MNIST").axes
    each = activations.transpose(0, 1).flatten(1)
    lines = axis.get_lines()
    assert lines[-1].get_ydata() == pytest.approx(each.mean(1))
    ends = torch.tensor([value for line in lines for value in line.get_ydata()])
    for channel in each:
        for share in (0.05, 0.95):  # the whisker ends at the number next to the quantile
            assert (ends - channel.quantile(share)).abs().min() < 0.05
    assert list(axis.get_xticks()) == [0, 1, 2]


def test_before_and_after_pairs_the_numbers_and_draws_no_more_than_asked():
    before = torch.randn(7, 1_000)
    (axis,) = plots.before_and_after({"a": (before, 2 * before + 1)}, "MNIST", "A layer", per_panel=500).axes
    x, y = axis.get_lines()[0].get_data()
    assert 400 < len(x) <= 500 and y == pytest.approx(2 * x + 1)


def test_the_frontier_leaves_no_network_out():
    ours = {f"network {number}": (3_000 + number, 0.994, 0.0004) for number in range(20)}
    (axis,) = plots.frontier(ours, [(9_000, 0.995)], "parameters", "Parameters").axes
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {*ours, "published, single runs"}


def test_the_frontier_shows_percent_and_leaves_out_what_would_flatten_it():
    figure = plots.frontier({"a": (3_000, 0.994, 0.0004), "b": (20_000, 0.95, 0.01)}, [(9_000, 0.995), (1, 0.9)],
                            "parameters", "Accuracy")
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["published, single runs", "a"]
    published, ours = (line.get_ydata() for line in axis.get_lines()[:2])
    assert list(published) == pytest.approx([99.5]) and list(ours) == pytest.approx([99.4])


def test_descents_show_each_path_and_its_last_loss():
    valley = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    path = torch.tensor([[1.0, -2.0], [0.5, 0.5], [0.1, 0.2]])
    figure = plots.descents({"a": (valley, path), "b": (valley, 2 * path)}, "Two ways down", columns=2)
    first, second = figure.axes
    assert first.get_title() == "a: 0.0750"                        # (3 * 0.01 + 2 * 0.02 + 2 * 0.04) / 2
    x, y = second.get_lines()[0].get_data()
    assert list(x) == pytest.approx([2, 1, 0.2]) and list(y) == pytest.approx([-4, 1, 0.4])


def test_products_are_shown_as_correlations_and_eigenvalues():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(50, 4, generator=generator) * torch.tensor([1.0, 10.0, 100.0, 0.1])
    figure = plots.products(gradients.T @ gradients / 50, "MNIST")
    shown = figure.axes[0].get_images()[0].get_array()
    cosines = torch.nn.functional.cosine_similarity(gradients.T[:, None], gradients.T[None], dim=2)
    assert shown.data == pytest.approx(cosines.numpy(), abs=1e-5)
    values = figure.axes[1].get_lines()[0].get_ydata()
    assert values == pytest.approx((torch.linalg.svdvals(gradients) ** 2 / torch.linalg.svdvals(gradients)[0] ** 2),
                                   rel=1e-3)


def test_layers_are_counted_as_by_hand():
    conv, norm, pool, identity, linear = diagram.layers(Small())
    assert (conv.shape, conv.parameters, conv.multiplications) == ((4, 28, 28), 4 * 9 + 4, 4 * 9 * 28 * 28)
    assert (norm.shape, norm.parameters, norm.multiplications) == ((4, 28, 28), 8, 4 * 28 * 28)
    assert (pool.kind, pool.shape, pool.parameters, pool.multiplications) == ("pool", (4, 14, 14), 0, 0)
    assert (linear.shape, linear.parameters, linear.multiplications) == ((10,), 784 * 10 + 10, 784 * 10)
    strided = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False), nn.Conv2d(6, 6, 3, groups=6))
    first, second = diagram.layers(strided)
    assert (first.multiplications, second.multiplications) == (6 * 9 * 14 * 14, 6 * 9 * 12 * 12)
    assert second.kind == "depthwise 3×3" and second.parameters == 6 * 9 + 6


def test_a_layer_used_twice_counts_its_parameters_once():
    layer = nn.Linear(784, 784)
    first, second = diagram.layers(nn.Sequential(nn.Flatten(), layer, layer))[1:]
    assert (first.parameters, second.parameters) == (784 * 785, 0)
    assert first.multiplications == second.multiplications == 784**2


def test_a_diagram_leaves_the_network_and_the_random_state_as_they_were():
    model = Small(dropout=0.5).train()
    model.norm.eval()  # frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    plots.network(model, before=mh.network("Baseline"))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and model.dropout.training and not model.norm.training
    assert not any(module._forward_hooks for module in model.modules())


def test_what_differs_is_marked_in_words():
    new, old = diagram.layers(Small(8, dropout=0.5)), diagram.layers(nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 10)))
    marks = {(row.kind, row.mark, row.was) for row in diagram.compared(old, new)}
    assert {("conv 3×3", "changed", "1 → 4"), ("batch norm", "new", ""), ("dropout", "new", ""),
            ("max pool", "removed", ""), ("linear", "changed", "784 → 10")} <= marks
    assert not any(row.mark for row in diagram.compared(new, new))
    figure = plots.network(Small(8, dropout=0.5), before=Small(4))
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert "+ new" in shown and "≠ changed" in shown and "was 1 → 4" in shown
    assert "dropout 0.5" in figure.alt and "was 1 to 4" in figure.alt


def test_lessons_networks_are_new_each_time_and_draw_nothing():
    state = torch.get_rng_state()
    model = mh.network("TwentyEpochs")
    assert torch.equal(state, torch.get_rng_state())
    assert type(model).__name__ == "TwentyEpochs" and sum(p.numel() for p in model.parameters()) == 18_374
    assert mh.network("TwentyEpochs") is not model
    with pytest.raises(ValueError, match="TwentyEpochs"):
        mh.network("NoSuch")


def test_curves_show_the_drop_of_the_rate_and_the_lesson_before(split):
    run = trained(split)
    run.history |= {"train_loss": [2, 0.4, 0.3, 0.2], "val_loss": [0.5, 0.3, 0.2, 0.1], "lr": [0.1, 0.1, 0.01, 0.01],
                    "train_accuracy": [0.1, 0.97, 0.98, 0.99], "val_accuracy": [0.96, 0.97, 0.98, 0.985]}
    figure = plots.curves(run, before={"lesson 2": [0.95, 0.96]})
    loss, accuracy = figure.axes
    assert accuracy.get_lines()[0].get_ydata() == pytest.approx([95, 96])
    assert 90 < accuracy.get_ylim()[0] < 96 and loss.get_ylim()[1] < 1
    assert [text.get_text() for text in loss.texts] == ["rate 0.1 → 0.01"]
    assert any(list(line.get_xdata()) == [2.5, 2.5] for line in loss.get_lines())
    assert "drops from 0.1 to 0.01 after epoch 2" in figure.alt and "96.00% to 98.50%" in figure.alt
    assert "lesson 2, validation" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    run.history["lr"] = [0.1, 0.1, 0.1, 0.1]
    assert not plots.curves(run, before=run).axes[0].texts


def test_a_published_log_lies_over_the_band_of_our_runs():
    ours = [[0.5, 0.97, 0.98, 0.99], [0.6, 0.96, 0.99, 0.98], [0.4, 0.965, 0.985, 0.985]]
    figure = plots.bands({"test": (ours, [0.55, 0.95, 0.985, 0.995]), "training": (ours[:1], ours[1])}, "A log")
    test, training = figure.axes
    low_and_high = test.collections[0].get_paths()[0].vertices[:, 1]
    assert sorted({round(value, 6) for value in low_and_high}) == [40, 60, 96, 97, 98, 99]
    published, rings = test.get_lines()
    assert published.get_ydata() == pytest.approx([55, 95, 98.5, 99.5])
    assert list(rings.get_xdata()) == [2, 4] and rings.get_ydata() == pytest.approx([95, 99.5])
    assert 94 < test.get_ylim()[0] < 95 and not training.collections
    assert "outside of the band of our 3 runs in 2 of 4 epochs" in figure.alt
    assert "ends at 99.50 %, ours at 98.00 to 99.00 %" in figure.alt
    quick = plots.bands({"training": ([[0.5, 0.6]], [0.55, 0.95, 0.985, 0.995])}, "A log").axes[0]
    assert [len(line.get_xdata()) for line in quick.get_lines()] == [2, 4]


def test_noisy_losses_are_smoothed_over_the_raw_ones(split):
    run = trained(split)
    run.batch_loss = [float(step % 2) for step in range(200)]
    raw, mean = plots.losses_by_step({"a": run}).axes[0].get_lines()
    assert list(raw.get_ydata()) == run.batch_loss and raw.get_alpha() < 0.5
    assert mean.get_ydata() == pytest.approx([0.5] * 151) and list(mean.get_xdata()) == list(range(26, 177))


def test_alt_text_reaches_the_page(split):
    nbformat, nbconvert = pytest.importorskip("nbformat"), pytest.importorskip("nbconvert")
    figure = all_figures(split)["network"]
    data, metadata = figure._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", data, metadata=metadata)])
    page, _ = nbconvert.HTMLExporter(template_name="classic").from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert 'alt="Small: 5 layers, 7,898 parameters' in page


def test_a_figure_of_ones_own_tells_what_was_plotted_in_it():
    figure, (left, right) = plots.figure("Two panels", "digits", columns=2)
    left.plot([1, 2, 3], [0.5, 2.5, 1.25], label="ours")
    left.plot([2], [1.5], "x", label="published")
    left.axhline(1)
    left.set(xlabel="epoch", ylabel="loss", title="Left")
    bars = right.bar(["A", "B"], [1_234, 2])
    right.bar_label(bars)
    right.set(xlabel="answer")
    told = figure._repr_mimebundle_()[1]["image/png"]["alt"]
    assert told == ("Two panels [digits]. Left, loss against epoch: ours: from 0.5 at 1 to 1.25 at 3, between 0.5 and 2.5; "
                    "published: 1.5 at 2. answer: bars: A 1,234, B 2.")


def test_many_curves_bars_and_points_are_told_together():
    figure, axes = plots.figure("Many", rows=2, columns=2)
    for start in range(20):
        axes[0, 0].plot([0, 1], [start, start + 1])
    axes[0, 1].bar(range(30), range(30))
    axes[1, 0].errorbar([1, 2], [3, 4], [0.5, 0.25], fmt="o", capsize=3, label="ours")
    figure.colorbar(axes[1, 1].imshow([[1, 2, 3], [4, 5, -6]]), ax=axes[1, 1], label="not told")
    axes[1, 1].text(0, 0, "a word")
    told = figures.description(figure)
    assert told == ("Many. 20 curves between 0 and 20. 30 bars from 0 to 29. ours: 3 ± 0.5 at 1, 4 ± 0.25 at 2. "
                    "a picture of 2 x 3 values from −6 to 5; written in it: a word.")
