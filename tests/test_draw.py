"""Drawings: prepared as MNIST was, answered whatever was drawn; the canvas itself is tried in test_jupyterlab.py."""

import base64
import io
import json
import math
import subprocess
import time
import warnings

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mnist_helpers as mh
from mnist_helpers import checkpoint, data
from mnist_helpers.course import draw, notebooks, pieces, records

DRAWINGS = draw.stored()
DIGITS = {name: strokes for name, strokes in DRAWINGS.items() if name[0].isdigit()}
MALFORMED = [[], [[]], [[[]]], [None, 3, "12", {}], [[[1]], [[1, 2, 3]], [["a", None]], [[None, None]], [None]],
             [[[math.nan, 5], [5, math.inf], [-math.inf, 5]]], [[[10**400, 0]]]]

each_digit = pytest.mark.parametrize("name", DIGITS)


def centre_of_mass(image):
    """Row and column, by a loop over the pixels."""
    total, row, column = 0, 0, 0
    for y in range(28):
        for x in range(28):
            value = int(image[0, 0, y, x])
            total, row, column = total + value, row + value * y, column + value * x
    return row / total, column / total


def inked(image):
    """The part of an image that is not black, and its top left corner."""
    rows, columns = ((image[0, 0] > 0).any(1 - side).nonzero().flatten() for side in (0, 1))
    part = image[0, 0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part.double(), (rows[0].item(), columns[0].item())


def box(image):
    """Height and width of what is not black."""
    return tuple(inked(image)[0].shape)


def moved(strokes, zoom, right, down):
    return [[[zoom * x + right, zoom * y + down] for x, y in stroke] for stroke in strokes]


@pytest.fixture(scope="module")
def models():
    """Seven networks with random weights."""
    torch.manual_seed(0)
    return {f"network {number}": nn.Sequential(nn.Flatten(), nn.Linear(784, 10)) for number in range(7)}


def test_the_stored_drawings_are_ten_digits_and_more():
    assert {name[0] for name in DIGITS} == set("0123456789") and {"dot", "scribble"} <= set(DRAWINGS)
    for name in DIGITS:
        assert sum(len(stroke) for stroke in DRAWINGS[name]) >= 12
        assert draw.cleaned(DRAWINGS[name]) == [[tuple(point) for point in stroke] for stroke in DRAWINGS[name]]


# ---------------------------------------------------------------- as MNIST was made


@each_digit
def test_a_drawing_fills_its_box_and_is_centred_by_mass(name):
    image = draw.prepare(DRAWINGS[name])
    assert image.shape == (1, 1, 28, 28) and image.dtype == torch.uint8
    assert max(box(image)) == 20
    assert all(abs(centre - 14) <= 0.5 + 1e-9 for centre in centre_of_mass(image))
    assert image.max() == 255 and ((image > 0) & (image < 255)).sum() > 10, "white ink with grey edges"


def test_mnist_is_so_itself(mnist_root):
    """What the test above asks of drawings holds for the images the networks learnt from."""
    import mnist_helpers as mh

    images = mh.load_mnist(verbose=False).train.images[:300]
    centres = [centre for image in images for centre in centre_of_mass(image[None])]
    assert all(abs(centre - 14) <= 0.51 for centre in centres)
    assert sum(max(box(image[None])) == 20 for image in images) >= 295


@each_digit
@pytest.mark.parametrize(("longer", "right", "down"), [(60, 0, 0), (60, 210, 200), (130, 20, 140), (260, 10, 10)])
def test_where_and_how_large_it_was_drawn_does_not_matter(name, longer, right, down):
    left, top, *end = draw.extent(DRAWINGS[name])
    zoom = longer / max(end[0] - left, end[1] - top)
    other = draw.prepare(moved(DRAWINGS[name], zoom, right - zoom * left, down - zoom * top))
    (here, corner), (there, other_corner) = inked(draw.prepare(DRAWINGS[name])), inked(other)
    assert here.shape == there.shape and (here - there).abs().mean() < 4, "of 255"
    # A centre of mass on the line between two pixels may fall to either.
    assert all(abs(one - two) <= 1 for one, two in zip(corner, other_corner, strict=True))


def test_keeps_the_aspect_ratio():
    tall = draw.prepare([[[100, 40], [150, 40], [150, 240], [100, 240], [100, 40]]])
    height, width = box(tall)
    with_line = (50 + draw.MNIST_PEN) / (200 + draw.MNIST_PEN)
    assert height == 20 and abs(width - 20 * with_line) <= 1


def test_rasterize_draws_round_ends_and_no_gaps():
    picture = draw.rasterize([[[100, 100], [180, 100], [180, 180]]], pen=20)
    assert picture.shape == (280, 280) and picture.dtype == torch.uint8
    line = 80 * 20 + 80 * 20 - 10 * 10 + math.pi * 10**2 * (1 / 2 + 1 / 2 + 1 / 4)  # minus the overlap, plus round ends
    assert (picture.double() / 255).sum() == pytest.approx(line, rel=0.02)
    assert draw.rasterize([[[140, 140]]], pen=20).double().sum() / 255 == pytest.approx(math.pi * 100, rel=0.03)


def test_nothing_goes_over_the_edge():
    """A blob far from a dot: the centre of mass is so near one end of the box that the other end would stick out."""
    blob = [[40 + radius * math.cos(angle), 140 + radius * math.sin(angle)]
            for radius in (5, 13, 21) for angle in range(7)]
    for strokes in ([blob, [[240, 140]]], [[[y, x] for x, y in blob], [[140, 240]]],
                    [[[280 - x, y] for x, y in blob], [[40, 140]]]):
        part, corner = inked(draw.prepare(strokes))
        assert max(part.shape) == 20 and (8 in corner or 0 in corner), "moved as far as there is room"


# ---------------------------------------------------------------- whatever is drawn


@pytest.mark.parametrize("strokes", MALFORMED, ids=str)
def test_nothing_drawn_is_no_image(strokes, models):
    assert draw.prepare(strokes) is None
    canvas = draw.Canvas(models, strokes)
    assert canvas.answer["image"] == [] and canvas.answer["remark"] == "Nothing is drawn."
    assert canvas.answer["rows"] == [[name, []] for name in models]


@pytest.mark.parametrize("strokes", [
    DRAWINGS["dot"], DRAWINGS["scribble"], [[[140, 140]]], [[[0, 0]]], [[[5, 5]] * 40], [[[1e9, -1e9]], [[-5, 3]]],
    [[[0, 0], [280, 280]]], [[[0, 140], [280, 140]]], [[], [[20, 20], [None, 3], [60, 90]]],
], ids=["dot", "scribble", "point", "corner", "pressed", "outside", "diagonal", "dash", "half malformed"])
def test_anything_drawn_is_answered(strokes, models):
    image = draw.prepare(strokes)
    assert image.max() > 0
    found = draw.answers(image, models)
    assert list(found) == list(models)
    for probabilities in found.values():
        assert probabilities.shape == (10,) and probabilities.sum() == pytest.approx(1)
    assert "networks answer" in draw.remark(strokes, found)


def test_a_shaken_dot_stays_a_dot():
    for strokes in ([[[140, 140]]], DRAWINGS["dot"]):
        image = draw.prepare(strokes)
        assert min(box(image)) >= 18 and max(box(image)) == 20
        assert image.sum() / 255 == pytest.approx(math.pi * 10**2, rel=0.05), "a disc as large as the box"


def test_answers_are_those_of_softmax(models):
    image = draw.prepare(DRAWINGS["3"])
    name, model = next(iter(models.items()))
    logits = model((image / 255 - 0.1307) / 0.3081)[0].tolist()
    expected = torch.tensor([math.exp(logit) for logit in logits])
    torch.testing.assert_close(draw.answers(image, models)[name], expected / expected.sum())


def test_the_remark_fits():
    def all_saying(*digits):
        return {str(number): nn.functional.one_hot(torch.tensor(digit), 10).float()
                for number, digit in enumerate(digits)}

    three = DRAWINGS["3"]
    assert draw.remark(three, all_saying(3, 3, 3)) == "3 of 3 networks answer 3."
    assert draw.remark(three, all_saying(3, 3, 8)).startswith("2 of 3 networks answer 3. They differ")
    assert "a dot" in draw.remark(DRAWINGS["dot"], all_saying(0, 0, 0))
    assert "a dot" not in draw.remark(DRAWINGS["1"], all_saying(1, 1, 1))


def test_looks_leave_a_network_as_it_was():
    """Also one in train mode, with batch norm and dropout, in which one part is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.BatchNorm1d(8),
                          nn.Linear(8, 10))
    model[4].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    image = draw.prepare(DRAWINGS["3"])
    first = draw.answers(image, {"mine": model})["mine"]
    for _ in range(39):
        assert torch.equal(draw.answers(image, {"mine": model})["mine"], first), "dropout is off"
    draw.Canvas({"mine": model}, DRAWINGS["3"])
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("strokes", [[[[x % 280, x // 400] for x in range(100_000)]],
                                     [[[x % 280, x // 400]] for x in range(100_000)], [[]] * 100_000],
                         ids=["one stroke", "dots", "empty strokes"])
def test_a_hundred_thousand_points_are_answered_at_once(strokes, models):
    started = time.process_time()
    draw.Canvas(models, strokes)
    assert time.process_time() - started < 2
    kept = draw.cleaned(strokes)
    assert sum(map(len, kept)) <= 2 * draw.MOST_POINTS
    if kept:
        assert draw.extent(kept)[2] > 260 and draw.extent(kept)[3] > 240, "they are spread over the whole drawing"


# ---------------------------------------------------------------- the canvas, without a page


def test_the_canvas_answers_when_strokes_arrive(models):
    canvas = draw.Canvas(models)
    canvas.strokes = DRAWINGS["3"]
    image = draw.prepare(DRAWINGS["3"])
    assert canvas.answer["image"] == image.flatten().tolist()
    expected = [[name, probabilities.tolist()] for name, probabilities in draw.answers(image, models).items()]
    assert canvas.answer["rows"] == expected
    json.dumps(canvas.answer, allow_nan=False)
    canvas.strokes = []
    assert canvas.answer["image"] == []


def test_without_a_kernel_a_picture_stands_for_the_canvas(models):
    """`notebooks.save` keeps it, and leaves out the widget."""
    data, metadata = draw.Canvas(models, DRAWINGS["3"])._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    kept = notebooks.as_seen(nbformat.v4.new_output("display_data", data, metadata=metadata))
    assert "application/vnd.jupyter.widget-view+json" not in kept.data and "image/png" in kept.data


# ---------------------------------------------------------------- kept drawings


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The file of kept drawings, not there yet."""
    monkeypatch.setenv("MNIST_IDEAS", str(tmp_path))
    monkeypatch.delenv("MNIST_COLLECT", raising=False)
    return tmp_path / "drawings.jsonl"


def test_kept_drawings_come_back_as_a_split_to_train_on(own, models):
    assert len(mh.drawings()) == 0 and mh.drawings().images.shape == (0, 1, 28, 28)
    canvas = draw.Canvas(models)
    for name in ("3", "9"):
        canvas._do({"keep": int(name), "strokes": DRAWINGS[name]})
    assert canvas.kept == {"said": "Kept as 9: 2 drawings in drawings.jsonl.", "done": "keep"}
    kept = mh.drawings()
    assert kept.labels.tolist() == [3, 9] and kept.labels.dtype == torch.int64
    assert torch.equal(kept.images, torch.cat([draw.prepare(DRAWINGS[name]) for name in ("3", "9")]))
    assert torch.equal(mh.drawings(own).images, kept.images)
    model = next(iter(models.values()))
    before = mh.evaluate(model, kept).loss
    run = mh.fit(model, kept, None, epochs=2, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    assert mh.evaluate(run.model, kept).loss < before


def test_what_was_kept_last_is_taken_back_once(own, models):
    canvas = draw.Canvas(models, DRAWINGS["3"])
    canvas.keep(3)
    canvas.keep(8)
    for _ in range(2):
        canvas._do({"undo": True})
    assert mh.drawings().labels.tolist() == [3]
    assert canvas.kept == {"said": "Taken back: 1 drawing in drawings.jsonl.", "done": "undo"}


def test_nothing_is_kept_of_nothing_drawn_nor_under_another_label(own, models):
    canvas = draw.Canvas(models)
    canvas._do({"keep": 3, "strokes": []})
    assert canvas.kept["said"].startswith("Not done: nothing is drawn.") and not canvas.kept["done"]
    for label in (10, -1, "3", None):
        with pytest.raises(ValueError, match="0 to 9"):
            draw.keep(draw.prepare(DRAWINGS["3"]), label)
    assert not own.exists()


def test_where_nothing_can_be_written_the_canvas_says_so(own, models):
    own.mkdir()
    canvas = draw.Canvas(models)
    canvas._do({"keep": 3, "strokes": DRAWINGS["3"]})
    assert canvas.kept["said"].startswith("Not done: ") and not canvas.kept["done"]


def test_damaged_drawings_are_named_and_the_others_stay(own, capsys):
    draw.keep(draw.prepare(DRAWINGS["3"]), 3)
    good = json.loads(own.read_text(encoding="utf-8"))
    wrong = [good | {"label": 12}, good | {"label": True}, good | {"image": good["image"][:-8]}, good | {"image": "?"},
             good | {"image": 5}]
    with own.open("a", encoding="utf-8") as file:
        file.write("".join(f"{json.dumps(each)}\n" for each in wrong) + '{"label": 4, "image": "AA')
    assert mh.drawings().labels.tolist() == [3]
    said = capsys.readouterr().err
    assert "left out line 7, which is no complete record" in said and "left out 5 whose image or label is damaged" in said
    draw.keep(draw.prepare(DRAWINGS["7"]), 7)
    assert mh.drawings().labels.tolist() == [3, 7], "a torn line takes no other with it"
    with pytest.raises(FileNotFoundError, match="no file"):
        mh.drawings(own.with_name("none.jsonl"))


def test_git_ignores_kept_drawings():
    done = subprocess.run(["git", "check-ignore", "results/drawings.jsonl"], cwd=data.project_root(), capture_output=True)
    if done.returncode == 128:
        pytest.skip("no git repository here")
    assert done.returncode == 0


# ---------------------------------------------------------------- with the course's networks


def test_the_lessons_networks_read_the_stored_drawings():
    paths = notebooks.find()
    recorded = {run["notebook"]: run["id"] for runs in records.all_seeds().values() for seed, run in runs.items() if not seed}
    if not all((checkpoint.kept_folder() / f"{recorded.get(path.stem)}.safetensors").exists() for path in paths):
        pytest.skip("needs the weights of the lessons")
    models = {path.stem: notebooks.trained(path) for path in paths}
    assert not any(model.training for model in models.values())
    for name, strokes in DIGITS.items():
        digits = [p.argmax().item() for p in draw.answers(draw.prepare(strokes), models).values()]
        assert digits.count(int(name[0])) >= 5, f"{name}: {digits}"


def test_a_figure_is_a_picture_whatever_the_backend(models):
    """Where MPLBACKEND is Agg, as in many containers, IPython shows no figure of matplotlib's."""
    shown, told = draw.figure(DRAWINGS["3"], models)._repr_mimebundle_()
    assert base64.b64decode(shown["image/png"]).startswith(b"\x89PNG") and "networks answer" in told["image/png"]["alt"]
    assert "image/png" in pieces.still("kernel_editor")._repr_mimebundle_()[0]


# ---------------------------------------------------------------- photographs


def photographed(image, random):
    """An image of MNIST as dark ink somewhere on a sheet, in uneven light and with a camera's noise."""
    page, corner = np.zeros((420, 520)), (random.integers(20, 200), random.integers(20, 300))
    page[corner[0] : corner[0] + 200, corner[1] : corner[1] + 200] = Image.fromarray(image.numpy()).resize((200, 200))
    light = np.linspace(230, 120, 520) * np.linspace(1, 0.8, 420)[:, None]
    return (light * (1 - 0.75 * page / 255) + random.normal(0, 4, page.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
def test_photographs_of_dark_ink_are_read(mnist_root):
    split, model = mh.load_mnist(verbose=False, profile="full").val[:100], notebooks.trained("07_dropout_everywhere")
    random = np.random.default_rng(0)
    photos = [photographed(image, random) for image in split.images[:, 0]]
    prepared = torch.cat([draw.prepare_photo(photo) for photo in photos])
    assert mh.evaluate(model, (prepared, split.labels)).accuracy > 0.95
    naive = np.stack([Image.fromarray(photo).resize((28, 28)) for photo in photos])[:, None]
    assert mh.evaluate(model, (torch.from_numpy(naive), split.labels)).accuracy < 0.3
    # Those who inverted theirs, or drew in white on black, are read too.
    inverted = torch.cat([draw.prepare_photo(255 - photographed(image, random)) for image in split.images[:50, 0]])
    assert mh.evaluate(model, (inverted, split.labels[:50])).accuracy > 0.9
    file = io.BytesIO()
    Image.fromarray(photos[0]).convert("RGB").save(file, "png")
    assert torch.equal(draw.prepare_photo(file), prepared[:1])


def test_a_picture_of_shares_or_on_nothing_is_the_same_picture():
    photo = photographed(draw.prepare(DRAWINGS["3"])[0, 0], np.random.default_rng(0))
    prepared = draw.prepare_photo(photo)
    for same in (photo[..., None], np.stack([photo] * 3, 2), torch.from_numpy(photo)):
        assert torch.equal(draw.prepare_photo(same), prepared)
    difference = draw.prepare_photo(photo / 255).int() - prepared.int()  # rounded down to bytes
    assert difference.abs().float().mean() < 1
    ink = Image.new("RGBA", (280, 280))
    ink.paste("black", mask=Image.fromarray(draw.rasterize(DRAWINGS["3"]).numpy()))
    paper = Image.new("RGB", ink.size, "white")
    paper.paste(ink, mask=ink)
    file = io.BytesIO()
    ink.save(file, "png")
    assert torch.equal(draw.prepare_photo(file), draw.prepare_photo(paper))


def test_a_photograph_of_nothing_or_no_photograph_is_refused_in_a_sentence(tmp_path):
    paper = np.random.default_rng(0).normal(180, 4, (300, 200)).astype(np.uint8)
    (tmp_path / "text.png").write_text("no picture")
    for picture in (paper, np.zeros((30, 30), np.uint8), tmp_path / "text.png", tmp_path / "none.png", np.zeros(3), None):
        with pytest.raises(ValueError, match=r"no ink is|no picture"):
            draw.prepare_photo(picture)


def test_a_bright_border_is_noticed(models):
    image = draw.prepare(DRAWINGS["3"])
    with pytest.warns(UserWarning, match="white on black"):
        draw.answers(255 - image, models)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw.answers(image, models)
        draw.answers(torch.zeros_like(image), models)
