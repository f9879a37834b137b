"""Slides: made of a notebook by one rule, and shown without a network."""

import re

import nbformat
import pytest

from mnist_helpers.__main__ import main
from mnist_helpers.course import notebooks, slides


@pytest.mark.parametrize("path", notebooks.lessons(), ids=notebooks.name_of)
def test_a_deck_has_question_finding_every_figure_and_result(path):
    lesson, deck = notebooks.read(path), slides.deck(path)
    nbformat.validate(deck)
    pictures = [output.data["image/png"] for cell in lesson.cells if cell.cell_type == "code" for output in cell.outputs
                if "image/png" in output.get("data", {})]
    shown = [attached["image/png"] for page in deck.cells for attached in page.get("attachments", {}).values()]
    assert shown == [picture.replace("\n", "") for picture in pictures] and len(deck.cells) == len(shown) + 3
    assert all(page.metadata.slideshow.slide_type == "slide" for page in deck.cells)
    first, text = deck.cells[0].source, "".join(page.source for page in deck.cells)
    assert "The question" in first and "The finding" in first and "What we found" in text
    assert "<!--" not in text and not re.search(r"\]\((?!https?:|attachment:)", text)


def test_a_deck_opens_without_a_network(tmp_path, capfd):
    """All that it asks for is in the folder given, but for formulas."""
    assert main(["slides", "05_under_20k", "--to", str(tmp_path), "--reveal", "reveal.js"]) == 0
    html = (tmp_path / "05_under_20k.slides.html").read_text(encoding="utf-8")
    asked = re.findall(r'<(?:script|link)[^>]* (?:src|href)="([^"]+)"', html)
    asked = [each for each in asked if "mathjax" not in each.casefold()]
    assert len(asked) == 3 and all(each.startswith("reveal.js/dist/") for each in asked)
    pages = slides.deck(notebooks.find(["05_under_20k"])[0]).cells
    assert html.count("<section") == 2 * len(pages)  # a column of one for each
