"""The pages: figures, tables and the picture are those of the records."""

import pytest
from PIL import Image

from mnist_helpers.course import pages
from mnist_helpers.data import project_root


@pytest.fixture(scope="module")
def find():
    return pages.recorded(pages.measured())


def test_the_committed_pages_are_up_to_date(find):
    for path, text in pages.pages(find).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: python -m mnist_helpers table --write"


@pytest.mark.parametrize("name", pages.PICTURES)
def test_the_committed_pictures_are_up_to_date(find, name):
    assert Image.open(project_root() / name).info["Description"] == pages.shown(find)


def test_a_marked_figure_is_rewritten_in_its_own_form():
    values = {"lesson 5": {"test": {0: 99.0, 1: 99.5}}, "lesson 3": {"test": {0: 98.0, 1: 99.0}}}
    find = pages.recorded(values)
    assert pages.figures("1.00 %<!-- = lesson 5, test -->", find) == "99.25 %<!-- = lesson 5, test -->"
    assert pages.figures("+9.0<!-- = lesson 5 - lesson 3, test -->", find).startswith("+0.8<!--")  # (1.0 + 0.5) / 2
    for wrong in ("no figure <!-- = lesson 5, test -->", "1<!-- = lesson 9, test -->"):
        with pytest.raises(ValueError):
            pages.figures(wrong, find)
