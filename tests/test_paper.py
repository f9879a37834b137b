"""Notebooks on paper: all of them fit, and the browser that is there prints them."""

import pytest

from mnist_helpers.__main__ import main
from mnist_helpers.course import notebooks, paper

WIDTH = round((210 - 2 * 14) / 25.4 * 96)  # pixels of an A4 page between its margins
# Whatever is wider than the page, but for spaces that hang over, or than a box that shows the rest to who scrolls.
CUT = """[...document.querySelectorAll("main *")].filter(each => each.getBoundingClientRect().right > innerWidth + 12
         || (each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX != "visible"))
         .map(each => each.outerHTML.slice(0, 300))"""


@pytest.mark.slow
def test_nothing_is_cut_at_the_right_edge(browser, tmp_path):
    shown = browser.new_page(viewport={"width": WIDTH, "height": 1000})
    shown.emulate_media(media="print")
    shown.route("http**", lambda route: route.abort())  # without a network, formulas stay as they are written
    for path in [*notebooks.lessons(), *notebooks.find(["as_met_elsewhere", "reading_the_numbers"])]:  # wide tables, too
        file = tmp_path / "page.html"
        file.write_text(paper.page(path), encoding="utf-8")
        shown.goto(file.as_uri())
        assert shown.evaluate(CUT) == [], path.name
        assert shown.inner_text("h1") and "Set-up: brings" not in shown.content()
        assert shown.eval_on_selector_all("a[href]:not(.anchor-link)", "all => all.map(each => each.protocol)") in (
            [], ["https:"] * shown.locator("a[href]:not(.anchor-link)").count()), "links to files lead nowhere on paper"


def test_a_lesson_is_printed(tmp_path, capfd):
    try:
        paper.browser()
    except LookupError:
        pytest.skip("no Chromium is installed")
    assert main(["print", "05_under_20k", "--to", str(tmp_path / "new")]) == 0
    made = tmp_path / "new" / "05_under_20k.pdf"
    content = made.read_bytes()
    assert capfd.readouterr().out.strip() == str(made) and content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")
    assert content.count(b"/Type /Page\n") > 4


def test_without_a_browser_one_sentence_says_so(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(paper.shutil, "which", lambda name: None)
    assert main(["print", "05_under_20k", "--to", str(tmp_path)]) == 1
    assert len(said := capfd.readouterr().err.splitlines()) == 1 and "Chromium, Chrome or Edge" in said[0]
    assert not list(tmp_path.iterdir())


def test_a_browser_that_fails_leaves_the_old_pdf(tmp_path, capfd, monkeypatch):
    made = tmp_path / "05_under_20k.pdf"
    made.write_bytes(b"old")
    monkeypatch.setattr(paper, "browser", lambda: "false")  # a command that does nothing, and says that it failed
    assert main(["print", "05_under_20k", "--to", str(tmp_path)]) == 1
    assert "did not print 05_under_20k.ipynb" in capfd.readouterr().err and made.read_bytes() == b"old"
