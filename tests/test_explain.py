"""The explanations in a browser, moved by keys, against PyTorch and the records; their pictures and their sentences."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mnist_helpers.course import catalogue, explain, notebooks, pieces, records

TYPES = {".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
MOUNT = """async (name) => {
    const piece = await import(`/${name}.js`), data = await (await fetch(`/${name}.json`)).json();
    document.body.innerHTML = '<div class="live" id="stage"></div>';
    window.piece = piece.mount(document.getElementById("stage"), data);
}"""


@pytest.fixture(scope="module")
def data():
    return {name: make() for name, make in explain.PIECES.items()}


@pytest.fixture
def page(browser, data):
    """A narrow, empty page of a site that has the pieces beside each other. At its end nothing was logged as wrong."""
    def answer(route):
        name = route.request.url.rpartition("/")[2]
        if name == "":
            return route.fulfill(content_type="text/html", body="<!doctype html><html lang=en><title>pieces</title>"
                                 "<meta name=viewport content='width=device-width'><link rel=stylesheet href=/live.css>"
                                 + "".join(f"<div class=live data-piece={each}><p>still</p></div>" for each in data))
        piece, _, ending = name.partition(".")
        if ending == "json" and piece in data:
            body = json.dumps(data[piece])
        elif ending == "widget.js":
            body = pieces.source(piece)
        elif (explain.folder() / name).is_file():
            body = (explain.folder() / name).read_text(encoding="utf-8")
        else:
            return route.fulfill(status=404)
        return route.fulfill(body=body, content_type=TYPES[f".{ending.rpartition('.')[2]}"])

    page = browser.new_page(viewport={"width": 400, "height": 800}, reduced_motion="reduce")
    page.wrong = []
    page.on("console", lambda message: message.type in ("error", "warning") and page.wrong.append(message.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.route("**/*", answer)
    page.goto("http://pieces.test/")
    yield page
    assert not page.wrong
    page.close()


def pressed(locator, *keys):
    locator.focus()
    for key in keys:
        locator.page.keyboard.press(key)


# ---------------------------------------------------------------- all of them


def test_every_piece_takes_its_place_and_fits(page, data):
    page.evaluate("() => import('/start.js')")
    page.wait_for_function("() => [...document.querySelectorAll('.live')].every(each => !each.textContent.includes('still'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("[data-piece]").count() == len(data) == 5
    for control in page.locator(":is(button, select, input, [role=application])").all():
        named = control.evaluate("each => each.ariaLabel || each.labels?.[0]?.textContent || each.textContent")
        assert named.strip(), control.evaluate("each => each.outerHTML")


def test_a_piece_without_its_data_says_so_and_keeps_the_picture(page):
    page.evaluate("() => { document.body.innerHTML = '<div class=live data-piece=ui><p>still</p></div>';"
                  " return import('/start.js'); }")
    page.wait_for_function("() => document.body.textContent.includes('did not load')")
    assert "still" in page.inner_text("body") and "ui.json: 404" in page.inner_text("body")
    page.wrong = [each for each in page.wrong if "404" not in each]


def test_a_piece_in_a_notebook_is_the_same_module(page, data):
    for name in data:
        page.evaluate("""async (name) => {
            const data = await (await fetch(`/${name}.json`)).json();
            const { default: widget } = await import(`/${name}.widget.js`);
            document.body.replaceChildren();
            widget.render({ model: { get: () => data }, el: document.body });
        }""", name)
        assert page.locator(".live :is(button, select, input)").count()


def test_a_notebook_without_a_kernel_shows_the_picture():
    bundle, metadata = pieces.widget("kernel_editor")._repr_mimebundle_()
    assert bundle["image/png"] and metadata["image/png"]["alt"] == bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize("name", pieces.STILLS)
def test_the_committed_pictures_are_up_to_date(name):
    shown = Image.open(explain.folder() / f"{name}.png").info["Description"]
    assert shown == pieces.still(name).alt, "python -m mnist_helpers table --write"


def test_the_digits_are_validation_images(mnist_root):
    import mnist_helpers as mh

    val = mh.load_mnist(profile="full", verbose=False).val
    assert all(torch.equal(digit, val.images[val.labels == label][0, 0]) for label, digit in enumerate(explain.digits()))


# ---------------------------------------------------------------- each of them


def test_the_kernel_editor_is_conv2d(page):
    page.evaluate(MOUNT, "kernel_editor")
    page.get_by_role("button", name="kernel 2").click()
    weights = page.get_by_role("spinbutton")
    learned = notebooks.trained("Under20K").conv1.weight.detach()[2].flatten().double()
    assert page.evaluate("piece.weights()") == pytest.approx(learned.tolist(), abs=0.0051)
    pressed(weights.nth(0), "ArrowUp", "ArrowUp", "ArrowUp")
    pressed(weights.nth(5), "PageDown", "ArrowDown")
    weights.nth(8).fill("-1.5")
    weights.nth(7).fill("much")  # is no number, and changes nothing
    page.keyboard.press("Tab")
    kernel = torch.tensor(page.evaluate("piece.weights()"), dtype=torch.float64)
    steps = torch.tensor([0.75, 0, 0, 0, 0, -1.25, 0, 0, 0])
    steps[8] = -1.5 - learned[8]
    assert torch.allclose(kernel, learned + steps, atol=0.0051)
    expected = F.conv2d(explain.digits()[None, 7:8].double() / 255, kernel.view(1, 1, 3, 3)).flatten()
    found = torch.tensor(list(page.evaluate("[...piece.map()]")), dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-12)
    pressed(page.get_by_label("The map."), "ArrowDown", "ArrowDown", "ArrowRight")
    value = expected.view(26, 26)[12, 6]
    assert f"Rows 12 to 14, columns 6 to 8: the nine products sum to {value:.2f}.".replace("-", "−") in page.inner_text("#stage")
    page.get_by_label("ReLU").check()
    assert f"after ReLU {max(value, 0):.2f}" in page.inner_text("#stage")


def test_a_weight_is_dragged(page):
    page.evaluate(MOUNT, "kernel_editor")
    box = page.get_by_role("spinbutton").nth(4).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 60, steps=4)  # six steps of 0.25 up
    page.mouse.up()
    page.mouse.move(x, y)
    assert page.evaluate("piece.weights()[4]") == 1.5


def neighbourhoods(name, monkeypatch):
    """For each layer of a network, a function that finds the pixels a unit sees: those with a gradient. All weights are
    1, and pooling takes the mean, so that no gradient is lost."""
    outputs = []
    monkeypatch.setattr(F, "max_pool2d", lambda x, size: outputs.append(F.avg_pool2d(x, size)) or outputs[-1])
    model = notebooks.network(name).__dict__[name]().eval()
    image = torch.ones(1, 1, 28, 28, requires_grad=True)
    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            torch.nn.init.ones_(parameter)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    model(image)

    def pixels(layer, row, column):
        output = outputs[layer - 1]
        unit = output[0, 0, row, column] if output.ndim == 4 else output[0, column]
        found = torch.autograd.grad(unit, image, retain_graph=True)[0][0, 0].nonzero()
        (top, left), (bottom, right) = found.min(0).values.tolist(), found.max(0).values.tolist()
        assert len(found) == (bottom - top + 1) * (right - left + 1)
        return {"rows": [top, bottom], "columns": [left, right]}
    return pixels


@pytest.mark.parametrize("network", range(len(explain.REACHES)))
def test_a_receptive_field_has_a_gradient_and_nothing_else_has(page, data, monkeypatch, network):
    page.evaluate(MOUNT, "receptive_field")
    page.get_by_label("Network").select_option(index=network)
    stages = data["receptive_field"]["networks"][network]["stages"]
    pixels = neighbourhoods(explain.REACHES[network], monkeypatch)
    units = [(layer, row, column) for layer, stage in enumerate(stages) if layer
             for row in {0, 1, stage["rows"] // 2, stage["rows"] - 1} - {stage["rows"]}
             for column in {0, stage["columns"] // 2, stage["columns"] - 2, stage["columns"] - 1}]
    found = page.evaluate("([stages, units]) => units.map(unit => piece.seen(stages, ...unit)[0])", [stages, units])
    for unit, region in zip(units, found, strict=True):
        assert region == pixels(*unit), unit
    pressed(page.get_by_label("Layer 6"), "ArrowLeft", "ArrowLeft", "ArrowUp")
    (top, bottom), (left, right) = pixels(6, 2, 1).values()
    assert f"rows {top} to {bottom}, columns {left} to {right}." in page.inner_text("#stage")
    middle = pixels(6, 3, 3)["rows"]
    assert explain.seen_pixels(stages, 6) == middle[1] - middle[0] + 1


def test_batch_norm_is_pytorchs(page):
    page.evaluate(MOUNT, "batch_norm")
    page.get_by_label("Channel").select_option("8")
    pressed(page.get_by_label("Shift"), *["ArrowRight"] * 10)
    pressed(page.get_by_label("Scale"), *["ArrowLeft"] * 6)
    model, given = notebooks.trained("BatchNorm").double(), []
    model.norm2.register_forward_hook(lambda layer, inputs, output: given.append(inputs[0][:, 8:9]))
    with torch.no_grad():
        model(((explain.digits() / 255 - 0.1307) / 0.3081)[:, None].double())
        moved = given[0] * 10**-0.3 + 2.5
        normed = F.batch_norm(moved, None, None, model.norm2.weight[8:9], model.norm2.bias[8:9], training=True)
    without, with_norm = (torch.tensor(list(each.values()) if isinstance(each, dict) else each, dtype=torch.float64)
                          for each in page.evaluate("piece.outputs().map(each => [...each])"))
    assert torch.allclose(without, moved.flatten(), atol=1e-4)
    assert torch.allclose(with_norm, normed.flatten(), atol=1e-4)
    shares = [f"ReLU keeps {100 * F.relu(each).count_nonzero() / each.numel():.0f} %" for each in (moved, normed)]
    assert page.locator(".live-share").all_inner_texts() == shares


def naive(a, b, seeds):
    """Of all pairs of so many runs a side: those that point away from the means, those that are equal, all of them."""
    better = sum(b) / len(b) > sum(a) / len(a)
    gaps = [sum(other) - sum(one) for one in itertools.combinations(a, seeds) for other in itertools.combinations(b, seeds)]
    return {"wrong": sum(gap < 0 if better else gap > 0 for gap in gaps), "equal": gaps.count(0), "all": len(gaps)}


def test_how_often_seeds_mislead_is_counted_from_the_records(page):
    page.evaluate(MOUNT, "seed_machine")
    runs = records.by_seed()
    for first, second in explain.PAIRS:
        a, b = ([round(10_000 * run["test_accuracy"]) for run in runs[name].values()][:9] for name in (first, second))
        for seeds in (1, 2, 3):
            assert page.evaluate("([a, b, seeds]) => piece.misleading(a, b, seeds)", [a, b, seeds]) == naive(a, b, seeds)
        counts = naive(a, b, 1)
        assert explain.misleading(a, b) == (counts["wrong"], counts["all"])


def test_the_seed_machine_is_played_with_keys(page):
    page.evaluate(MOUNT, "seed_machine")
    pressed(page.get_by_role("button", name="Draw one seed"), "Enter")
    drawn = [text.split() for text in page.locator(".live-drawn").all_inner_texts()]
    pressed(page.get_by_role("button", name="A is better"), "Enter")
    names = [text.split(": lesson ")[1][0] for text in page.locator(".live-seed-name").all_inner_texts()]
    runs = {str(catalogue.network(name).lesson): [f"{100 * run['test_accuracy']:.2f}" for run in seeds.values()]
            for name, seeds in records.by_seed().items() if catalogue.network(name).lesson}
    for name, accuracies in zip(names, drawn, strict=True):
        assert len(accuracies) == 2 and all(accuracies.count(each) <= runs[name].count(each) for each in accuracies)
    a, b = ([round(100 * float(value)) for value in runs[name]] for name in names)
    counts = naive(a, b, 1)
    assert f"{counts['wrong']} of {counts['all']} pairs" in page.inner_text(".live-verdict")
    assert page.evaluate("document.activeElement.textContent") == "Next pair"
    page.keyboard.press("Enter")
    assert "Guess" in page.inner_text(".live-verdict")


def test_the_leak_ranks_as_the_records_do(page):
    page.evaluate(MOUNT, "leak")
    for way, key in (("train", "augmented_train_accuracy"), ("test", "test_accuracy")):
        if way == "test":
            pressed(page.get_by_label("on training images"), "ArrowDown")
        means = {network.lesson: sum(run[key] for run in runs.values()) / len(runs) for name, runs in
                 records.by_seed().items() if (network := catalogue.network(name)).lesson}
        ranked = sorted(means, key=means.get, reverse=True)
        assert f"lessons {', '.join(map(str, ranked))}." in page.inner_text(".live-readout")
        assert page.locator(".live-value").all_inner_texts() == [f"{100 * means[lesson]:.2f} %" for lesson in ranked]
        assert explain.ranked(way) == list(map(str, ranked))
