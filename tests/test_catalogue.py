"""The catalogue: what it must have, and what a wrong row is told."""

import pytest

from mnist_helpers import data
from mnist_helpers.course import catalogue

ROW = """
[[network]]
name = "Mine"
notebook = "08_mine"
lesson = 8
title = "mine"
parameters = 100
epochs = 2
floors = {"mnist full" = 0.9, "mnist quick" = 0.8, "digits full" = 0.7, "digits quick" = 0.6}
published = {accuracy = 0.98, images = "test images", source = "as reported"}
"""


def read(tmp_path, text):
    path = tmp_path / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    catalogue.read.cache_clear()
    return catalogue.read(path)


def test_a_row_becomes_a_network(tmp_path):
    (network,) = read(tmp_path, ROW)
    assert (network.name, network.label, network.notebook_file) == ("Mine", "8 mine", "08_mine.ipynb")
    assert network.floors["digits quick"] == 0.6 and network.budget is None and network.challenge == ""


@pytest.mark.parametrize(("budget", "size"), [(99, "100 > 99"), (100, "100"), (None, "100")])
def test_a_budget_that_is_exceeded_stands_beside_the_parameters(tmp_path, budget, size):
    (network,) = read(tmp_path, ROW.replace("epochs = 2", f"epochs = 2\nbudget = {budget}" if budget else "epochs = 2"))
    assert network.size == size


def test_a_submission_may_be_as_large_as_the_network_that_the_lesson_asks_for():
    """Two published networks exceed the budget of their exercise; whoever rebuilds them does as they are told."""
    assert {each.name for each in catalogue.networks() if each.over_budget} == {"BatchNorm", "TwoLinear"}
    for network in catalogue.networks():
        assert network.limit is None if network.budget is None else network.limit >= network.budget
        assert network.limit is None or network.limit >= network.parameters


@pytest.mark.parametrize(("old", "new", "said"), [
    ("epochs = 2", "epoch = 2", r"Mine: epochs is missing; Mine: epoch is unknown"),
    ('"digits quick"', '"digits fast"', "Mine: floors: digits quick is missing; Mine: floors: digits fast is unknown"),
    (', source = "as reported"', "", "Mine: published: source is missing"),
    ('name = "Mine"\n', "", "row 1: name is missing"),
    ("lesson = 8", 'challenge = "c"', "Mine: title is unknown"),
    ("[[network]]", "[[netwrok]]", "network is missing; netwrok is unknown"),
])
def test_a_wrong_row_is_named(tmp_path, old, new, said):
    assert old in ROW
    with pytest.raises(ValueError, match=said):
        read(tmp_path, ROW.replace(old, new))


def test_two_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Mine: there are two"):
        read(tmp_path, ROW + ROW)


def test_the_courses_networks():
    """Counts of parameters are held to the networks themselves by the notebooks' tests."""
    assert [network.lesson for network in catalogue.lessons()] == list(range(1, len(catalogue.lessons()) + 1))
    assert len(catalogue.lessons()) + len(catalogue.challenges()) == len(catalogue.networks())
    assert catalogue.network("Strided").notebook == "challenges/twenty_epochs" and catalogue.network("Mine") is None
    for network in catalogue.networks():
        assert (data.project_root() / "notebooks" / network.notebook_file).is_file()
        assert all(0.1 < floor < 1 for floor in network.floors.values())
        if network.published:
            assert 0 < network.published["accuracy"] < 1
            assert "/" in network.published["source"] or network.published["source"] == "as reported"


def test_pythons_import_machinery_can_ask_the_finder_of_networks():
    import importlib

    from mnist_helpers.course import networks  # noqa: F401 - it registers the finder

    importlib.invalidate_caches()
