"""The explanations that move as notebooks show them, and their pictures for where nothing moves: on GitHub, in stored
notebooks."""

import base64
import io
import itertools
import re

import torch
import torch.nn.functional as F
from PIL import Image

from .. import plots
from ..files import replace_file
from . import catalogue, explain, records


def still(name: str):
    """The picture of a piece where nothing moves, with the text that stands for it as its ``alt``."""
    import matplotlib.pyplot as plt

    draw, size, columns = STILLS[name]
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained", squeeze=False,
                                    FigureClass=plots.told_figure())
        figure.alt = draw(*axes[0])
    plt.close(figure)
    return figure


def _bare(axis, title, picture, **imshow):
    axis.imshow(picture.numpy(), **imshow)
    axis.set(xticks=[], yticks=[], title=title)


def _square(axis, first, side, color, text=""):
    import matplotlib.pyplot as plt

    axis.add_patch(plt.Rectangle((first[1] - 0.5, first[0] - 0.5), side, side, fill=False, linewidth=2.5, color=color))
    axis.text(first[1], first[0] - 0.8, text, color=color)


def _draw_kernel(left, middle, right):
    image = explain.digits()[explain.SEVEN] / 255
    kernel = torch.tensor(explain.BY_HAND["upper edges"]).view(3, 3).float()
    _bare(left, "the digit", image, cmap="gray")
    _square(left, (10, 5), 3, plots.ORANGE)
    _bare(middle, "the kernel", kernel, cmap="PuOr_r", vmin=-2.5, vmax=2.5)
    for row, column in itertools.product(range(3), range(3)):
        middle.text(column, row, f"{kernel[row, column]:.0f}", ha="center", va="center", fontsize=14)
    _bare(right, "the map", F.conv2d(image[None, None], kernel[None, None])[0, 0], cmap="PuOr_r", vmin=-3, vmax=3)
    return ("A digit, a kernel of nine weights, and the map it makes: positive along the upper edges of the digit, "
            "negative along its lower edges.")


def _draw_reach(left, right):
    found = explain.receptive_field()["networks"][0]["stages"]
    sizes = [explain.seen_pixels(found, at) for at in range(len(found))]
    _bare(left, "what a unit in the middle sees", explain.digits()[explain.SEVEN], cmap="gray")
    for at, color in ((6, "#56B4E9"), (3, "#E69F00"), (1, "#F0E442")):
        _square(left, [14 - sizes[at] // 2] * 2, sizes[at], color, str(at))
    bars = right.barh(range(1, len(found)), sizes[1:], color=plots.BLUE)
    right.bar_label(bars, [f"{size} × {size}" for size in sizes[1:]], padding=3)
    right.set_yticks(range(1, len(found)), [f"{at}: {stage['name']}" for at, stage in enumerate(found) if at])
    right.set(xlim=(0, 34), xlabel="pixels", title="layer by layer")
    right.invert_yaxis()
    return "What a unit in the middle of each layer sees: " + ", ".join(
        f"{stage['name']} {size} × {size} pixels" for stage, size in zip(found[1:], sizes[1:], strict=True)) + "."


def _draw_kept(*axes):
    outputs = explain.shifted(explain.CHANNELS[0], -4.0)
    shares = [f"{(values > 0).float().mean():.0%}".replace("%", " %") for values in outputs]
    for axis, title, share, values in zip(axes, ("without", "with"), shares, outputs, strict=True):
        _, _, bars = axis.hist(values.flatten().numpy(), bins=torch.arange(-16, 8.1, 0.5).numpy(), color=plots.BLUE)
        for bar in bars:
            if bar.get_x() < 0:
                bar.set(facecolor="white", edgecolor=plots.GREY, hatch="////", linewidth=0)
        axis.axvline(0, color="black")
        axis.set(title=f"{title} batch norm: ReLU keeps {share}", xlabel="value, shifted by −4", yscale="symlog",
                 ylabel="how many")
    return (f"Histograms of one channel's values, shifted by −4. Without batch norm ReLU keeps {shares[0]} of them, "
            f"with it {shares[1]}.")


def _draw_seeds(axis):
    seeds, lessons, text = records.by_seed(), catalogue.lessons()[2:], []
    for row, lesson in enumerate(lessons):
        values = [100 * run["test_accuracy"] for run in seeds[lesson.name].values()]
        mean = sum(values) / len(values)
        axis.plot(values, [row] * len(values), "o", color=plots.BLUE, markersize=8, alpha=0.6)
        axis.plot([mean, mean], [row - 0.3, row + 0.3], color=plots.ORANGE, linewidth=2.5)
        ends = f"{min(values):.2f} to {max(values):.2f} %"
        text.append(f"lesson {lesson.lesson} {ends}, mean {mean:.2f} of {len(values)}")
    axis.set_yticks(range(len(lessons)), [f"lesson {each.lesson}, {each.title}" for each in lessons])
    axis.set(xlabel="test accuracy (%): a dot for each seed, a line for their mean")
    axis.invert_yaxis()
    return f"Test accuracies, a dot for each seed: {'; '.join(text)}."


def _draw_ranks(axis):
    lessons = explain.leak()["lessons"]
    for lesson in lessons:
        color = plots.ORANGE if lesson["lesson"] == 6 else plots.GREY
        places = [explain.ranked(way).index(str(lesson["lesson"])) for way in ("train", "test")]
        axis.plot([0, 1], places, "o-", color=color, linewidth=2.5)
        for x, place, way, side in ((-0.05, places[0], "train", "right"), (1.05, places[1], "test", "left")):
            axis.text(x, place, f"lesson {lesson['lesson']}: {lesson[way]['mean']:.2f} %", ha=side, va="center",
                      color=color)
    axis.set(xlim=(-0.6, 1.6), ylim=(len(lessons) - 0.5, -0.6), yticks=[])
    axis.set_xticks([0, 1], ["on training images", "on test images"])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return "Two rankings, joined by lines. " + " ".join(
        f"On {what} images: " + ", ".join(f"lesson {each['lesson']} {each[way]['mean']:.2f} %" for each in sorted(
            lessons, key=lambda each, way=way: -each[way]["mean"])) + "."
        for what, way in (("training", "train"), ("test", "test")))


STILLS = {  # how each is drawn: by what, width and height, how many panels
    "kernel_editor": (_draw_kernel, (8, 2.9), 3), "receptive_field": (_draw_reach, (8, 3.4), 2),
    "batch_norm": (_draw_kept, (8, 3), 2), "seed_machine": (_draw_seeds, (8, 3), 1), "leak": (_draw_ranks, (8, 3.4), 1),
}


def write() -> None:
    """Draw the pictures of site/live/ anew that show other figures than the records. Each keeps its text, which has
    these figures, inside its file."""
    for name in STILLS:
        path, figure = explain.folder() / f"{name}.png", still(name)
        if not path.exists() or Image.open(path).info.get("Description") != figure.alt:
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=110, metadata={"Description": figure.alt})
            replace_file(path, file.getvalue())


def source(name: str) -> str:
    """A piece and what it imports as one JavaScript module, for a notebook."""
    shared, piece = ((explain.folder() / f"{each}.js").read_text(encoding="utf-8") for each in ("ui", name))
    piece = re.sub(r'^import .* from "./ui.js";\n', "", piece, flags=re.MULTILINE)
    return re.sub(r"^export ", "", shared + piece, flags=re.MULTILINE) + """
function render({ model, el }) {
  // The attribute keeps JupyterLab from taking the arrow keys.
  const root = make("div", { class: "live", "data-lm-suppress-shortcuts": "true" });
  el.append(root);
  mount(root, model.get("data"));
}
export default { render };
"""


def widget(name: str):
    """A piece in a notebook; its picture where there is no kernel, as on GitHub."""
    import anywidget
    import traitlets

    class Piece(anywidget.AnyWidget):
        _esm = source(name)
        _css = (explain.folder() / "live.css").read_text(encoding="utf-8")
        data = traitlets.Dict().tag(sync=True)

        def _repr_mimebundle_(self, **options):
            bundle, metadata = super()._repr_mimebundle_(**options)
            picture, figure = io.BytesIO(), still(name)
            figure.savefig(picture, format="png")
            shown = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": figure.alt}
            return bundle | shown, metadata | {"image/png": {"alt": figure.alt}}

    return Piece(data=explain.PIECES[name]())
