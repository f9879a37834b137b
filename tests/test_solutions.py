"""The questions and exercises at the end of each notebook: each has its answer in `notebooks/solutions/`, every solution
runs, and what a pupil answers is checked.

A learner has run the notebook to its end, does one exercise or all, in any order, and compares with the solution in a
new cell. So each solution gets the variables the notebook ended with, in a copy: one that leans on another solution
fails here, as it would for whoever skipped that exercise. What a copy hides, a variable of the notebook that one
solution replaces and another one reads, has a test of its own.

All of it runs in this process and on the digits sample, because that trains in seconds and needs no kernel; the same
notebooks on MNIST, in a kernel, are what nbval runs. The notebooks with the solutions are not run a second time by it.
"""

import ast
import functools
import itertools
import linecache
import re

import pytest
import torch

from mnist_helpers import data
from mnist_helpers.course import answers, notebooks

PATHS = notebooks.every()
NO_CODE = "There is no code to write."

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def tags(cell):
    return set(cell.metadata.get("tags", []))


def solution_cells(path):
    return notebooks.read(answers.solutions_of(notebooks.name_of(path))).cells


def solved(path):
    """``{letter: cells}``: what the solutions have of each exercise, after its quotation."""
    found, letter = {}, None
    for cell in solution_cells(path):
        if "quoted" in tags(cell):
            letter = (re.match(r"> \*\*([A-Z])\.\*\* ", cell.source) or [None, None])[1]
        elif letter:
            found.setdefault(letter, []).append(cell)
    return found


def solutions(path):
    """``{letter: code}`` of the exercises that have a solution in code."""
    return {letter: "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
            for letter, cells in solved(path).items() if any(cell.cell_type == "code" for cell in cells)}


# ---------------------------------------------------------------- what there is


def test_each_notebook_has_its_solutions_and_no_solution_is_left_over():
    assert set(notebooks.every_solution()) == {answers.solutions_of(notebooks.name_of(path)) for path in PATHS}


@each_notebook
def test_each_question_has_its_answer(path):
    asked = re.findall(r"^(\d+)\. \S", answers.questions(notebooks.read(path)), re.MULTILINE)
    cells = solution_cells(path)
    quotation = next(number for number, cell in enumerate(cells) if "quoted" in tags(cell))
    assert asked and re.findall(r"^(\d+)\. \S", cells[quotation + 1].source, re.MULTILINE) == asked


@each_notebook
def test_each_exercise_has_an_empty_cell_and_its_solution_elsewhere(path):
    """Solutions are in a notebook of their own, and quote what they solve."""
    cells, found = notebooks.read(path).cells, solved(path)
    assert list(answers.exercises(notebooks.read(path))) == list(found) and found
    for cell, following in itertools.pairwise(cells):
        if match := answers.EXERCISE.search(cell.source):
            code = any(each.cell_type == "code" for each in found[match[1]])
            assert code or any(NO_CODE in each.source for each in found[match[1]]), match[1]
            assert not code or ("answer" in tags(following) and following.source.startswith("#")), match[1]
    assert not any("<summary>" in cell.source for cell in cells[-8:]), "solutions belong into notebooks/solutions"
    quoted = [cell.source for cell in solution_cells(path) if "quoted" in tags(cell)]
    assert quoted == answers.quoted(notebooks.name_of(path)), "python -m mnist_helpers table --write"


@each_notebook
def test_outputs_of_the_solutions_belong_to_their_code(path):
    notebook = notebooks.read(answers.solutions_of(notebooks.name_of(path)))
    assert notebook.metadata.get("mnist_helpers", {}).get("code") == notebooks.code_digest(notebook), (
        f"python -m mnist_helpers refresh solutions/{notebooks.name_of(path)} --train")
    assert all(output.output_type != "error" and output.get("name") != "stderr" for cell in notebook.cells
               if cell.cell_type == "code" for output in cell.outputs)


# ---------------------------------------------------------------- what can be checked


@each_notebook
def test_answers_to_fill_in_are_those_of_the_key(path):
    """Nothing is filled in; the check names nothing right, and all of the key right."""
    name, notebook, scope = notebooks.name_of(path), notebooks.read(path), {}
    key = answers.key(name)
    cells = notebooks.tagged(notebook, "check")
    assert len(cells) == bool(key)
    if not key:
        return
    assert cells[0].source == f'mh.check_answers("{name}", globals())'
    exec(notebook.cells[notebook.cells.index(cells[0]) - 1].source, scope)
    assert {answer: scope[answer] for answer in key} == dict.fromkeys(key)
    assert set(answers.check_answers(name, scope).right.values()) == {None}
    asked = set(re.findall(r"^(\d+)\. ", answers.questions(notebook), re.MULTILINE))
    assert {answer[1:].partition("_")[0] for answer in key} <= asked


def test_an_answer_is_compared_as_its_kind_is(monkeypatch):
    values = {"whole": 938, "part": 1.414, "word": "linear", "truth": True, "range": (20, 26)}
    monkeypatch.setattr(answers, "key", lambda name: values)
    right = [{"whole": 938, "part": 1.41, "word": " Linear", "truth": True, "range": 20},
             {"whole": torch.tensor(938), "part": 2**0.5, "word": "linear", "truth": True, "range": 23.0}]
    for given in right:
        assert answers.check_answers("any", given | {"other": 1})
    wrong = {"whole": 938.5, "part": 1.43, "word": "conv1", "truth": 1, "range": 27}
    assert answers.check_answers("any", wrong).right == dict.fromkeys(values, False)
    assert answers.check_answers("any", {"whole": "many"}, "whole").right == {"whole": False}
    assert answers.check_answers("any", {}).right == dict.fromkeys(values)
    with pytest.raises(ValueError, match="whole"):
        answers.check_answers("any", {}, "hole")


def test_the_key_of_numbers_is_right():
    """By arithmetic of its own."""
    key = {name: answers.key(name) for name in ("01_baseline", "02_fewer_parameters", "04_batch_norm", "by_hand")}
    assert key["01_baseline"] | {"q1_steps": -(-60_000 // 64), "q1_last_batch": 55_000 % 64} == key["01_baseline"]
    wider = (16 * 9 + 16) - (8 * 9 + 8) + 8 * 16 * 9
    assert key["02_fewer_parameters"]["q2_parameters"] == wider
    assert key["02_fewer_parameters"]["q1_saved"] == 16 * 49 * 10 + 16 * 33
    assert abs(key["04_batch_norm"]["q4_left"] - 100 * 0.9**20) < 0.05
    logits = torch.tensor([7.0, 6.0, 4.0])
    assert abs(key["by_hand"]["q2_loss"] + logits.log_softmax(0)[0]) < 1e-3


# ---------------------------------------------------------------- that it runs


@pytest.fixture(scope="module", autouse=True)
def digits(tmp_path_factory):
    """No MNIST and no download, two epochs at most, and a folder for whatever is recorded or written.

    One thread, since batches this small gain nothing from more and lose much where other processes want the cores.
    """
    def fetch(root=None, **_):
        raise data.DownloadError("these tests do without it")

    folder, threads = tmp_path_factory.mktemp("solutions"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "fetch", fetch)
        patch.setattr(data.Dataset, "epochs", lambda dataset, full: 1)
        patch.delenv("MNIST_CHECK", raising=False)  # the floors are for longer trainings
        patch.setenv("MNIST_PROFILE", "quick")
        patch.setenv("MNIST_COLLECT", str(folder))
        patch.chdir(folder)
        yield
    torch.set_num_threads(threads)


def run(source, name, variables):
    """Execute a cell; the traceback of a failure shows ``name`` and the line."""
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    exec(compile(source, name, "exec"), variables)


@functools.cache
def variables_after(path):
    """The notebook's variables once all its cells have run; it is run once for all of its solutions."""
    variables = {"__name__": "__main__", "display": print}
    for number, cell in enumerate(notebooks.read(path).cells):
        if cell.cell_type == "code":
            run(cell.source, f"{path.name}, cell {number}", variables)
    return variables


@pytest.mark.parametrize(("path", "letter"), [pytest.param(path, letter, id=f"{path.stem}-{letter}")
                                              for path in PATHS for letter in solutions(path)])
def test_the_solution_runs(path, letter):
    run(solutions(path)[letter], f"{path.name}, solution {letter}", dict(variables_after(path)))


@each_notebook
def test_no_solution_replaces_what_another_one_reads(path):
    """Otherwise the second would quietly compare with the wrong network: in the learner's kernel they share names."""
    def names(source, context):
        return {node.id for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Name) and isinstance(node.ctx, context)}

    for (one, replacing), (other, reading) in itertools.permutations(solutions(path).items(), 2):
        read = names(reading, ast.Load) - names(reading, ast.Store)
        assert not names(replacing, ast.Store) & read, f"solution {one} replaces what solution {other} reads"
