"""A fork's own: a teacher's lessons in `notebooks/own/`, and translations in `notebooks/lang/xx/`."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import project as small
import pytest

from mnist_helpers import data, plots, words
from mnist_helpers.__main__ import main
from mnist_helpers.course import notebooks, records, site
from mnist_helpers.course.table import Code, Table

ROOT = Path(__file__).parents[1]
FIGURES = "It gains 0.03<!-- = lesson 5 - lesson 3, test --> points, from −1<!-- = printed by a --> to 2<!-- = printed by a -->."


def text(source, id):
    return nbformat.v4.new_markdown_cell(source, id=id)


def code(source, id, shown="an output\n"):
    return nbformat.v4.new_code_cell(source, id=id, execution_count=1, outputs=[
        nbformat.v4.new_output("stream", name="stdout", text=shown)])


def change(path, *changes, tags=(), drop=(), insert=()):
    """Edit a notebook: ``(id, source)`` of cells, ``{id: tags}``, ids to ``drop``, and ``(place, cell)`` to ``insert``."""
    notebook = notebooks.read(path)
    for cell in notebook.cells:
        cell.source = dict(changes).get(cell.id, cell.source)
        if cell.id in tags:
            cell.metadata["tags"] = tags[cell.id]
    notebook.cells = [cell for cell in notebook.cells if cell.id not in drop]
    for place, cell in insert:
        notebook.cells.insert(place, cell)
    nbformat.write(notebook, path)


def sources(path):
    return {cell.id: cell.source for cell in notebooks.read(path).cells}


# ---------------------------------------------------------------- lessons of a teacher's own


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.make(tmp_path)
    small.settle(tmp_path, monkeypatch.setattr)
    monkeypatch.delenv("MNIST_COLLECT", raising=False)
    return tmp_path


def test_a_lesson_in_own_is_none_of_the_courses(project):
    folder = project / "notebooks"
    notebook = notebooks.read(folder / "01_good.ipynb")
    notebook.metadata["mnist_helpers"] = {}  # as the course's own have it
    nbformat.write(notebook, folder / "01_good.ipynb")
    before = notebooks.every()
    for name in ("own/01b_mine", "lang/de/01_good", "solutions/own/01b_mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "01_good.ipynb", folder / f"{name}.ipynb")
        assert site.place(folder / f"{name}.ipynb", project) is None
    assert notebooks.every() == before and folder / "01_good.ipynb" in before
    assert notebooks.own() == notebooks.find(["01b_mine"]) == [folder / "own" / "01b_mine.ipynb"]
    with pytest.raises(FileNotFoundError, match="own/01b_mine"):
        notebooks.find(["01b_mime"])

    # As if it had run, with a network of the course and with one of its own.
    for name in ("Good", "Mine"):
        execution = notebooks.Execution(*notebooks.own(), notebook=notebooks.as_json(notebook), records=[
            small.record(name, "01_good")], kept={f"{name}-s0-0.safetensors": b"weights", "Other-s0-0.safetensors": b"trial"})
        with pytest.raises(ValueError, match="network of your own, is not kept"):
            notebooks.save(execution)
        notebooks.note(execution)
        notebooks.keep_experiments(execution)
        assert not records.runs_file().exists() and [*records.mine_file().parent.glob("[!.]*")] == [records.mine_file()]
    assert [run["model"] for run in records.read(records.mine_file())] == ["Good", "Mine"]


@pytest.mark.parametrize(("profile", "expected"), [("quick", [False, False, True, False]), ("recorded", [False, False, True, True])])
def test_own_lessons_and_translations_are_executed_and_not_compared(monkeypatch, profile, expected):
    spec = importlib.util.spec_from_file_location("settings", ROOT / "conftest.py")
    settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(settings)
    monkeypatch.setenv("MNIST_PROFILE", profile)
    monkeypatch.setattr(data, "damaged", lambda: {})

    def item(name, tag, check):
        cell = nbformat.v4.new_code_cell(metadata={"tags": [tag]})
        return SimpleNamespace(cell=cell, path=ROOT / "notebooks" / name, options={"check": check})

    items = [item("own/04b.ipynb", "nbval-check-output", True), item("lang/de/05.ipynb", "recorded", False),
             item("04.ipynb", "nbval-check-output", True), item("04.ipynb", "recorded", False)]
    settings.pytest_collection_modifyitems([*items, SimpleNamespace(path=ROOT / "tests" / "test_own.py")])
    assert [each.options["check"] for each in items] == expected


# ---------------------------------------------------------------- translations


NO_WORDS = f"words.json: 0 of {len(words.WORDS)} words of figures and tables"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Two lessons, a challenge, a glossary."""
    folder = tmp_path / "notebooks"
    small.write(folder / "04_norm.ipynb", text("# Norm\n\nThen [lesson 5](05_under.ipynb#heading).", "04-00"))
    small.write(folder / "05_under.ipynb", text("# Under\n\nSee [4](04_norm.ipynb), [words](glossary.md), x[0](y).", "05-00"),
                code("print(1)", "05-01"), text("## Heading", "05-02"), text(FIGURES, "05-03"), code("print(2)", "05-04"),
                text("The end.", "05-05"))
    change(folder / "05_under.ipynb", tags={"05-05": ["result"]})
    small.write(folder / "challenges" / "one.ipynb", text("[4](../04_norm.ipynb), [words](../glossary.md)", "on-00"))
    (folder / "glossary.md").write_text("words")
    for module in (data, notebooks, words):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    return folder


@pytest.fixture
def german(course, capsys):
    """Lesson 5 in German: heading, figures and the end are translated, title and code are not."""
    assert main(["translate", "de", "05_under"]) == 0
    path = course / "lang" / "de" / "05_under.ipynb"
    change(path, ("05-02", "## Überschrift"), ("05-05", "Der Schluss."), (
        "05-03", "Von 2<!-- = printed by a --> bis −1<!-- = printed by a --> sind es 0.03<!-- = lesson 5 - lesson 3, test --> Punkte."))
    assert main(["translate", "de"]) == 0
    assert capsys.readouterr().out.splitlines() == ["lang/de/05_under: 0 of 4 texts are translated", NO_WORDS,
                                                    "lang/de/05_under: 3 of 4 texts are translated", NO_WORDS]
    return path


def test_a_copy_to_translate_has_the_same_code_and_outputs_and_links_that_lead_there(course, german):
    ours, theirs = notebooks.read(course / "05_under.ipynb"), notebooks.read(german)
    assert [cell.id for cell in ours.cells] == [cell.id for cell in theirs.cells]
    for cell, copied in zip(ours.cells, theirs.cells, strict=True):
        assert cell.cell_type == "markdown" or {key: cell[key] for key in ("source", "outputs", "execution_count")} == {
            key: copied[key] for key in ("source", "outputs", "execution_count")}
    assert theirs.cells[0].source.endswith("See [4](../../04_norm.ipynb), [words](../../glossary.md), x[0](y).")

    # What the language has by and by is what its links lead to; anchors stay.
    change(german, ("05-00", "Siehe [4](../../04_norm.ipynb), [Wörter](../../glossary.md)."))
    assert main(["translate", "de", "04_norm", "one"]) == 0
    (course / "lang" / "de" / "glossary.md").write_text("Wörter")
    assert main(["translate", "de"]) == 0
    assert sources(german)["05-00"] == "Siehe [4](04_norm.ipynb), [Wörter](glossary.md)."
    assert sources(german.with_name("04_norm.ipynb"))["04-00"].endswith("(05_under.ipynb#heading).")
    assert main(["translate", "fr", "04_norm", "05_under"]) == 0
    assert sources(course / "lang" / "fr" / "04_norm.ipynb")["04-00"].endswith("(05_under.ipynb#heading).")
    assert sources(german.parent / "challenges" / "one.ipynb")["on-00"] == "[4](../04_norm.ipynb), [words](../glossary.md)"


def test_a_translation_follows_the_english_and_says_what_is_stale(course, german, capsys):
    """Cells added, dropped, changed on either side; figures from new records; outputs cleared by hand."""
    change(course / "05_under.ipynb", ("05-00", "# A new title"), ("05-01", "print(7)"), ("05-03", FIGURES.replace("0.03", "0.04")),
           ("05-05", "Quite another end."), tags={"05-05": []}, drop=["05-02", "05-04"], insert=[(2, text("An insertion.", "05-new"))])
    notebook = notebooks.read(german)
    notebook.metadata["slides"] = {"theme": "simple"}
    notebook.cells[-1].attachments = {"a.png": {"image/png": "AAAA"}}
    notebook.cells[1].outputs, notebook.cells[1].execution_count = [], None
    notebook.cells.insert(4, text("Eine Anmerkung.", "note"))
    nbformat.write(notebook, german)
    assert main(["translate", "de"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "lang/de/05_under: 2 of 4 texts are translated", "  new: 05-new (An insertion.)",
        "  stale, its English has changed: 05-05 (Der Schluss.)", "  not in the English: 05-02 (## Überschrift)",
        NO_WORDS]
    made = notebooks.read(german)
    assert [cell.id for cell in made.cells] == ["05-00", "05-01", "05-02", "05-new", "05-03", "note", "05-05"]
    assert made.metadata.slides and made.cells[1].outputs[0].text == "an output\n" and made.cells[1].source == "print(7)"
    assert sources(german)["05-00"] == "# A new title" and sources(german)["05-05"] == "Der Schluss."
    assert sources(german)["05-03"].startswith("Von 2<!--") and "0.04<!-- = lesson 5 - lesson 3, test --> Punkte" in sources(german)["05-03"]

    assert made.cells[-1].attachments and not made.cells[-1].metadata.tags

    # It stays on the list until somebody says that it is translated anew.
    change(german, ("05-05", "Ein ganz anderer Schluss."), drop=["05-02"])
    for arguments, stale in (([], True), (["05_under", "--done", "05-05"], False), ([], False)):
        assert main(["translate", "de", *arguments]) == 0
        assert ("stale" in capsys.readouterr().out) == stale
    before = german.read_bytes()
    assert main(["translate", "de"]) == 0 and german.read_bytes() == before


def test_code_and_figures_that_are_not_the_english_ones_are_named(course, german, capsys):
    change(german, ("05-01", "print(1)  # ein Kommentar"), ("05-03", "Von 3<!-- = printed by a --> an, 0,03<!-- = lesson 5 - lesson 3, test -->"))
    assert main(["translate", "de"]) == 0
    out = capsys.readouterr().out
    assert "code of its own: 05-01" in out and "other figures than in the English: 05-03" in out
    assert sources(german)["05-03"].endswith("0.03<!-- = lesson 5 - lesson 3, test -->") and "Kommentar" in sources(german)["05-01"]


def test_figures_and_tables_speak_the_language(course, german, capsys, monkeypatch):
    """In the folder of the language and in a learner's copy of it; each time they are shown, and nowhere else."""
    path = german.parent / "words.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    assert list(known) == list(words.WORDS) and not any(known.values())
    path.write_text(json.dumps(known | {"epoch": "Epoche", "accuracy (%)": "Genauigkeit (%)", "test": "Test", "mine": "meins"}))
    assert main(["translate", "de"]) == 0 and "words.json: 4 of" in capsys.readouterr().out
    table = Table(["test", "tested", "epoch"], [["mine", Code("epoch"), "1"], "the last epoch"], "Of a test.")

    def shown():
        figure = plots.bands({"mine": ([[0.9, 0.8], [0.7, 0.9]], [0.9, 0.9])}, "By epoch")
        figure._repr_mimebundle_()
        axis = figure.axes[0]
        return axis.get_xlabel(), axis.get_ylabel(), axis.get_title(), figure.get_suptitle(), str(table), table._repr_markdown_()

    english = shown()
    assert english[:4] == ("epoch", "accuracy (%)", "mine", "By epoch")
    for folder in (german.parent, course.parent / "work" / "lang" / "de" / "challenges"):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        *figure, text, markdown = shown()
        assert figure == ["Epoche", "Genauigkeit (%)", "meins", "By Epoche"]
        for each in (text, markdown):
            assert all(part in each for part in ("Test", "tested", "meins", "the last Epoche", "Of a Test.")), each
        assert "`epoch`" in markdown
    monkeypatch.chdir(course)
    assert shown() == english
    path.write_text("[]")
    assert main(["translate", "de"]) == 1 and "words.json must have the form" in capsys.readouterr().err


def test_wrong_commands_are_told_and_change_nothing(course, german, capsys):
    small.write(course / "lang" / "fr" / "04_norm.ipynb", text("Norme", "04-00"))  # without digests: by hand
    before = {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}
    for arguments, expected, said in (
            (["05_under"], 1, "no language"), (["../de"], 1, "no language"), (["es"], 2, "name notebooks"),
            (["es", "06"], 2, "no notebook"), (["es", "lang/de/05_under"], 1, "name a notebook of the course"),
            (["de", "04_norm", "05_under", "--done", "x"], 1, "one notebook"), (["de", "05_under", "--done", "x"], 1, "cell x")):
        assert main(["translate", *arguments]) == expected
        err = capsys.readouterr().err
        assert said in err and len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in course.rglob("*") if path.is_file()} == before
    assert main(["translate", "fr"]) == 0 and "perhaps stale, its English is unknown: 04-00 (Norme)" in capsys.readouterr().out
    (course / "04_norm.ipynb").unlink()
    assert main(["translate", "fr"]) == 0 and "no such notebook any more" in capsys.readouterr().out
    german.write_text(german.read_text(encoding="utf-8").replace('"nbformat_minor": 5', '"nbformat_minor": 4').replace('"id": ', '"colab": '))
    assert main(["translate", "de"]) == 1 and "lost their ids" in capsys.readouterr().err


def test_the_courses_own_notebooks_can_be_translated(tmp_path, monkeypatch, capsys):
    """A second time nothing changes, and what nobody has touched counts as untranslated."""
    names = ["05_under_20k", "challenges/one_epoch"]
    for name in names:
        (tmp_path / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "notebooks" / f"{name}.ipynb")
    for module in (data, notebooks, words):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    assert main(["translate", "pt-BR", *names]) == 0
    before = {path: path.read_bytes() for path in notebooks.translations("pt-BR")}
    assert main(["translate", "pt-BR"]) == 0 and len(before) == 2
    assert {path: path.read_bytes() for path in before} == before
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(": 0 of " in line for line in lines)
    for path in before:
        nbformat.validate(notebooks.read(path))
        assert "mnist_helpers" not in notebooks.read(path).metadata, "its outputs are not the course's own"
