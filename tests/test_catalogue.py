"""The catalogue: what a row needs, and what is wrong with one that lacks it."""

import pytest

from mnist_helpers.course import catalogue


def test_the_lessons_are_seven_and_every_name_is_there_once():
    assert [network.lesson for network in catalogue.lessons()] == list(range(1, 8))
    names = [network.name for network in catalogue.networks()]
    assert len(names) == len(set(names)) == len(catalogue.lessons()) + len(catalogue.challenges())
    assert catalogue.network("Under20K").notebook_file == "05_under_20k.ipynb" and catalogue.network("Mine") is None


@pytest.mark.parametrize("text", [
    '[[network]]\nname = "A"', '[[network]]\nname = "A"\nweights = 3', 'title = "x"',
    catalogue.FILE.read_text(encoding="utf-8").replace('name = "Strided"', 'name = "AllImages"')])
def test_a_wrong_row_is_named(tmp_path, text):
    (tmp_path / "catalogue.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"catalogue\.toml is wrong"):
        catalogue.read(tmp_path / "catalogue.toml")
