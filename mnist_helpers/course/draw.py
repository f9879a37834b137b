"""A canvas to draw a digit on: the drawing is made into an image as MNIST's were, and trained networks answer.

A drawing is a list of strokes, a stroke a list of points ``[x, y]`` from 0 to `SIZE`, y downwards. Drawings that are
labelled and kept are lines of ``results/drawings.jsonl``, which git ignores.
"""

import base64
import collections
import json
import math
import sys
import warnings
from pathlib import Path

import anywidget
import filelock
import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image, ImageDraw, ImageOps

from .. import files, idea, plots
from ..data import Split, normalize, prepare_digit, profile, project_root
from ..device import device_of
from ..measure import bright_borders, evaluation_mode

SIZE = 280  # of the canvas; draw.js has it too
PEN = 20  # width of a line on the screen, in units of the canvas; draw.js has it too
MNIST_PEN = 30  # of the line in a prepared image: notebooks/drawings.json then has about as much ink as MNIST
MOST_POINTS = 2_000  # of a drawing, and of its strokes; a page may send any number
SHARPER = 4  # drawn so many times larger, then reduced: PIL's lines have no grey edges
LONGER_SIDE = 200  # to which every drawing is brought before it is inked
MOST_ENLARGED = 4  # so that a dot stays one, however the hand shook
PHOTO_SIDE = 280  # to which a photograph's longer side is reduced
LEAST_CONTRAST = 25  # of ink and paper, of 255; the noise of a camera is below it
SPECK = 0.05  # of the largest piece of ink: what is smaller is dirt


def stored() -> dict:
    """``{name: strokes}``: the course's own drawings."""
    path = project_root() / "notebooks" / "drawings.json"
    return json.loads(path.read_text(encoding="utf-8"))["drawings"]


# ---------------------------------------------------------------- kept drawings


def kept_file() -> Path:
    """Where drawings are kept, beside the log of ideas: a line of JSON each, its label and its image in base64."""
    return idea.log_file().with_name("drawings.jsonl")


def keep(image: torch.Tensor, label: int) -> None:
    """Keep an image that `prepare` made, uint8 ``(1, 1, 28, 28)``, for `drawings`. Raises `ValueError` for a label that
    is no digit, and `OSError` where it cannot be written."""
    if label not in range(10):
        raise ValueError(f"the label is {label!r}: it has to be a digit, 0 to 9")
    pixels = base64.b64encode(image.numpy().tobytes()).decode()
    files.append_line(kept_file(), json.dumps({"label": int(label), "image": pixels}))


def take_back() -> None:
    """Remove the drawing that was kept last. Raises `OSError` where nothing can be written, or nothing was kept."""
    path = kept_file()
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):  # that of `files.append_line`
        files.replace_file(path, b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def drawings(path: str | Path | None = None) -> Split:
    """The drawings that you kept on the canvas, or those of a file that the site's canvas made: a `Split` to train on
    and to evaluate, images uint8 ``(n, 1, 28, 28)`` as the networks see them. Without any, n is 0.

    Lines that are damaged are left out and named on stderr. Raises `FileNotFoundError` for a ``path`` without a file.
    """
    if path is not None and not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"there is no file {path} with drawings")
    path = kept_file() if path is None else Path(path).expanduser()
    images, labels, damaged = [], [], 0
    for line in files.read_records(path, {"label", "image"}):
        try:
            image = np.frombuffer(base64.b64decode(line["image"], validate=True), np.uint8).reshape(1, 28, 28)
            if type(line["label"]) is not int or line["label"] not in range(10):
                raise ValueError("no digit")
        except (ValueError, TypeError):  # what base64, NumPy and the line above raise
            damaged += 1
            continue
        images, labels = [*images, image], [*labels, line["label"]]
    if damaged:
        print(f"{path.name}: left out {damaged} whose image or label is damaged", file=sys.stderr)
    stack = np.stack(images) if images else np.zeros((0, 1, 28, 28), np.uint8)
    # Of the present profile, so that what is trained on them is replayed like anything else.
    return Split(torch.from_numpy(stack), torch.tensor(labels, dtype=torch.int64), "your drawings", "train",
                 profile=profile())


# ---------------------------------------------------------------- drawings as images


def cleaned(strokes):
    """The strokes as lists of pairs of floats: without what is no point, and what is outside moved to the edge.

    Of more than `MOST_POINTS` points about so many stay, spread over the drawing.
    """
    strokes = [stroke for stroke in strokes if isinstance(stroke, list | tuple) and stroke]
    strokes = strokes[:: math.ceil(len(strokes) / MOST_POINTS) or 1]
    each = math.ceil(sum(map(len, strokes)) / MOST_POINTS) or 1
    kept = [list(_points(stroke[::each] + stroke[-1:] if each > 1 else stroke)) for stroke in strokes]
    return [stroke for stroke in kept if stroke]


def _points(stroke):
    for point in stroke:
        try:
            x, y = map(float, point)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(x) and math.isfinite(y):
            yield min(max(x, 0.0), float(SIZE)), min(max(y, 0.0), float(SIZE))


def extent(strokes):
    """``(left, top, right, bottom)`` of the points of cleaned strokes."""
    xs, ys = zip(*(point for stroke in strokes for point in stroke), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def same_size(strokes):
    """Cleaned strokes moved to the middle and scaled to `LONGER_SIDE`, but enlarged at most `MOST_ENLARGED` times."""
    left, top, right, bottom = extent(strokes)
    longer = max(right - left, bottom - top)
    zoom = min(MOST_ENLARGED, LONGER_SIDE / max(longer, 1.0))
    return [[(SIZE / 2 + zoom * (x - (left + right) / 2), SIZE / 2 + zoom * (y - (top + bottom) / 2))
             for x, y in stroke] for stroke in strokes]


def rasterize(strokes, pen=PEN):
    """The strokes in white ink on black, as drawn: uint8 ``(280, 280)``. ``pen`` is the width of a line."""
    picture = Image.new("L", (SIZE * SHARPER, SIZE * SHARPER))
    ink, radius = ImageDraw.Draw(picture), pen * SHARPER / 2
    for stroke in cleaned(strokes):
        points = [(x * SHARPER, y * SHARPER) for x, y in stroke]
        ink.line(points, fill=255, width=round(pen * SHARPER))
        for x, y in points:  # round ends, and no gaps on the outside of a bend
            ink.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return torch.from_numpy(np.array(picture.reduce(SHARPER)))


def prepare(strokes, pen=MNIST_PEN):
    """The strokes as an image like those of MNIST, uint8 ``(1, 1, 28, 28)``, or None if nothing is drawn.

    One step is ours: on the screen a line is always as wide, and enlarging a small digit would make it a fat one, so
    the strokes are brought to one size before they are inked.
    """
    strokes = cleaned(strokes)
    return prepare_digit(rasterize(same_size(strokes), pen))[None, None] if strokes else None


def prepare_photo(picture):
    """A photograph of one digit as an image like those of MNIST, uint8 ``(1, 1, 28, 28)``.

    ``picture`` is a path, an open file, a picture of PIL, or an array ``(height, width)`` or ``(height, width, 3)`` of
    0 to 255, or of floats from 0 to 1. What is transparent is white. A picture with a bright border is taken for dark
    ink on paper. What is darker than the paper around it is ink, so that a shadow is none; specks are left out. Raises
    `ValueError` for what is no picture or shows no ink.
    """
    grey = torch.from_numpy(_grey(picture))
    grey = 255 - grey if bright_borders(grey[None, None]) else grey
    side = max(grey.shape)
    # An opening leaves what is wider than a line: the paper, in whatever light.
    ink = grey - _brightest(-_brightest(-grey, side // 2 | 1), side // 2 | 1)
    grain = 2 * round(side / PHOTO_SIDE) + 1  # of a camera's noise
    ink = F.avg_pool2d(ink[None, None], grain, 1, grain // 2)[0, 0]
    if ink.max() < LEAST_CONTRAST:
        raise ValueError("no ink is to be seen: photograph one dark digit on bright paper, with the paper filling the "
                         "picture")
    pieces = _pieces(ink > ink.max() / 2)
    sizes = pieces.flatten().bincount()
    sizes[0] = 0
    return prepare_digit((sizes > SPECK * sizes.max())[pieces])[None, None]


def _brightest(picture, side):
    """Of each place of ``(height, width)`` the largest value in the square of an odd ``side`` around it."""
    rows = F.max_pool2d(picture[None, None], (side, 1), 1, (side // 2, 0))
    return F.max_pool2d(rows, (1, side), 1, (0, side // 2))[0, 0]


def _pieces(mask):
    """Connected pieces of a mask ``(height, width)``: int64, a number for each piece and 0 between them."""
    numbers, grown = None, torch.arange(1.0, mask.numel() + 1).view(mask.shape) * mask
    while numbers is None or not torch.equal(numbers, grown):
        numbers, grown = grown, _brightest(grown, 3) * mask  # the largest number of a piece spreads over it
    return numbers.long()


def _bytes(array):
    """An array as uint8 ``(height, width)`` or ``(height, width, 3)``: floats up to 1 are shares of the brightest."""
    shares = array.dtype.kind == "f" and array.size and array.max() <= 1
    array = np.asarray(255 * array if shares else array, np.uint8)
    return array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array


def _grey(picture):
    """A picture as float32 ``(height, width)`` of 0 to 255, turned as the camera was held, and not too large."""
    try:
        if not isinstance(picture, Image.Image):
            is_array = isinstance(picture, np.ndarray | torch.Tensor)
            picture = Image.fromarray(_bytes(np.asarray(picture))) if is_array else Image.open(picture)
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:  # drawn on nothing: on paper, then
            paper = Image.new("RGBA", picture.size, "white")
            paper.alpha_composite(picture.convert("RGBA"))
            picture = paper
        picture = picture.convert("L")
    except (OSError, TypeError, ValueError, AttributeError, Image.DecompressionBombError) as error:
        raise ValueError(f"this is no picture: {error}") from error
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return np.array(picture, dtype=np.float32)


def answers(image, models):
    """``{name: probabilities}``, each float32 ``(10,)`` on the CPU, of ``{name: model}`` for a uint8 image
    ``(1, 1, 28, 28)``. The networks answer in eval mode, and stay as they were."""
    if bright_borders(image):
        warnings.warn("the image has a bright border, and MNIST is white on black: see draw.prepare_photo",
                      stacklevel=2)
    return {name: _answer(model, normalize(image)) for name, model in models.items()}


@torch.no_grad()
def _answer(model, inputs):
    with evaluation_mode(model):
        return model(inputs.to(device_of(model)))[0].float().softmax(0).cpu()


def remark(strokes, found):
    """The `answers` to a drawing in a sentence or two."""
    strokes = cleaned(strokes)
    if not strokes:
        return "Nothing is drawn."
    digits = collections.Counter(probabilities.argmax().item() for probabilities in found.values())
    (digit, count), = digits.most_common(1)
    said = f"{count} of {len(found)} networks answer {digit}."
    left, top, right, bottom = extent(strokes)
    if max(right - left, bottom - top) < PEN / 2:
        return f"{said} This is a dot, and no digit; but a network knows ten digits and always names one."
    if count < len(found):
        return f"{said} They differ: is it a digit at all? A network knows ten of them and always names one."
    return said


def figure(strokes, models):
    """A drawing, the image made of it, and the probabilities of each network as shades of blue."""
    image = prepare(strokes)
    found = {} if image is None else answers(image, models)
    said = remark(strokes, found)
    drawing, axes = plots.figure(said, columns=3, size=(8, 2.6), width_ratios=[1, 1, 2.2])
    drawing.alt = said
    seen = torch.zeros(28, 28) if image is None else image[0, 0]
    for axis, picture, title in zip(axes, (rasterize(strokes), seen), ("drawn", "what the networks see"), strict=False):
        axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
    shades = torch.stack(list(found.values())) if found else torch.zeros(len(models), 10)
    axes[2].imshow(shades.numpy(), cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for row, probabilities in enumerate(found.values()):
        for digit, probability in enumerate(probabilities.tolist()):
            if probability >= 0.01:
                axes[2].text(digit, row, f"{100 * probability:.0f}", ha="center", va="center", fontsize=7)
    axes[2].set_title("probabilities (%)", fontsize=9)
    axes[2].set(xticks=range(10), yticks=range(len(models)), yticklabels=list(models))
    axes[2].tick_params(labelsize=8, length=0)
    return drawing


class Canvas(anywidget.AnyWidget):
    """A canvas to draw on, and beside it what each of ``{name: model}`` answers, anew after every stroke.

    On a page without a kernel, such as a notebook on GitHub, `figure` stands in its place. What Colab needs for
    widgets that are not its own is done by anywidget.
    """

    _esm = Path(__file__).with_name("draw.js")
    _css = Path(__file__).with_name("draw.css")
    strokes = traitlets.List().tag(sync=True)  #: set by the page when the pen is lifted
    answer = traitlets.Dict().tag(sync=True)  #: shown by the page: the image, a row for each network, the remark
    #: what became of a drawing that was to be kept, shown by the page: a sentence, and "keep", "undo", or "" if nothing
    kept = traitlets.Dict({"said": "", "done": ""}).tag(sync=True)

    def __init__(self, models, strokes=()):
        super().__init__(strokes=list(strokes))
        self.models = models
        self.observe(self._look, "strokes")
        self.on_msg(lambda canvas, told, buffers: self._do(told))
        self._look()

    def _do(self, told):
        """What the page asks for: ``{"keep": digit, "strokes": the drawing}``, or ``{"undo": True}``."""
        try:
            self.keep(told["keep"], told["strokes"]) if "keep" in told else self.take_back()
        except (ValueError, OSError) as error:
            self.kept = {"said": f"Not done: {error}.", "done": ""}

    def keep(self, label: int, strokes=None) -> None:
        """Keep the drawing, or other ``strokes``, as this digit: see `drawings`. Raises as the function `keep` does,
        and `ValueError` if nothing is drawn."""
        image = prepare(self.strokes if strokes is None else strokes)
        if image is None:
            raise ValueError("nothing is drawn. Draw a digit, then say which it is")
        keep(image, label)
        self._say(f"Kept as {label}", "keep")

    def take_back(self) -> None:
        """Remove from the file what this canvas kept last. Raises as the function `take_back` does."""
        if self.kept["done"] == "keep":
            take_back()
            self._say("Taken back", "undo")

    def _say(self, said, done):
        count = len(drawings())
        self.kept = {"said": f"{said}: {count} drawing{'s' * (count != 1)} in {kept_file().name}.", "done": done}

    def _look(self, change=None):
        image = prepare(self.strokes)
        found = {} if image is None else answers(image, self.models)
        self.answer = {
            "image": [] if image is None else image.flatten().tolist(),
            "rows": [[name, found[name].tolist() if found else []] for name in self.models],
            "remark": remark(self.strokes, found),
        }

    def _repr_mimebundle_(self, **options):
        """A page shows the richest form it knows: the widget with a kernel, the picture without."""
        bundle, metadata = super()._repr_mimebundle_(**options)
        still, told = figure(self.strokes, self.models)._repr_mimebundle_()
        return bundle | still | {"text/plain": "a canvas to draw on"}, metadata | told
