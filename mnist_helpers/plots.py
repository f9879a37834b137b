"""Figures: each function draws one and returns it, so that as the last line of a cell it shows itself. In a
script, save it: ``mh.plots.samples(split).savefig("samples.png")``. For one of your own there is `figure`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from . import diagram
from .check import input_size_of
from .figures import BLUE, GREEN, GREY, ORANGE, STYLE, figure, told_figure  # noqa: F401, for drawings of one's own, too

if TYPE_CHECKING:  # for whoever reads the hints; a figure needs none of these
    from matplotlib.figure import Figure

    from .data import Split
    from .measure import Evaluation
    from .run import Run

_figure = functools.partial(figure, squeeze=False)


def _told(figure, text):
    """The figure, with a text that says what is seen in it."""
    figure.alt = text
    return figure


def _sheet(images, titles, title, source, columns, row_labels=(), colors=(), size=0.8, **imshow):
    """A grid of small pictures: ``images`` is a list of ``(height, width)`` tensors."""
    rows = -(-len(images) // columns)
    lines = sum(max((text.count("\n") + 1 for text in titles[row * columns :][:columns] if text), default=0)
                for row in range(rows))
    figure, axes = _figure(title, source, rows, columns, size=(columns * size, rows * size + 0.17 * lines + 0.4))
    for number, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if number < len(images):
            axis.imshow(images[number].numpy(), **{"cmap": "gray", **imshow})
            if titles:
                axis.set_title(titles[number], fontsize=8, color=colors[number] if colors else "#222222", pad=2)
    for axis, label in zip(axes[:, 0], row_labels, strict=False):
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    text = f"{figure.get_suptitle()}: {len(images)} small pictures"
    if row_labels:
        text += f" in {rows} rows, {', '.join(' '.join(label.split()) for label in row_labels)}"
    said = [" ".join(each.split()) for each in titles if each]
    return _told(figure, f"{text}{': ' if said else ''}{'; '.join(said)}.")


def _seen(images):
    """Images ``(n, channels, height, width)`` as a list of what is drawn: three channels as colours, clipped to 0..1,
    of other numbers the first."""
    if images.shape[1] != 3:
        return list(images[:, 0])
    return list((images / 255 if images.dtype == torch.uint8 else images).clamp(0, 1).permute(0, 2, 3, 1))


def samples(split: Split, count: int = 30, columns: int = 10) -> Figure:
    """The first ``count`` images of a split, with their labels."""
    count = min(count, len(split))
    return _sheet(_seen(split.images[:count]), [str(label) for label in split.labels[:count].tolist()],
                  "Images and their labels", split.source, columns)


def augmentation(split: Split, augment: Callable, count: int = 10, draws: int = 3, seed: int = 0) -> Figure:
    """The first ``count`` images of a split, and below each what ``augment`` makes of it in a few draws."""
    images = split.images[:count]
    generator = torch.Generator().manual_seed(seed)
    rows = [_seen(images / 255)] + [_seen(augment(images, generator)) for _ in range(draws)]
    return _sheet([image for row in rows for image in row], [], "Before and after augmentation", split.source, count,
                  row_labels=["original"] + [f"draw {draw}" for draw in range(1, draws + 1)], vmin=0, vmax=1)


def curves(run: Run, title: str = "Training and validation", before: Run | Mapping | None = None) -> Figure:
    """Loss and accuracy of training and validation after each epoch of a `Run`, with a line where the learning rate
    drops. ``before``, another run or ``{name: validation accuracies}``, is drawn thin and grey.

    From four epochs on, the axes leave out the first epoch of the training, which would flatten all others.
    """
    history = run.history
    figure, (axes,) = _figure(title, run.card["source"], 1, 2, size=(8, 3))
    epochs = range(1, len(history["train_loss"]) + 1)
    name_before, earlier = "", {}
    if hasattr(before, "history"):
        name_before, earlier = f"{before.card['model']}, validation", before.history
    elif before:
        ((name, values),) = before.items()
        name_before, earlier = f"{name}, validation", {"val_accuracy": values}
    for axis, measure in zip(axes, ("loss", "accuracy"), strict=True):
        scale, seen = (100 if measure == "accuracy" else 1), []
        if values := earlier.get(f"val_{measure}"):
            axis.plot(range(1, len(values) + 1), [scale * value for value in values], label=name_before, color=GREY,
                      linewidth=0.9, zorder=1)
            seen += values[1:]
        for part, name, color, marker in (("train", "training (while learning)", BLUE, "o"),
                                          ("val", "validation", ORANGE, "s")):
            if not history.get(f"{part}_{measure}"):  # trained without validation
                continue
            values = history[f"{part}_{measure}"]
            axis.plot(epochs, [scale * value for value in values], label=name, color=color, marker=marker,
                      markersize=3.5, linewidth=1.5, zorder=2)
            seen += values[part == "train" :]
        axis.set(xlabel="epoch", ylabel="accuracy (%)" if measure == "accuracy" else "cross-entropy loss")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        if len(epochs) >= 4:
            low, high = scale * min(seen), scale * max(seen)
            margin = 0.08 * (high - low) or 0.01
            axis.set_ylim(low - margin if measure == "accuracy" else 0, high + margin)
        elif measure == "loss":
            axis.set_ylim(bottom=0)
        _mark_drops(axis, history.get("lr", []), high=measure == "loss")
    axes[0].legend(frameon=False, fontsize=8)
    if before is not None:  # up there, since the rate is written at the bottom
        axes[1].legend(handles=axes[1].lines[:1], frameon=False, fontsize=8, loc="upper left")
    return _told(figure, _words_of_curves(history, earlier, name_before))


def bands(panels: Mapping[str, tuple], title: str, source: str = "MNIST") -> Figure:
    """Accuracy after each epoch: a panel for each ``{name: (ours, published)}``. ``ours`` are lists of accuracies, one
    a run, drawn as the band from the lowest to the highest; a published log is one list, with rings where it is
    outside of the band.

    From four epochs on, the axes leave out the first epoch, which would flatten all others.
    """
    figure, (axes,) = _figure(title, source, 1, len(panels), size=(8, 3))
    text = title + "."
    for axis, (name, (ours, published)) in zip(axes, panels.items(), strict=True):
        epochs, done = range(1, len(published) + 1), range(1, len(ours[0]) + 1)  # fewer in the quick profile
        low, high = ([100 * end(values) for values in zip(*ours, strict=True)] for end in (min, max))
        theirs = [100 * value for value in published]
        if len(ours) > 1:
            axis.fill_between(done, low, high, color=BLUE, alpha=0.3, linewidth=0,
                              label=f"ours, lowest to highest of {len(ours)} runs")
        else:
            axis.plot(done, low, color=BLUE, linewidth=1.5, label="ours, one run")
        axis.plot(epochs, theirs, color=ORANGE, marker=".", linewidth=1, label="published, one run")
        if len(ours) > 1:
            outside = [epoch for epoch, *ends, value in zip(epochs, low, high, theirs, strict=False)
                       if not ends[0] <= value <= ends[1]]
            axis.plot(outside, [theirs[epoch - 1] for epoch in outside], "o", color="none", markeredgecolor=ORANGE,
                      markersize=9)
            text += (f" {name[:1].upper() + name[1:]}: the published log is outside of the band of our {len(ours)} "
                     f"runs in {len(outside)} of {len(epochs)} epochs.")
        text += f" It ends at {theirs[-1]:.2f} %, ours at {low[-1]:.2f} to {high[-1]:.2f} %."
        if len(epochs) >= 4:
            axis.set_ylim(min(low[1:] + theirs[1:]) - 0.1, max(high + theirs) + 0.1)
        axis.set(title=name, xlabel="epoch", ylabel="accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, loc="lower right", fontsize=8)
    return _told(figure, text)


def _drops(rates):
    """``(epoch, old, new)`` where a learning rate falls to half or less; of a rate that changes all the time, none."""
    if len(set(rates)) > 4:
        return []
    return [(epoch, old, new) for epoch, (old, new) in enumerate(itertools.pairwise(rates), start=1) if new <= old / 2]


def _mark_drops(axis, rates, high):
    """A line at each drop of the rate, with its text where curves of a loss (``high``) or accuracy are not."""
    for epoch, old, new in _drops(rates):
        axis.axvline(epoch + 0.5, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        axis.annotate(f"rate {old:g} → {new:g}", (epoch + 0.5, 0.97 if high else 0.03), rotation=90,
                      xycoords=("data", "axes fraction"), fontsize=7.5, color="#444444", ha="right",
                      va="top" if high else "bottom")


def _words_of_curves(history, earlier, name_before):
    count = len(history["train_loss"])
    text = f"Curves over {count} epoch{'s' * (count != 1)}."
    for part, name in (("train", "Training"), ("val", "Validation")):
        for measure, form in (("loss", "{:.4f}"), ("accuracy", "{:.2%}")):
            if values := history.get(f"{part}_{measure}"):
                text += f" {name} {measure}: from {form.format(values[0])} to {form.format(values[-1])}."
    for epoch, old, new in _drops(history.get("lr", [])):
        text += f" The learning rate drops from {old:g} to {new:g} after epoch {epoch}."
    if values := earlier.get("val_accuracy"):
        text += f" In grey, {name_before} accuracy: from {values[0]:.2%} to {values[-1]:.2%}."
    return text


def losses_by_step(runs: Mapping[str, Run], title: str = "Loss by training step", steps: int | None = None,
                   window: int = 50) -> Figure:
    """The loss of each batch against the number of steps, for ``{name: run}``; a step is one update. With ``steps``
    only the first ones are drawn. Of more than two windows, the running mean of ``window`` steps is drawn, and the raw
    losses are pale behind it."""
    figure, ((axis,),) = _figure(title, next(iter(runs.values())).card["source"], size=(7, 3))
    text, tops = "The loss of each batch by training step.", []
    for (name, run), color in zip(runs.items(), (ORANGE, BLUE, GREEN), strict=False):
        losses = run.batch_loss[:steps]
        label, places = f"{name}: {len(losses):,} steps", range(1, len(losses) + 1)
        smooth = len(losses) > 2 * window
        axis.plot(places, losses, label=None if smooth else label, color=color, linewidth=0.6 if smooth else 1,
                  alpha=0.25 if smooth else 1)
        if smooth:
            means = torch.tensor(losses, dtype=torch.float64).unfold(0, window, 1).mean(1)
            middle = window // 2 + 1  # of the first window: a mean drawn at its end would lag
            axis.plot(range(middle, middle + len(means)), means.numpy(), label=f"{label} (mean of {window})",
                      color=color, linewidth=1.5)
            tops.append(max(means.max().item(), torch.tensor(losses).quantile(0.99).item()))
        else:
            tops.append(max(losses))
        last = losses[-window:] if smooth else losses[-1:]
        text += f" {label}, from {losses[0]:.3f} to {sum(last) / len(last):.3f}."
    if all(math.isfinite(top) for top in tops):
        axis.set_ylim(0, 1.05 * max(tops) or 1)  # single peaks are cut off
    axis.set(xlabel="step (one update of the weights)", ylabel="cross-entropy of the batch")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    return _told(figure, text)


def confusion(evaluation: Evaluation) -> Figure:
    """How often each digit (row) was taken for each other (column) in an `Evaluation`; right answers are left
    uncoloured."""
    logits, labels = evaluation.logits, evaluation.labels
    classes = logits.shape[1]
    counts = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    wrong = counts - counts.diagonal().diag()
    source = evaluation.split.source if evaluation.split else ""
    figure, ((axis,),) = _figure(f"Confusions: {wrong.sum():,} of {len(labels):,} images", source, size=(5, 4.6))
    axis.imshow(wrong.numpy(), cmap="Oranges", vmin=0, vmax=max(1, wrong.max().item() * 1.5))
    for row in range(classes):
        for column in range(classes):
            if counts[row, column]:
                axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8,
                          color=GREY if row == column else "black")
    axis.set(xlabel="predicted digit", ylabel="true digit", xticks=range(classes), yticks=range(classes))
    most = [divmod(place, classes) for place in wrong.flatten().argsort(descending=True, stable=True)[:3].tolist()]
    return _told(figure, f"{figure.get_suptitle()}. " + "; ".join(
        f"{row} taken for {column}: {wrong[row, column]:,}" for row, column in most if wrong[row, column]) + ".")


def mistakes(evaluation: Evaluation, count: int = 20, columns: int = 10) -> Figure:
    """The wrong answers of an `Evaluation` that the model was surest of: the true digit, the predicted one and its
    probability. Raises `ValueError` if it was of batches, whose images are gone."""
    split = evaluation.split
    if split is None:
        raise ValueError("there are no images to show: evaluate on a split, such as mnist.val, and not on batches")
    probabilities = evaluation.logits.softmax(1)
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != split.labels).nonzero().flatten()
    worst = wrong[confidence[wrong].argsort(descending=True)][:count]
    if not len(worst):
        figure, ((axis,),) = _figure("No mistakes", split.source, size=(4, 1))
        axis.set_axis_off()
        return figure
    titles = [f"{split.labels[i]} taken for {predicted[i]}\n{confidence[i]:.0%} sure" for i in worst.tolist()]
    return pictures(split.images[worst], titles, split.source, "The surest mistakes", columns)


def kernels(weight: torch.Tensor, source: str, title: str = "First-layer kernels") -> Figure:
    """The kernels ``(out, in, height, width)`` of a convolution seen from its first input channel: orange is positive,
    purple negative."""
    weight = weight.detach().cpu()[:, 0]
    limit = weight.abs().max().item()
    return _sheet(list(weight), [str(channel) for channel in range(len(weight))], title, source, min(8, len(weight)),
                  cmap="PuOr_r", vmin=-limit, vmax=limit)


def feature_maps(maps: torch.Tensor, source: str, title: str = "Feature maps", columns: int = 8) -> Figure:
    """The channels of one image's activations, ``(channels, height, width)``: white is the largest of all."""
    maps = maps.detach().cpu()
    return _sheet(list(maps), [str(channel) for channel in range(len(maps))], title, source, min(columns, len(maps)),
                  vmin=min(0.0, maps.min().item()), vmax=maps.max().item())


def accuracies(names: Sequence[str], tests: Sequence[float], intervals: Sequence[tuple[float, float]],
               measured: Sequence[float | None], published: Sequence[float | None], source: str,
               title: str = "Three measures of the same networks") -> Figure:
    """For each name the published accuracy, the one measured the same way, and the test accuracy with its interval.

    ``intervals`` are pairs ``(low, high)``; a published or measured accuracy that is None is left out.
    """
    figure, ((axis,),) = _figure(title, source, size=(8, 3.8))
    positions = range(len(names))

    def shifted(by):
        return [position + by for position in positions]

    def percent(values):
        return [float("nan") if value is None else 100 * value for value in values]

    below = [100 * (test - low) for test, (low, _) in zip(tests, intervals, strict=True)]
    above = [100 * (high - test) for test, (_, high) in zip(tests, intervals, strict=True)]
    axis.plot(shifted(-0.15), percent(published), "x", color=GREY, markersize=7, label="published")
    axis.plot(positions, percent(measured), "s", color=ORANGE, label="ours, measured the same way")
    axis.errorbar(shifted(0.15), percent(tests), [below, above], fmt="o", color=BLUE, capsize=4,
                  label="ours, on test images (95 % interval)")
    # The scale is that of our own figures: one published outlier would flatten all the others.
    bottom = min([*percent(tests), *(value for value in percent(measured) if value == value)]) - 0.4
    axis.set_ylim(bottom, 100.05)
    for position, value in enumerate(percent(published)):
        if value < bottom:
            axis.annotate(f"published: {value:.1f} ↓", (position - 0.4, bottom + 0.03), fontsize=8, color=GREY)
    axis.set_xticks(positions, names, rotation=20, ha="right", fontsize=8)
    axis.set(xlabel="network", ylabel="accuracy (%)")
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False)
    text = [f"{name}: on test images {test:.2%}" + ("" if same is None else f", measured as published {same:.2%}")
            + ("" if theirs is None else f", published {theirs:.2%}")
            for name, test, same, theirs in zip(names, tests, measured, published, strict=True)]
    return _told(figure, f"{title}. {'; '.join(text)}.")


def seeds(accuracies: Mapping[str, Sequence[float]], source: str = "MNIST", title: str = "One dot a seed") -> Figure:
    """A dot for each accuracy of ``{name: accuracies}``, and a line at their mean."""
    figure, ((axis,),) = _figure(title, source, size=(8, 3.5))
    for position, values in enumerate(accuracies.values()):
        axis.plot([position] * len(values), [100 * value for value in values], "o", color=BLUE, alpha=0.6)
        mean = 100 * sum(values) / len(values)
        axis.plot([position - 0.3, position + 0.3], [mean, mean], color=ORANGE, linewidth=2)
    axis.set_xticks(range(len(accuracies)), list(accuracies), rotation=20, ha="right", fontsize=8)
    axis.set(xlabel="network", ylabel="test accuracy (%)")
    axis.grid(axis="y", alpha=0.25)
    return _told(figure, f"{title}, with the mean test accuracy: " + "; ".join(
        f"{name} {sum(values) / len(values):.2%} of {len(values)}" for name, values in accuracies.items()) + ".")


def frontier(ours: Mapping[str, tuple[float, float, float]], published: Sequence[tuple[float, float]], what: str,
             title: str, source: str = "MNIST", bottom: float = 0.991) -> Figure:
    """Test accuracy against ``what`` on a logarithmic scale: ``{name: (x, mean, std)}`` of ours, with the standard
    deviation over seeds as a bar, and published pairs ``(x, accuracy)``. What lies below ``bottom`` is left out: it
    would flatten all the others."""
    figure, ((axis,),) = _figure(title, source, size=(9, 4.2))
    axis.plot(*zip(*[(x, 100 * accuracy) for x, accuracy in published if accuracy >= bottom], strict=True), "x",
              color=GREY, markersize=8, label="published, single runs")
    looks = itertools.cycle(itertools.product("osD^v", (BLUE, ORANGE, GREEN)))  # more networks than looks: none is lost
    for (name, (x, mean, std)), (marker, color) in zip(ours.items(), looks, strict=False):
        if mean >= bottom:
            axis.errorbar(x, 100 * mean, 100 * std, fmt=marker, color=color, capsize=4, markersize=6, label=name)
    axis.axhline(99.4, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xscale("log", subs=())
    axis.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set_ylim(bottom=100 * bottom)
    axis.set(xlabel=f"{what} (logarithmic scale)", ylabel="test accuracy (%)")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def pictures(images: torch.Tensor, titles: Sequence[str], source: str, title: str, columns: int = 10,
             row_labels: Sequence[str] = (), **imshow) -> Figure:
    """Any images ``(n, channels, height, width)``, a line or two of text above each, and a label before each row."""
    return _sheet(_seen(images), titles, title, source, min(columns, len(images)), row_labels, size=1.05, **imshow)


def marked(images: torch.Tensor, marks: torch.Tensor, titles: Sequence[str], source: str, title: str, columns: int = 8,
           row_labels: Sequence[str] = (), **imshow) -> Figure:
    """`pictures` with orange laid over them: ``marks``, bool or float ``(n, 1, height, width)``, go from 0, which
    leaves a pixel as it is, to 1, which covers it."""
    figure = pictures(images, titles, source, title, columns, row_labels, **imshow)
    for axis, mark in zip(figure.axes, marks[:, 0].detach().float(), strict=False):
        orange = torch.tensor([int(ORANGE[start : start + 2], 16) / 255 for start in (1, 3, 5)]).expand(*mark.shape, 3)
        axis.imshow(torch.cat([orange, mark.clamp(0, 1)[..., None]], dim=2).numpy())
    return figure


def channels(values: Mapping[str, torch.Tensor], source: str, title: str = "The numbers of each channel") -> Figure:
    """How the numbers of each channel are distributed, for ``{name: activations}`` of ``(n, channels, height, width)``,
    a panel each, on one scale.

    The box holds the middle half of a channel's numbers, its whiskers 5 to 95 %, the dot is their mean.
    """
    columns = min(2, len(values))
    rows = -(-len(values) // columns)
    figure, axes = _figure(title, source, rows, columns, size=(5 * columns, 2.6 * rows + 0.4), sharex=True, sharey=True)
    said = []
    for axis, (name, activations) in zip(axes.flat, values.items(), strict=False):
        each = activations.detach().cpu().transpose(0, 1).flatten(1)           # channels, numbers
        axis.axhline(0, color=GREY, linewidth=0.8)
        blue = {f"{part}props": {"color": BLUE} for part in ("median", "box", "whisker", "cap")}
        axis.boxplot(each.T.numpy(), positions=range(len(each)), manage_ticks=False, whis=(5, 95), showfliers=False,
                     **blue)
        axis.plot(each.mean(1), "o", color=ORANGE, markersize=4)
        axis.set_title(name)
        axis.set(xlabel="channel", ylabel="value", xticks=range(len(each)))
        axis.label_outer()
        said.append(f"{name}: means from {each.mean(1).min():.2f} to {each.mean(1).max():.2f}, "
                    f"standard deviations from {each.std(1).min():.2f} to {each.std(1).max():.2f}")
    return _told(figure, f"{figure.get_suptitle()}, a box each. {'; '.join(said)}.")


def before_and_after(pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]], source: str, title: str,
                     per_panel: int = 2_000) -> Figure:
    """What a layer makes of single numbers, for ``{name: (before, after)}`` of two tensors of one shape: a panel each,
    all on one scale.

    Of each panel's numbers at most ``per_panel`` are drawn, evenly spaced.
    """
    figure, (axes,) = _figure(title, source, 1, len(pairs), size=(2.5 * len(pairs), 2.9), sharex=True, sharey=True)
    said = []
    for axis, (name, (before, after)) in zip(axes, pairs.items(), strict=True):
        step = -(-before.numel() // per_panel)
        axis.plot(before.detach().cpu().flatten()[::step], after.detach().cpu().flatten()[::step], ".", color=BLUE,
                  markersize=3, alpha=0.5)
        axis.set_title(name)
        axis.set_xlabel("before")
        axis.grid(alpha=0.25)
        said.append(f"{name}: {before.min():.2f} to {before.max():.2f} before, {after.min():.2f} to {after.max():.2f} "
                    f"after, {(after == 0).float().mean():.0%} of them 0")
    axes[0].set_ylabel("after")
    return _told(figure, f"{figure.get_suptitle()}. {'; '.join(said)}.")


def descents(paths: Mapping[str, tuple[torch.Tensor, torch.Tensor]], title: str, columns: int = 3) -> Figure:
    """The way down a valley, for ``{name: (valley, path)}``: the loss is half of ``point @ valley @ point``, ``path``
    its points ``(steps + 1, 2)`` from the first to the last; the name stands above, with the last loss."""
    rows = -(-len(paths) // columns)
    figure, axes = _figure(title, "", rows, columns, size=(2.9 * columns, 2.9 * rows + 0.3), sharex=True, sharey=True)
    reach = 1.15 * max(path.abs().max().item() for _, path in paths.values())
    line = torch.linspace(-reach, reach, 80)
    plane = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)                    # 80, 80, 2
    for axis, (name, (valley, path)) in zip(axes.flat, paths.items(), strict=False):
        heights = torch.einsum("yxi,ij,yxj->yx", plane, valley, plane) / 2
        levels = heights.max().item() * torch.linspace(0.02, 1, 12).numpy() ** 2
        axis.contour(line.numpy(), line.numpy(), heights.numpy(), levels=levels, colors=GREY, linewidths=0.5)
        axis.plot(*path.T.numpy(), ".-", color=BLUE, linewidth=1, markersize=4)
        axis.plot(0, 0, "+", color=ORANGE, markersize=12, markeredgewidth=2)
        axis.set_title(f"{name}: {path[-1] @ valley @ path[-1] / 2:.4f}", fontsize=9)
        axis.set(xlabel="first weight", ylabel="second weight", aspect="equal")
        axis.label_outer()
    return figure


def products(matrix: torch.Tensor, source: str,
             title: str = "Mean products of the gradients of pairs of weights") -> Figure:
    """A matrix of mean products ``(n, n)`` as correlations from -1 to 1, and its eigenvalues, the largest first."""
    figure, ((left, right),) = _figure(title, source, 1, 2, size=(9, 3.8))
    matrix = matrix.detach().cpu().double()
    scale = matrix.diagonal().clamp_min(1e-300).sqrt()
    shown = left.imshow((matrix / scale / scale[:, None]).numpy(), cmap="RdBu", vmin=-1, vmax=1)
    figure.colorbar(shown, ax=left, label="correlation")
    left.set(xlabel="weight", ylabel="weight", title="pairs of weights")
    values = torch.linalg.eigvalsh(matrix).flip(0).clamp_min(0)
    right.semilogy(range(1, len(values) + 1), values / values[0], color=BLUE)
    right.set(xlabel="direction", ylabel="eigenvalue, the largest being 1", title="directions")
    right.grid(alpha=0.25)
    return figure


MARKS = {"new": ("+ new", GREEN), "changed": ("≠ changed", ORANGE), "removed": ("− removed", GREY)}


def network(model: torch.nn.Module, before: torch.nn.Module | None = None, title: str | None = None,
            input_size: tuple | None = None) -> Figure:
    """A network as its layers, from the image down to the logits: what each makes, its parameters, and its
    multiplications for one image, with bars for the shares of the whole.

    With another network ``before``, layers that are new, changed or removed are marked, in colour and in words. The
    modules and the random states stay as they are. The image has the channels of the first convolution, and 28 by 28
    pixels, unless ``input_size`` says otherwise. Raises `NetworkError` if a network does not take such an image.
    """
    input_size = input_size or input_size_of(model)
    rows = layers = diagram.layers(model, input_size)
    sums, left, name_before = [("together", diagram.totals(layers), "#222222")], 0, ""                # points
    if before is not None:
        old, left, name_before = diagram.layers(before, input_size), 78, type(before).__name__
        rows = diagram.compared(old, layers)
        sums.append((f"before: {name_before}", diagram.totals(old), GREY))
    shape = left + 8 + max(6 * len(f"{row.kind}  {row.detail}") for row in rows) + 66                 # right ends
    columns = {"shape": shape, "parameters": shape + 68, "multiplications": shape + 162}
    lines = len(rows) + len(sums)
    figure, ((axis,),) = _figure(title or type(model).__name__, "", size=((shape + 166) / 72, (lines + 1.9) * 23 / 72))
    axis.set(xlim=(0, shape + 166), ylim=(lines - 0.4, -1.4))
    axis.set_axis_off()
    axis.text(left + 8, -1, "layer", va="center", color=GREY)
    for name, x in columns.items():
        axis.text(x, -1, "output" if name == "shape" else name, ha="right", va="center", color=GREY)
    for y, layer in enumerate(rows):
        _layer(axis, y, layer, left, columns, totals=sums[0][1])
    axis.axhline(len(rows) - 0.47, color=GREY, linewidth=0.8)
    for y, (name, totals, color) in enumerate(sums, start=len(rows)):
        axis.text(left + 8, y, name, va="center", color=color)
        for column, value in totals.items():
            axis.text(columns[column], y, f"{value:,}", ha="right", va="center", color=color)
    return _told(figure, diagram.words(rows, type(model).__name__, name_before))


def _layer(axis, y, layer, left, columns, totals):
    """One row of the diagram of a network."""
    gone, right = layer.mark == "removed", columns["multiplications"]
    color = GREY if gone else "#222222"
    if layer.mark:
        word, tone = MARKS[layer.mark]
        axis.fill_between([0, right + 4], y - 0.46, y + 0.46, color=tone, alpha=0.08 if gone else 0.15, linewidth=0)
        axis.fill_between([0, 4], y - 0.46, y + 0.46, color=tone, linewidth=0)
        axis.text(9, y, word, va="center", color=color, fontweight="normal" if gone else "bold")
    axis.text(left + 8, y - 0.16 * bool(layer.was), f"{layer.kind}  {layer.detail}", va="center", color=color)
    if layer.was:
        axis.text(left + 8, y + 0.28, f"was {layer.was}", va="center", color="#444444", fontsize=7.5)
    axis.text(columns["shape"], y, "×".join(map(str, layer.shape)), ha="right", va="center", color=color)
    for (name, whole), width in zip(totals.items(), (56, 84), strict=True):
        value, start = getattr(layer, name), columns[name] - width
        if value:
            axis.text(columns[name], y - 0.08, f"{value:,}", ha="right", va="center", color=color)
        if value and not gone:
            axis.fill_between([start, columns[name]], y + 0.28, y + 0.4, color="#dddddd", linewidth=0)
            axis.fill_between([start, start + width * value / whole], y + 0.28, y + 0.4, color=BLUE, linewidth=0)
