"""The questions and exercises at the end of each notebook: each has its answer, and every folded solution runs.

A learner has run the notebook to its end, does one exercise or all, in any order, and compares with the solution in a
new cell. So each solution gets the variables the notebook ended with, in a copy: one that leans on another solution
fails here, as it would for whoever skipped that exercise. What a copy hides, a variable of the notebook that one
solution replaces and another one reads, has a test of its own.

All of it runs in this process and on the digits sample, because that trains in seconds and needs no kernel; the same
notebooks on MNIST, in a kernel, are what nbval runs.
"""

import ast
import functools
import itertools
import linecache
import re

import nbformat
import pytest
import torch

from mnist_helpers import data
from mnist_helpers.course import notebooks

PATHS = notebooks.every()
NO_CODE = "There is no code to write."

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def markdown(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def exercises(path):
    """``{letter: text}``: each exercise up to the next, with its solution."""
    parts = re.split(r"^\*\*([A-Z])\.\*\* ", markdown(path).partition("## Exercises")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def solution(exercise):
    """The Python of an exercise's folded solution, empty where there is none."""
    folded = "".join(re.findall(r"<details><summary>Solution</summary>\n\n(.*?)</details>", exercise, re.DOTALL))
    return "\n\n".join(re.findall(r"^```python\n(.*?)^```", folded, re.DOTALL | re.MULTILINE))


def solutions(path):
    return {letter: solution(text) for letter, text in exercises(path).items() if solution(text)}


# ---------------------------------------------------------------- what there is


@each_notebook
def test_each_question_has_its_answer(path):
    section = markdown(path).partition("## Questions")[2].partition("## Exercises")[0]
    asked, answered = re.fullmatch(r"(.*)<details><summary>Answers</summary>\n\n(.*)</details>\s*", section,
                                   re.DOTALL).groups()
    numbers = re.findall(r"^(\d+)\. \S", asked, re.MULTILINE)
    assert numbers and re.findall(r"^(\d+)\. \S", answered, re.MULTILINE) == numbers


@each_notebook
def test_each_exercise_has_its_solution(path):
    found = exercises(path)
    assert found
    for letter, text in found.items():
        assert text.count("<details><summary>Solution</summary>\n\n") == text.count("</details>") == 1, letter
        assert solution(text) or NO_CODE in text, f"{letter} has no code, and does not say so"


# ---------------------------------------------------------------- that it runs


@pytest.fixture(scope="module", autouse=True)
def digits(tmp_path_factory):
    """No MNIST and no download, two epochs at most, and a folder for whatever is recorded or written.

    One thread, since batches this small gain nothing from more and lose much where other processes want the cores.
    """
    def fetch(root=None):
        raise data.DownloadError("these tests do without it")

    folder, threads = tmp_path_factory.mktemp("solutions"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "fetch", fetch)
        patch.setattr(data.Dataset, "epochs", lambda dataset, full: min(full, 2))
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
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
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
