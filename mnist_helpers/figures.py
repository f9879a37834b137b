"""A figure that can tell what is seen in it: `figure` for drawings of one's own, and what `plots` draws on.

Colours are Okabe and Ito's, which colour-blind readers tell apart; the background is white on purpose, so that a
figure reads the same on a dark page. What was not measured on MNIST says so in its title.
"""

import base64
import functools
import io

from . import words

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
STYLE = {
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": 90,
    "text.color": "#222222", "axes.labelcolor": "#222222", "axes.edgecolor": "#666666",
    "xtick.color": "#222222", "ytick.color": "#222222", "font.size": 10, "axes.titlesize": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False,
    "axes.prop_cycle": f"cycler('color', {[BLUE, ORANGE, GREEN, '#CC79A7', '#E69F00', '#56B4E9']})",
}
MOST = 12  # curves, bars, points or texts of a panel that are told one by one


@functools.cache
def told_figure():
    """The class of the figures: matplotlib's, a picture in a notebook whatever the backend is. Its ``alt``, or where
    that is empty `description`, is kept in the output's metadata. nbconvert's classic template writes it into the page;
    its template "lab" and JupyterLab do not read it yet."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class Told(Figure):
        alt = ""

        def _repr_mimebundle_(self, **_):
            alt = self.alt or description(self)
            if spoken := words.spoken():
                for text in self.findobj(Text):
                    text.set_text(words.said(text.get_text(), spoken))
            picture = io.BytesIO()
            self.savefig(picture, format="png", bbox_inches="tight")
            return {"image/png": base64.b64encode(picture.getvalue()).decode()}, {"image/png": {"alt": alt}}

    return Told


def figure(title, source="MNIST", rows=1, columns=1, size=(7, 3), squeeze=True, **options):
    """A figure in the course's style and its axes, as of `matplotlib.pyplot.subplots`, which takes the ``options``.
    As the last line of a cell it shows itself. Images that are not of ``"MNIST"`` are named in the title.

        figure, axis = mh.plots.figure("Loss of each step")
        axis.plot(losses)
        axis.set(xlabel="step", ylabel="loss")
        figure
    """
    import matplotlib.pyplot as plt  # a third of a second, which not everyone who imports the package needs

    with plt.rc_context(STYLE):
        drawn, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=squeeze,
                                   FigureClass=told_figure(), **options)
    plt.close(drawn)  # or the notebook shows it twice
    drawn.suptitle(title if source in ("MNIST", "") else f"{title} [{source}]", color="#222222", fontsize=12)
    return drawn, axes


def description(drawn) -> str:
    """What is seen in a figure, in words made from what was plotted: for each panel its title and axes, where curves
    begin and end, between which values, the heights of bars, and what is written in it."""
    panels = [text for axis in drawn.axes if axis.get_label() != "<colorbar>" and (text := _panel(axis))]
    return " ".join(" ".join(text.split()) for text in (_sentence(drawn.get_suptitle()), *panels) if text)


def _sentence(text):
    return text and text.rstrip(".:") + "."


def _panel(axis):
    across, up = axis.get_xlabel(), axis.get_ylabel()
    axes = f"{up} against {across}" if across and up else across or up
    parts = [*_bars(axis), *_bands(axis), *_lines(axis), *_pictures(axis)]
    written = [text.get_text() for text in axis.texts if text.get_text().strip()]
    if written and not axis.containers:  # the labels of bars are their heights
        parts.append(f"written in it: {_some(written)}")
    head = ", ".join(text for text in (axis.get_title(), axes) if text)
    return _sentence(f"{head}{': ' if head and parts else ''}{'; '.join(parts)}")


def _number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}".replace("-", "−")


def _names(axis, positions, across):
    """The words on an axis at ``positions``, or the numbers there."""
    ticks = axis.get_xticks() if across else axis.get_yticks()
    labels = axis.get_xticklabels() if across else axis.get_yticklabels()
    named = {round(float(tick), 6): label.get_text() for tick, label in zip(ticks, labels, strict=False)
             if any(letter.isalpha() for letter in label.get_text())}
    return [named.get(round(float(position), 6)) or _number(position) for position in positions]


def _bars(axis):
    from matplotlib.container import BarContainer

    for bars in axis.containers:
        if isinstance(bars, BarContainer):
            upright = bars.orientation == "vertical"
            lengths = [bar.get_height() if upright else bar.get_width() for bar in bars]
            middles = [sum(bar.get_bbox().intervalx if upright else bar.get_bbox().intervaly) / 2 for bar in bars]
            if len(lengths) > MOST:
                yield f"{len(lengths)} bars from {_number(min(lengths))} to {_number(max(lengths))}"
                continue
            named = zip(_names(axis, middles, upright), lengths, strict=True)
            yield "bars: " + ", ".join(f"{name} {_number(length)}" for name, length in named)


def _bands(axis):
    """Points with error bars: their middle, and half the length of each bar."""
    from matplotlib.container import ErrorbarContainer

    for container in axis.containers:
        if isinstance(container, ErrorbarContainer):
            line, _, (bars, *_) = container
            halves = [abs(segment[1] - segment[0]).max() / 2 for segment in bars.get_segments()]
            told = [f"{_number(y)} ± {_number(half)} at {name}" for name, y, half in
                    zip(_names(axis, line.get_xdata(), True), line.get_ydata(), halves, strict=True)]
            yield _label(container) + _some(told)


def _label(artist):
    return "" if artist.get_label().startswith("_") else f"{artist.get_label()}: "


def _some(told):
    return ", ".join(told[:MOST]) + (f" and {len(told) - MOST} more" if len(told) > MOST else "")


def _lines(axis):
    """Curves by their ends and extremes, points one by one; many without a label are told together."""
    from matplotlib.container import ErrorbarContainer

    of_bars = [part for each in axis.containers if isinstance(each, ErrorbarContainer) for part in (each[0], *each[1])]
    lines = [line for line in axis.lines if line not in of_bars and len(line.get_xdata())
             and line.get_transform() == axis.transData]  # others are marks across the panel
    silent = [line for line in lines if not _label(line)]
    for line in lines if len(silent) <= MOST else [line for line in lines if line not in silent]:
        x, y = ([float(value) for value in values] for values in line.get_data(orig=False))
        if line.get_linestyle() == "None" or len(y) == 1:
            places = zip(_names(axis, y, False), _names(axis, x, True), strict=True)
            yield _label(line) + "points: " * (len(y) > 1) + _some([f"{b} at {a}" for b, a in places])
            continue
        first, last = _names(axis, (x[0], x[-1]), True)
        text = f"{_label(line)}from {_number(y[0])} at {first} to {_number(y[-1])} at {last}"
        if min(y) < min(y[0], y[-1]) or max(y) > max(y[0], y[-1]):
            text += f", between {_number(min(y))} and {_number(max(y))}"
        yield text
    if len(silent) > MOST:
        heights = [float(value) for line in silent for value in line.get_ydata(orig=False)]
        yield f"{len(silent)} curves between {_number(min(heights))} and {_number(max(heights))}"


def _pictures(axis):
    for image in axis.images:
        rows, columns = (values := image.get_array()).shape[:2]
        yield f"a picture of {rows} x {columns} values from {_number(values.min())} to {_number(values.max())}"
    for points in axis.collections:
        if len(offsets := points.get_offsets()) > 1:
            yield f"{len(offsets)} points"
