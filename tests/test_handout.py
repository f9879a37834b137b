"""The class kit: pupils' copies, submissions of strangers, nbgrader, the histogram of a class."""

import csv
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import project as small
import pytest
from PIL import Image

from mnist_helpers import data
from mnist_helpers.__main__ import main
from mnist_helpers.course import answers, catalogue, grading, handout, notebooks, records

LESSON = "01_small"
NETWORK = """
import mnist_helpers as mh
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x):
        return self.linear(x.flatten(1))
"""
HIDDEN = NETWORK.replace("self.linear = nn.Linear(784, 10)", "self.layers = [nn.Linear(784, 784)]; self.linear = "
                         "nn.Linear(784, 10)").replace("x.flatten(1)", "self.layers[0](x.flatten(1))")
# A run as lessons record it, in this very copy of the course; and what others have recorded before.
RUN = """
import json, os
from pathlib import Path
from mnist_helpers.data import project_root
seen = sorted(path.name for path in (project_root() / "results").iterdir())
made = {"id": f"Small-s{SEED}-0", "seed": SEED, "model": "Small", "test_accuracy": 0.9 + SEED / 1e5, "seen": seen,
        "solutions": (project_root() / "notebooks" / "solutions").exists(), "secret": os.environ.get("SECRET"),
        "profile": os.environ["MNIST_PROFILE"], "home": os.path.expanduser("~")}
for folder in (project_root() / "results", Path(os.environ["MNIST_COLLECT"])):
    with open(folder / ("mine.jsonl" if folder.name == "results" else "records.jsonl"), "a") as file:
        file.write(json.dumps(made) + "\\n")
"""
ANSWERS = "q1_images = None\nq1_layer = None"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one lesson, with its solutions, a budget of 8,000, and somebody's records."""
    root = tmp_path_factory.mktemp("course")
    text = nbformat.v4.new_markdown_cell
    path = small.write(
        root / "notebooks" / f"{LESSON}.ipynb", text("# 1. Small\n\nSee [lesson 2](02.ipynb)."),
        small.cell("SEED = 0\nPROFILE = None", "parameters"), small.cell(NETWORK, "recipe"), small.cell(RUN),
        text("## Questions\n\n1. How many images, and which layer?\n2. Why?"), small.cell(ANSWERS, "answer"),
        small.cell(f'mh.check_answers("{LESSON}", globals())', "check"), text("## Exercises\n\n**A.** Do it."),
        small.cell("# Your code for exercise A.", "answer"), text("[Solutions](solutions/01_small.ipynb) to these."))
    notebook = notebooks.read(path)
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text="an output")]
    nbformat.write(notebook, path)
    small.write(root / "notebooks" / "solutions" / f"{LESSON}.ipynb",
                small.cell('q1_images = 24\nq1_layer = "linear"', "key"))
    (root / "results").mkdir()
    (root / "results" / "mine.jsonl").write_text("somebody's\n")
    (root / "results" / "runs.jsonl").write_text("")
    shutil.copy(data.project_root() / "pyproject.toml", root)
    network = catalogue.Network("Small", LESSON, 7850, 1, {}, lesson=1, title="small", budget=8000)
    with pytest.MonkeyPatch.context() as patch:
        for module in (data, notebooks, records, grading):
            patch.setattr(module, "project_root", lambda: root)
        patch.setattr(catalogue, "read", lambda: (network,))
        patch.setattr(data, "fetch", lambda: None)
        patch.setenv("SECRET", "a password")
        yield root


@pytest.fixture(scope="module")
def graded(course, tmp_path_factory):
    """Submissions, made by the command and executed: right, wrong, hidden weights."""
    folder = tmp_path_factory.mktemp("class")
    (folder / "names.txt").write_text("# a class\nRight\nWrong\n\nHidden\n", encoding="utf-8")
    assert main(["handout", LESSON, "--to", str(folder), "--seed-from", str(folder / "names.txt")]) == 0
    right = (("q1_images = None", "q1_images = 24"), ("q1_layer = None", 'q1_layer = "Linear"'))
    exercise = ("# Your code for exercise A.", "print(1)")
    edits = {"Right": [*right, exercise], "Hidden": [*right, (NETWORK.strip(), HIDDEN.strip())],
             "Wrong": [("q1_images = None", "q1_images = 25"), ("q1_layer = None", "q1_layer = undefined")]}
    for student, changes in edits.items():
        path = folder / student / f"{LESSON}.ipynb"
        notebook = notebooks.read(path)
        for cell in notebook.cells:
            for old, new in changes:
                cell.source = cell.source.replace(old, new)
        nbformat.write(notebook, path)
    # Whoever edits the rest gains nothing: another seed and profile, checks that always pass.
    path = folder / "Wrong" / f"{LESSON}.ipynb"
    text = path.read_text(encoding="utf-8").replace("SEED = 1002", "SEED = 5").replace("assert mh", "mh")
    path.write_text(text, encoding="utf-8")
    before = {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}
    rows = {row["student"]: row for row in grading.grade(folder, limit=100, workers=2)}
    assert {path: path.read_bytes() for path in course.rglob("*") if path.is_file()} == before
    return folder, rows


# ---------------------------------------------------------------- copies


def test_a_copy_has_no_answers_and_no_outputs(course):
    copy = handout.pupils_copy(notebooks.find([LESSON])[0], "Ada", 7)
    nbformat.validate(copy)
    text = "\n".join(cell.source for cell in copy.cells)  # without the cells' ids, which are random
    assert "24" not in text and "Solutions" not in text and "02.ipynb" not in text
    assert all(cell.outputs == [] and cell.execution_count is None for cell in copy.cells if cell.cell_type == "code")
    assert copy.cells[1].source == "SEED = 7\nPROFILE = None" and "mnist_helpers" not in copy.metadata
    marked = {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader for cell in copy.cells if "nbgrader" in cell.metadata}
    assert list(marked) == ["question-2", "answers", "q1_images", "q1_layer", "exercise-A", "budget-Small"]
    assert [(each.grade, each.solution, each.locked, each.get("points")) for each in marked.values()] == [
        (True, True, False, 1), (False, True, False, None), (True, False, True, 1), (True, False, True, 1),
        (True, True, False, 2), (True, False, True, 0)]


def test_each_student_has_a_folder_and_a_seed(course, tmp_path, capfd):
    names = tmp_path / "names"
    names.write_text("Ada\n../Grace\n=Émile\n", encoding="utf-8")
    assert main(["handout", LESSON, "--to", str(tmp_path / "out"), "--seed-from", str(names)]) == 0
    made = sorted((tmp_path / "out").rglob("*.ipynb"))
    assert len(made) == 3 and all(path.parent.parent == tmp_path / "out" for path in made)
    assert {notebooks.read(path).metadata.mnist_handout.seed for path in made} == {1001, 1002, 1003}
    assert main(["handout", LESSON, "--to", str(tmp_path / "out"), "--seed-from", str(names)]) == 1, "somebody's answers"
    names.write_text("a/b\na?b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="share"):
        handout.students(names)
    assert main(["handout", LESSON, "--to", str(tmp_path / "one")]) == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == [f"{LESSON}.ipynb"]


@pytest.mark.parametrize("path", notebooks.every(), ids=notebooks.name_of)
def test_every_notebook_can_be_handed_out(path):
    copy = handout.pupils_copy(path)
    nbformat.validate(copy)
    ids = [cell.metadata.nbgrader.grade_id for cell in copy.cells if "nbgrader" in cell.metadata]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]+", id) for id in ids) and ids
    name, text = notebooks.name_of(path), "".join(cell.source for cell in copy.cells)
    assert "<summary>" not in text[text.index("## Questions"):] and "solutions/" not in text
    assert set(answers.key(name)) <= set(ids)


# ---------------------------------------------------------------- submissions


@pytest.mark.slow
def test_three_submissions_score_as_expected(graded):
    _, rows = graded
    found = {name: (row["points"], row["of"], row["budget"], row["exercises"]) for name, row in rows.items()}
    assert found == {"Right": (2, 2, "yes", "A"), "Wrong": (0, 2, "yes", ""), "Hidden": (0, 2, "no", "")}
    hidden = 784 * 784 + 784
    assert f"{hidden:,} of them hidden" in rows["Hidden"]["remark"] and rows["Hidden"]["parameters"] == str(7850 + hidden)
    assert rows["Wrong"]["wrong"] == "q1_images" and "NameError" in rows["Wrong"]["remark"]
    assert rows["Right"]["remark"] == "" and rows["Right"]["test_accuracy"] == 0.9 + 1001 / 1e5


def test_no_submission_sees_another_ones_run_the_solutions_or_the_environment(graded):
    _, rows = graded
    runs = {name: row["records"] for name, row in rows.items()}
    assert {name: [run["seed"] for run in each] for name, each in runs.items()} == {
        "Right": [1001], "Wrong": [1002], "Hidden": [1003]}
    for (run,) in runs.values():
        assert run["seen"] == ["runs.jsonl"] and not run["solutions"] and run["secret"] is None
        assert run["profile"] == "quick" and not Path(run["home"]).exists()


def test_an_unedited_lesson_and_a_network_over_its_budget_bring_no_points(course):
    about = {"notebook": LESSON, "student": "", "seed": 0}
    result = {"told": {"answers": {"q1_images": 24}, "weights": {"Small": [8001, 0]}}}
    row = grading.row(Path("Ada", "x.ipynb"), about, answers.key(LESSON), "", result)
    assert (row["student"], row["points"], row["budget"]) == ("Ada", 0, "no") and "8,001" in row["remark"]
    result["told"]["weights"]["Small"] = [8000, 0]
    assert grading.row(Path("Ada", "x.ipynb"), about, answers.key(LESSON), "", result)["points"] == 1
    copy = handout.pupils_copy(notebooks.find([LESSON])[0])
    edited = grading.exercises(copy, {"source": notebooks.find([LESSON])[0]})
    result["told"]["answers"] = {"q1_images": None, "q1_layer": None}
    row = grading.row(Path("Ada", "x.ipynb"), about, answers.key(LESSON), edited, result)
    assert (row["points"], row["remark"]) == (0, "unedited")


@pytest.mark.slow
def test_time_is_limited_and_a_table_is_written(course, tmp_path, monkeypatch, capfd):
    path = tmp_path / "Slow" / f"{LESSON}.ipynb"
    path.parent.mkdir()
    copy = handout.pupils_copy(notebooks.find([LESSON])[0])
    copy.cells[2].source = "try:\n    import time; time.sleep(60)\nexcept KeyboardInterrupt:\n    time.sleep(60)"
    nbformat.write(copy, path)
    (tmp_path / "other.ipynb").write_text("no notebook", encoding="utf-8")
    assert main(["grade", str(tmp_path), "--limit", "3", "--jobs", "1"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith(grading.WARNING) and "other.ipynb" in err
    (row,) = csv.DictReader((tmp_path / "grades.csv").read_text(encoding="utf-8").splitlines())
    assert row["student"] == "Slow" and row["points"] == "0" and "limit of 3 s" in row["remark"]
    assert float(row["seconds"]) < 30
    assert main(["grade", str(tmp_path / "nothing")]) == 2
    grading.write_csv([dict.fromkeys(grading.COLUMNS, "=1+1")], tmp_path / "formula.csv")
    assert (tmp_path / "formula.csv").read_text().splitlines()[1].startswith("'=1+1")


# ---------------------------------------------------------------- a class's runs


def run_of(seed, correct, **changes):
    return {"id": f"Baseline-s{seed}-0", "notebook": "01_baseline", "model": "Baseline", "parameters": 26714,
            "seed": seed, "epochs": 1, "profile": "full", "dataset": "mnist", "test_accuracy": correct / 10_000,
            "test_correct": correct, "test_total": 10_000} | changes


def test_a_class_is_one_histogram(tmp_path, capfd):
    accuracies = {1001: 9800, 1002: 9830, 1003: 9790, 1004: 9812}
    for seed, correct in accuracies.items():
        grading.hand_in(run_of(seed, correct))
        cell = nbformat.v4.new_code_cell("mh.hand_in(record)", outputs=[
            nbformat.v4.new_output("stream", text=capfd.readouterr().out)])
        small.write(tmp_path / str(seed) / "01_baseline.ipynb", cell)
    small.write(tmp_path / "again.ipynb", cell)  # the same run does not count twice
    lines = [json.dumps(run_of(1005, 9805)), json.dumps(run_of(1, 9000, profile="quick", test_total=9999))]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert main(["collect", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert "left out: one run of Baseline, quick" in err
    values = [correct / 100 for correct in (*accuracies.values(), 9805)]
    gaps = [abs(a - b) >= 0.2999 for number, a in enumerate(values) for b in values[:number]]
    line = out.splitlines()[0]
    assert f"5 seeds, mean {statistics.mean(values):.2f} %, standard deviation {statistics.stdev(values):.2f}" in line
    assert f"{sum(gaps) / len(gaps):.0%} are 0.3 points" in line
    picture = Image.open(tmp_path / "class_Baseline_full.png")
    assert picture.info["Description"] == line and len(picture.convert("RGB").getcolors(10**6)) > 3
    with pytest.raises(ValueError, match="no two runs"):
        grading.collect(tmp_path / "1001")


def test_what_a_class_did_not_hand_in_is_not_looked_at(tmp_path, capfd, monkeypatch):
    """Hidden folders, environments and what programs install; and of a home folder nothing at all."""
    cell = small.cell("")
    for seed, folder in enumerate(("Ada", "Ben", ".git", "node_modules/x", "env/lib", ".ipynb_checkpoints")):
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{grading.MARK}{json.dumps(run_of(seed, 9800 + seed))}\n")]
        small.write(tmp_path / folder / "01_baseline.ipynb", cell)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "empty.ipynb").touch()
    cell.outputs[0].text = f"{grading.MARK}half a li"
    small.write(tmp_path / "Ben" / "torn.ipynb", cell)
    assert sorted(run["seed"] for run in grading.handed_in(tmp_path)) == [0, 1]
    said = capfd.readouterr().err
    assert "left out" in said and "empty.ipynb" in said and "torn.ipynb" in said
    monkeypatch.setattr(grading, "MOST_FOLDERS", 2)
    for typed in ("collect", "grade"):
        assert main([typed, str(tmp_path)]) == 1
        assert "what your class handed in" in capfd.readouterr().err.splitlines()[-1]


# ---------------------------------------------------------------- nbgrader itself


def test_nbgrader_grades_a_handout(course, graded, tmp_path):
    """Its own commands: the release is the handout as it is, and its scores are those of the checks."""
    if importlib.util.find_spec("nbgrader") is None or shutil.which("alembic") is None:  # which it calls
        pytest.skip("nbgrader is not installed")
    shutil.copytree(course, tmp_path / "course")
    shutil.copytree(data.Path(data.__file__).parent, tmp_path / "course" / "mnist_helpers")
    school, (folder, _) = tmp_path / "school", graded
    handout.handout(notebooks.find([LESSON]), school / "source" / "lesson")
    for student in ("Right", "Wrong"):
        shutil.copytree(folder / student, school / "submitted" / student / "lesson")
    shutil.copytree(school / "source" / "lesson", school / "submitted" / "Unedited" / "lesson")
    environment = os.environ | {"MNIST_PROFILE": "quick", "MNIST_COLLECT": str(tmp_path), "PYTHONPATH": os.pathsep.join(
        [str(tmp_path / "course"), *filter(None, [os.environ.get("PYTHONPATH")])])}

    def nbgrader(*arguments):
        done = subprocess.run([sys.executable, "-m", "nbgrader", *arguments], cwd=school, env=environment, text=True,
                              capture_output=True)
        assert done.returncode == 0, done.stderr

    nbgrader("generate_assignment", "lesson", "--create", "--ClearSolutions.enabled=False")
    released = notebooks.read(school / "release" / "lesson" / f"{LESSON}.ipynb")
    assert any(cell.source.startswith("q1_images = None") for cell in released.cells), "what a pupil fills in"
    nbgrader("autograde", "lesson", "--create")
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{school / 'gradebook.db'}") as book:
        scores = {student: book.find_submission("lesson", student).score for student in ("Right", "Wrong", "Unedited")}
        assert book.find_submission("lesson", "Right").max_score == 5, "two checked, a text and an exercise to read"
    assert scores == {"Right": 2, "Wrong": 0, "Unedited": 0}
