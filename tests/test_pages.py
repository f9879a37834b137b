"""The pages: figures, tables and the picture are those of the records."""

import json
import re

import nbformat
import pytest
from PIL import Image

from mnist_helpers.course import catalogue, notebooks, pages, stamps, tables
from mnist_helpers.data import project_root


@pytest.fixture(scope="module")
def find():
    return pages.recorded(pages.measured())


def test_the_committed_pages_are_up_to_date(find):
    for path, text in pages.pages(find).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: python -m mnist_helpers table --write"


@pytest.mark.parametrize("path", notebooks.every(), ids=notebooks.name_of)
def test_the_figures_in_a_notebooks_prose_are_those_of_the_records_and_of_its_outputs(find, path):
    notebook = notebooks.read(path)
    before = [cell.source for cell in notebook.cells]
    assert not pages.notebook_figures(notebook, find)
    assert [cell.source for cell in notebook.cells] == before, "python -m mnist_helpers table --write"


def test_a_figure_that_no_cell_printed_is_named():
    cell = nbformat.v4.new_code_cell(metadata={"tags": ["rates"]}, outputs=[
        nbformat.v4.new_output("stream", text="rate 0.06: diverged, gain -1.50 points")])
    prose = nbformat.v4.new_markdown_cell("From 0.06<!-- = printed by rates --> on; it costs 1.50<!-- = printed by "
                                          "rates --> points, not 6<!-- = printed by rates --> or "
                                          "0.06<!-- = printed by others -->.")
    notebook = nbformat.v4.new_notebook(cells=[prose, cell])
    problems = pages.notebook_figures(notebook, find=None)
    assert len(problems) == 2 and problems[0].startswith("6 is not") and "others" in problems[1]


def test_pages_mark_what_is_out_of_date_and_say_what_that_means(find, monkeypatch):
    tables_of = {"01_baseline": lambda: pages.results_table(find), "challenges/one_epoch": lambda: pages.scoreboard(find)}
    as_they_are = stamps.recipe_now
    for notebook, table in tables_of.items():
        assert tables.MARK not in table()
        monkeypatch.setattr(stamps, "recipe_now", lambda name, edited=notebook: "new" if name == edited else
                            as_they_are(name))
        marked = [line for line in table().splitlines() if f"{tables.MARK} |" in line]
        assert len(marked) == sum(network.notebook == notebook for network in catalogue.networks())
        assert table().endswith(tables.MARKED)
        monkeypatch.undo()


def test_every_run_and_every_look_at_the_test_images_is_on_its_page():
    """Counted here from the files, line by line."""
    text = (project_root() / "site" / "records.md").read_text(encoding="utf-8")
    sections = {part.split("\n")[0]: part for part in text.split("\n### ")[1:]}
    runs, earlier = ([json.loads(line) for line in (project_root() / "results" / name).read_text().splitlines()]
                     for name in ("runs.jsonl", "earlier_runs.jsonl"))
    results = {name: set() for name in sections}
    for run in runs + earlier:
        results[run["model"]].add((run["seed"], frozenset(run["mistakes"].items())))
    for name, section in sections.items():
        assert f"Looks at the test images: {len(results[name])}\n" in section + "\n"
    assert f"looked at the test images {sum(map(len, results.values()))} times" in text
    for run in runs:
        assert f"{run['seed']}:\u00a0{run['test_correct'] / 100:.2f}" in sections[run["model"]]
    for network in catalogue.networks():
        assert (network.published is None) == ("Published" not in sections[network.name])


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


def test_what_jupyterlab_opens_first_lists_every_notebook_there_is():
    """Found here by their set-up cell, which every notebook that runs has."""
    folder = project_root() / "notebooks"
    (cell,) = notebooks.read(folder / "index.ipynb").cells
    targets = re.findall(r"\]\((.+?)\)", cell.source)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.ipynb")
             if ".ipynb_checkpoints" not in path.parts and not notebooks.apart(path) and '"setup"' in path.read_text(encoding="utf-8")}
    assert sorted(target for target in targets if target.endswith(".ipynb")) == sorted(there)
    assert all((folder / target).exists() for target in targets) and "<!--" not in cell.source
