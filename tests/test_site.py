"""The site: built once, its links followed, its pages opened; the live canvas against PyTorch and `draw`."""

import functools
import html.parser
import http.server
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import torch

import mnist_helpers as mh
from benchmarks import remark
from mnist_helpers.course import draw, explain, glossary, live, notebooks, site
from mnist_helpers.data import normalize, project_root

DRAWINGS = draw.stored()
PAGES = ["index.html", "draw.html", "explanations.html", "notebooks/04_batch_norm.html", "claims.html"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    pytest.importorskip("myst_nb", reason="needs the site's extra: pip install -e .[site]")
    pytest.importorskip("sphinx_book_theme", reason="needs the site's extra: pip install -e .[site]")
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder) > 30
    return folder


@pytest.fixture(scope="module")
def models():
    return live.models()


# ---------------------------------------------------------------- the pages


class Parts(html.parser.HTMLParser):
    """The ids of a page, what it links to, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        if "src" in found or tag == "link":
            self.loaded.add(found.get("src") or found["href"])


@pytest.mark.slow
def test_every_link_of_every_page_leads_somewhere_and_nothing_is_loaded_from_elsewhere(folder):
    pages = {path: Parts(path) for path in folder.rglob("*.html") if "_static" not in path.parts}
    lost, foreign = set(), set()
    for path, parts in pages.items():
        foreign |= {each for each in parts.loaded if urlsplit(each).netloc}
        for link in parts.links | parts.loaded:
            name, anchor = urldefrag(link)
            if urlsplit(link).scheme or urlsplit(link).netloc:
                continue
            target = (path.parent / unquote(name).partition("?")[0]).resolve() if name else path
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].ids):
                lost.add((path.name, link))
    assert not lost and not foreign


def test_every_notebook_is_there_as_it_is_stored(folder):
    for path in notebooks.every():
        page = (folder / "notebooks" / notebooks.name_of(path)).with_suffix(".html").read_text(encoding="utf-8")
        assert "<!-- =" not in page
        outputs = [output for cell in notebooks.read(path).cells for output in cell.get("outputs", [])
                   if "image/png" in output.get("data", {})]
        moving = page.count('class="live"')
        assert page.count("cell_output") >= len(outputs) - moving, path.name
        assert page.count('<details class="admonition hide') == 1, "the set-up is folded, and nothing else"


def test_a_link_that_leads_nowhere_is_refused(tmp_path, folder, capfd):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "index.md").write_text("# A page\n\n[there](gone.md)\n", encoding="utf-8")
    with pytest.raises(ValueError):
        site.write_html(sources, tmp_path / "out", project_root() / "site")
    assert "gone.md" in capfd.readouterr().err


def test_links_of_the_repository_are_those_of_the_site(monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/course")
    root = project_root()

    def there(text, source, target):
        return site.relinked(text, root / source, Path(target), root)

    assert there("[a](../notebooks/01_baseline.ipynb#x)", "site/draw.md", "draw.md") == "[a](notebooks/01_baseline.ipynb#x)"
    assert there("[a](glossary.md#seed)", "notebooks/01_baseline.ipynb", "notebooks/01_baseline.ipynb") == "[a](../glossary.md#seed)"
    assert there("[a](../tests)", "site/draw.md", "draw.md") == "[a](https://github.com/ada/course/tree/HEAD/tests)"
    assert there("[a](../README.md#results)", "site/draw.md", "draw.md") == "[a](index.md)"
    for unchanged in ("[a](https://example.org/x)", "[a](#here)", "[a](gone.md)", "images[0](x)"):
        assert there(unchanged, "site/draw.md", "draw.md") == unchanged


def test_the_first_mention_of_a_word_leads_to_the_glossary(folder):
    words = glossary.read('**Seed**<a id="seed"></a> ([1](a.ipynb)). By K. Pearson, the "number" of [*draws*](b). More.\n\n'
                          '**Padding, eval mode**<a id="padding"></a><a id="eval-mode"></a> ([1](a.ipynb), [2](b.ipynb)). Zeros.')
    assert words == {"seed": ("seed", 'By K. Pearson, the "number" of draws.'), "padding": ("padding", "Zeros."),
                     "eval mode": ("eval-mode", "Zeros.")}
    link = glossary.linker(words, "g.md")
    apart = "# A seed\n\n| seed |\n\n```\nseed\n```\n`seed` $seed$ [seed](x) ![seed](y) <i title='seed'> **Seed**: reseeding"
    assert link(apart) == apart
    seeds = '[Seeds](g.md#seed "By K. Pearson, the &quot;number&quot; of draws."){.term}'
    assert link("Seeds, a seed, eval mode") == f'{seeds}, a seed, [eval mode](g.md#eval-mode "Zeros."){{.term}}'
    assert link("the next cell: a seed") == "the next cell: a seed"

    page = (folder / "notebooks" / "05_under_20k.html").read_text(encoding="utf-8")
    assert page.count('href="../glossary.html#seed" title="The number from which all random draws follow."') == 1


def test_without_sphinx_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        site.write_html(tmp_path, tmp_path, tmp_path)


# ---------------------------------------------------------------- in a browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 800}, base_url=address, reduced_motion="reduce")
    page.wrong = []
    page.on("console", lambda message: message.type in ("error", "warning") and page.wrong.append(message.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    yield page
    page.close()


@pytest.fixture
def canvas(page):
    """The page with the canvas, its networks loaded."""
    page.goto("/draw.html")
    page.get_by_role("button", name="scribble").wait_for()
    return page


def example(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def answers(page):
    return [int(text) for text in page.locator(".draw-digit").all_inner_texts()]


def test_pages_open_without_a_complaint_and_fit_a_phone(page):
    for name in PAGES:
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(f"/{name}", wait_until="load")
            if page.locator("[data-piece]").count():
                page.wait_for_function("document.querySelector('.live :is(button, select, input)') !== null")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert not page.wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_nothing_keeps_a_reader_out(page, name):
    """axe-core finds nothing serious; in the dark, colours are looked at once more."""
    api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs pip install axe-playwright-python")
    for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"/{name}", wait_until="load")
        # Without highlighted code: its colours are a theme made for contrast, and thousands of words take minutes.
        found = api.Axe().run(page, {"exclude": [".highlight"]}, rules).response["violations"]
        serious = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found
                   if each["impact"] in ("serious", "critical")]
        assert not serious, scheme


def test_all_of_the_canvas_is_above_the_fold(canvas):
    example(canvas, "3")
    for part in (".draw-canvas >> nth=0", ".draw-seen", ".draw tbody tr >> nth=6", ".draw-remark", ".draw-clear"):
        box = canvas.locator(part).bounding_box()
        assert box["y"] > 0 and box["y"] + box["height"] <= 800 and box["x"] + box["width"] <= 1280, part


def test_a_drawn_1_and_7_are_read(canvas):
    box = canvas.locator(".draw-canvas").first.bounding_box()
    for name in ("1", "7"):
        canvas.get_by_role("button", name="Clear").click()
        for stroke in DRAWINGS[name]:
            places = [(box["x"] + x, box["y"] + y) for x, y in stroke]
            canvas.mouse.move(*places[0])
            canvas.mouse.down()
            for place in places[1:]:
                canvas.mouse.move(*place)
            canvas.mouse.up()
        found = answers(canvas)
        assert len(found) == 7 and found.count(int(name)) >= 5, found
        assert f"networks answer {name}." in canvas.inner_text(".draw-remark")
    assert not canvas.wrong


def test_the_networks_are_those_of_pytorch(canvas, models):
    images = explain.digits()
    pixels = normalize(images)
    found = canvas.evaluate("""async (images) => {
        const { forward, readSafetensors } = await import("/live/nets.js");
        const { networks } = await (await fetch("/live/draw.json")).json();
        const all = await Promise.all(networks.map(async ({ file, layers }) => {
            const weights = readSafetensors(await (await fetch(`/live/${file}`)).arrayBuffer());
            return images.map((image) => [...forward(layers, weights, Float32Array.from(image)).at(-1).values]);
        }));
        return all;
    }""", pixels.flatten(1).tolist())
    with torch.no_grad():
        expected = torch.stack([model(pixels[:, None]) for model in models.values()])
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-3)


def test_drawings_are_prepared_as_in_python(canvas):
    letters = [strokes for font in live.letters().values() for strokes in list(font.values())[::12]]
    drawn = [*DRAWINGS.values(), *letters, [[[140, 140]]], [[[0, 0], [280, 140]], [[50, 50]]], [[[1e9, -5], [3, 4], ["x", 1]]]]
    found = canvas.evaluate("""async (drawn) => {
        const { prepare } = await import("/live/prepare.js");
        return [drawn.map((strokes) => [...prepare(strokes)]), prepare([]), prepare([[], [["x", 1]]])];
    }""", drawn)
    assert found[1:] == [None, None]
    for strokes, image in zip(drawn, found[0], strict=True):
        image, expected = torch.tensor(image).view(28, 28), draw.prepare(strokes)[0, 0].int()
        # A centre of mass on the line between two pixels may fall to either.
        moved = [image.roll((down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        assert min((each - expected).abs().float().mean() for each in moved) < 1.5, "of 255"


def test_weak_answers_are_told_from_strong_ones(canvas, models):
    for name, strokes in (("7", DRAWINGS["7"]), ("scribble", DRAWINGS["scribble"])):
        example(canvas, name)
        strength = remark.strengths(draw.prepare(strokes), models)[0].item()
        assert abs(strength - live.remark()["threshold"]) > 0.2, "an example that is clear"
        said = canvas.inner_text(".draw-remark")
        assert ("may be no digit" in said) == (strength < live.remark()["threshold"])


def draw_seven(page):
    """A 7 by the keys: its bar, then its leg."""
    page.get_by_label("Draw a digit here").focus()
    for key in ("Shift+ArrowUp", "Shift+ArrowUp", "Shift+ArrowLeft", "Space", *["Shift+ArrowRight"] * 3, "Shift+End",
                *["ArrowDown"] * 10, "Space"):
        page.keyboard.press(key)


def test_a_digit_is_drawn_read_and_announced_by_keys(canvas):
    draw_seven(canvas)
    assert answers(canvas).count(7) >= 5
    assert "networks answer 7." in canvas.inner_text(".draw-remark[aria-live=polite]")
    canvas.wait_for_function("document.querySelector('.draw-where[aria-live=polite]').textContent === 'Pen up.'")
    canvas.keyboard.press("ArrowRight")
    canvas.wait_for_function("document.querySelector('.draw-where').textContent === 'Pen up, 19 across, 20 down, of 28.'")
    help = canvas.evaluate("document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent")
    assert "Space puts the pen down" in help
    canvas.keyboard.press("Space")
    canvas.keyboard.press("ArrowRight")
    canvas.keyboard.press("Backspace")  # what is not finished
    assert answers(canvas).count(7) >= 5
    canvas.keyboard.press("Backspace")
    assert not canvas.locator(".draw-digit").first.inner_text()
    for key in ("Space", "ArrowDown", "Tab"):  # leaving ends the stroke
        canvas.keyboard.press(key)
    assert canvas.locator(".draw-digit").first.inner_text()
    assert not canvas.wrong


def test_drawings_are_kept_for_a_notebook(canvas, tmp_path):
    """By a key, or by a button after a drawing with the mouse; none of them leaves the page but by the download."""
    draw_seven(canvas)
    canvas.keyboard.press("7")
    assert canvas.inner_text(".draw-said") == "Kept as 7: 1 drawing on this page."
    assert not canvas.locator(".draw-digit").first.inner_text(), "cleared for the next one"
    canvas.get_by_role("button", name="Keep as 3").click()
    assert "nothing is drawn" in canvas.inner_text(".draw-said[role=status]")
    for name, label in (("3", 3), ("4", 5)):
        example(canvas, name)
        canvas.get_by_role("button", name=f"Keep as {label}").click()
    canvas.get_by_role("button", name="Take back").click()
    assert answers(canvas).count(4) >= 5, "drawn again, to be kept as what it is"
    canvas.get_by_role("button", name="Keep as 4").click()
    with canvas.expect_download() as download:
        canvas.get_by_role("link", name="Download drawings.jsonl").click()
    download.value.save_as(tmp_path / "drawings.jsonl")
    kept = mh.drawings(tmp_path / "drawings.jsonl")
    assert kept.labels.tolist() == [7, 3, 4]
    assert (kept.images[1].float() - draw.prepare(DRAWINGS["3"])[0]).abs().mean() < 1.5, "of 255"


def test_keys_reach_every_control(canvas):
    canvas.get_by_role("button", name="4", exact=True).focus()
    canvas.keyboard.press("Enter")
    assert answers(canvas).count(4) >= 5
    canvas.get_by_role("button", name="Keep to compare").focus()
    canvas.keyboard.press("Enter")
    example(canvas, "letter A")
    assert canvas.locator(".live-strips tbody tr").count() == 1
    before = canvas.inner_text(".live-maps")
    canvas.get_by_label("Inside network").focus()
    canvas.keyboard.press("ArrowDown")
    assert canvas.inner_text(".live-maps") != before and "2: smaller" in canvas.evaluate("document.activeElement.value")
    shown = canvas.locator(".draw-canvas").first.evaluate("each => each.toDataURL()")
    canvas.get_by_role("button", name="Draw this 4 again").press("Enter")
    assert canvas.locator(".draw-canvas").first.evaluate("each => each.toDataURL()") != shown
    canvas.get_by_role("button", name="Remove this 4").press("Enter")
    assert canvas.locator(".live-strips").is_hidden()
    for control in canvas.locator(".live :is(button, select)").all():
        assert control.evaluate("each => each.ariaLabel || each.labels?.[0]?.textContent || each.textContent").strip()


def test_missing_and_damaged_weights_are_told_in_a_sentence(page, folder):
    """One file is missing, one cut off, one has other weights, one is none; the other three networks answer."""
    files = sorted((folder / "live" / "weights").iterdir())
    contents = {file.name: file.read_bytes() for file in files[1:4]}
    cut, other, none = contents
    broken = {cut: contents[cut][:-400], other: contents[other][:-4] + b"\0\0\0\0", none: b"not found, with status 200"}

    def answer(route):
        name = route.request.url.rpartition("/")[2]
        route.fulfill(body=broken[name]) if name in broken else route.fulfill(status=404)

    for name in (files[0].name, *broken):
        page.route(f"**/{name}", answer)
    page.goto("/draw.html")
    page.get_by_role("button", name="scribble").wait_for()
    told = page.inner_text(".live [role=status]")
    assert told.count("damaged") == 3 and told.count("missing (404)") == 1 and "others answer" in told
    example(page, "7")
    assert answers(page).count(7) >= 2 and len(answers(page)) == 3


def test_without_any_network_the_page_still_says_why(page):
    page.route("**/*.safetensors", lambda route: route.abort())
    page.goto("/draw.html")
    page.get_by_role("button", name="scribble").wait_for()
    assert "Reload the page" in page.inner_text(".live [role=status]")
    example(page, "7")
    assert not answers(page)


def test_without_javascript_there_is_a_picture_and_a_sentence(browser, address):
    page = browser.new_page(base_url=address, java_script_enabled=False)
    page.goto("/draw.html")
    assert page.locator(".live img").bounding_box()["width"] > 300 and "JavaScript" in page.inner_text(".live")
    page.close()


# ---------------------------------------------------------------- the remark


def test_the_remark_is_as_good_as_the_page_says(models):
    weak = live.remark()["threshold"]
    strength, digits = remark.strengths(remark.signs("cursive", digits=False), models)
    differ = (digits != digits[:, :1]).any(1)
    found = [(strength < weak).sum().item(), ((strength < weak) | differ).sum().item(), len(strength)]
    assert found == pytest.approx(live.remark()["kinds"]["letters, cursive"], abs=2)  # other processors round otherwise


def test_a_layer_that_javascript_does_not_know_is_refused():
    with pytest.raises(ValueError, match="GELU"):
        live.layers(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GELU()))
    with pytest.raises(ValueError, match="Conv2d"):
        live.layers(torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3, groups=2)))
